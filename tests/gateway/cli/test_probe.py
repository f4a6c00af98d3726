"""What probe, read, write, record and replay make of their arguments, without any device."""

import pytest

from gateway.cli.desk import driver_of, split_unit
from gateway.cli.expect import _entry, _expected, _read
from gateway.cli.main import main
from gateway.cli.probe import Found, Scan, _alike, _snippet, _spans, _table, parse_units
from gateway.cli.record import Reel
from gateway.driver import Candidate, Expected, Finding, Model
from gateway.errors import FileError, LineError, RefusedError


@pytest.mark.parametrize(
    ("text", "units"),
    [(None, ()), ("1", (1,)), ("3,1-3", (3, 1, 2)), ("0,255", (0, 255)), ("7-7, 9", (7, 9))],
)
def test_units_are_numbers_and_spans_in_the_order_somebody_gave_them(text, units):
    assert parse_units(text) == units


@pytest.mark.parametrize("text", ["a", "1-", "-3", "5-2", "1-300", "1,,2", "1;2"])
def test_units_that_are_none_are_refused(text):
    with pytest.raises(FileError, match="--units"):
        parse_units(text)


@pytest.mark.parametrize(
    ("url", "plain", "unit"),
    [
        ("tcp://h", "tcp://h", None),
        ("tcp://h?unit=5", "tcp://h", 5),
        ("rtu:///dev/x?baud=9600&unit=7&parity=E", "rtu:///dev/x?baud=9600&parity=E", 7),
        ("rtu:///dev/serial/by-id/usb-FTDI_a-if00?unit=1", "rtu:///dev/serial/by-id/usb-FTDI_a-if00", 1),
    ],
)
def test_the_unit_may_stand_in_the_url(url, plain, unit):
    assert split_unit(url) == (plain, unit)


def test_a_unit_beyond_255_is_refused():
    with pytest.raises(FileError, match="0 to 255"):
        split_unit("tcp://h?unit=256")


def test_the_scheme_of_a_url_chooses_the_driver():
    assert [driver_of(f"{scheme}://h")[0] for scheme in ("tcp", "rtu", "rtu+tcp", "ascii")] == ["modbus"] * 4
    with pytest.raises(FileError, match="tcp://"):
        driver_of("carrier-pigeon://h")


@pytest.mark.parametrize(
    ("text", "tolerance", "expected"),
    [
        ("229.5", "1%", Expected(229.5, 1, 0.01)),
        ("-3", "0.05", Expected(-3.0, 0, 0.05)),
        ("0.0010", "2%", Expected(0.001, 4, 0.02)),
        ("1e3", "1%", Expected(1000.0, 0, 0.01)),
    ],
)
def test_what_somebody_sees_has_its_digits(text, tolerance, expected):
    assert _expected(text, tolerance) == expected


@pytest.mark.parametrize(("text", "tolerance"), [("x", "1%"), ("1", "x"), ("1", "90%"), ("nan", "1%"), ("0", "1%")])
def test_what_nobody_can_see_is_refused(text, tolerance):
    with pytest.raises(FileError, match="--expect"):
        _expected(text, tolerance)


def test_the_line_for_the_mapping_leaves_out_what_is_usual():
    best = Candidate(1.0, "holding:5", "uint16", "", 1.0, 1.0, 9.0)
    assert _entry(best) == "{address: holding:5, type: uint16}"
    best = Candidate(1.0, "input:5", "int32", "CDAB", 0.001, 1.0, 9.0)
    assert _entry(best) == "{address: input:5, type: int32, order: CDAB, scale: 0.001}"


def found(unit, answer="values", profiles=(), **identity):
    return Found(Finding(unit, answer, identity), profiles)


def test_units_of_which_nothing_differs_stand_on_one_line():
    scan = Scan("modbus", "tcp://h", 20, (*(found(n, "exception 4") for n in (1, 3, 4, 5)), found(2)))
    lines = _table(scan)
    assert lines[0] == "tcp://h: 5 of 20 units answered"
    assert any(line.split()[:3] == ["unit", "1,", "3-5"] for line in lines)
    assert len(_alike(scan.found)) == 2
    assert _spans([5, 1, 2, 3, 9]) == "1-3, 5, 9"


def test_a_table_shows_models_and_profiles():
    finding = Finding(1, "values", {"vendor": "v"}, (Model(103, "inverter", "holding:40070", 50),))
    text = "\n".join(_table(Scan("modbus", "tcp://h", 1, (Found(finding, ("sunspec/inverter",)),))))
    assert "SunSpec model 103 (inverter) at holding:40070, 50 registers" in text
    assert "profile: sunspec/inverter" in text


def test_a_line_where_nobody_answers_says_what_to_look_at():
    assert "A and B" in _table(Scan("modbus", "rtu:///dev/x", 3, ()))[0]
    assert _snippet([Scan("modbus", "tcp://h", 3, ())]) == ["devices: {}"]


def test_names_in_the_section_to_paste_are_names_and_never_stand_twice():
    scan = Scan(
        "modbus",
        "tcp://h",
        9,
        (found(1, product="Ä / 7 Ω"), found(2, product="Ä / 7 Ω"), found(3, profiles=("a/b-1",))),
    )
    names = [line.strip().rstrip(":") for line in _snippet([scan]) if line.startswith("  ") and line[2] != " "]
    assert names == ["7_1", "7_2", "b_1_3"]


def test_units_of_two_lines_have_names_of_their_own_and_the_hint_can_be_pasted_into_a_shell():
    line = "rtu:///dev/ttyUSB{}?baud=9600&parity=N"
    section = _snippet([Scan("modbus", line.format(n), 1, (found(1),)) for n in range(3)])
    assert [text for text in section if text.startswith("  device")] == [
        "  device_1:",
        "  device_1_2:",
        "  device_1_3:",
    ]
    assert any(f"headgate probe '{line.format(2)}' --unit 1 " in text for text in section)


def test_one_unit_that_does_not_answer_is_no_crowd():
    assert _table(Scan("modbus", "tcp://h", 1, ()))[0].startswith("tcp://h: the unit did not answer. ")


def test_a_search_of_a_unit_that_is_silent_says_who_finds_the_others(run_virtual):
    class Silent:
        url = "rtu:///dev/x?baud=9600&parity=N"

        async def survey(self, unit, area, requests):
            raise LineError("nothing was answered 3 times in a row: the connection is given up", cause="timeout")

    with pytest.raises(RefusedError, match="unit 9 does not answer") as refused:
        run_virtual(_read(Silent(), 9, [], ["holding:0-9"], float("inf")))
    assert f"`headgate probe '{Silent.url}'` finds who does" in str(refused.value)


def test_a_recording_ends_before_it_outgrows_its_bound(tmp_path):
    path = tmp_path / "r"
    with path.open("w") as file:
        reel = Reel(file, 100)
        for _ in range(50):
            reel.note("0.1 > 00 01")
    assert path.stat().st_size <= 100
    assert reel.full.is_set()
    assert reel.sent == path.read_text().count(">")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["probe", "tcp://h", "pump"], "a device stands in a gateway file"),
        (["probe", "tcp://h", "--timeout", "5"], "no duration"),
        (["probe", "tcp://h", "--timeout", "2h"], "outside 10ms … 1m"),
        (["probe", "tcp://h", "--expect", "5", "--unit", "300"], "unit 300 is none. Units go from 0 to 255"),
        (["read", "tcp://h", "holding:1", "--timeout", "0s"], "timeout: '0ms' is outside 10ms … 1m"),
        (["probe", "rtu:///dev/x", "--expect", "5"], "does not say the baud rate"),
        (["probe", "tcp://h", "--area", "holding:0-9"], "--area is for the search of a value"),
        (["probe", "tcp://h", "--seconds", "5"], "--seconds is for the search"),
        (["probe", "tcp://h", "--expect", "5", "--units", "3"], "name the one unit by --unit"),
        (["probe", "tcp://h", "--expect", "5", "--yaml"], "the tag is printed as a file has it"),
        (["probe", "tcp://h", "--unit", "5", "--units", "3"], "not both"),
        (["probe", "tcp://h", "--unit", "256"], "Units go from 0 to 255"),
        (["probe", "tcp://127.0.0.1:1", "--expect", "5", "--seconds", "-1"], "expected more than 0"),
        (["probe", "10.0.0.5:502"], "written tcp://10.0.0.5:502"),
        (["probe", "10.0.0.5", "--expect", "5"], "written tcp://10.0.0.5"),
        (["read", "/dev/null", "holding:1"], "Write rtu:///dev/null"),
        (["write", "localhost", "holding:1", "2", "3"], "written tcp://localhost"),
        (["read", "tcp://h"], "Name one address"),
        (["read", "rtu:///dev/x", "holding:1"], "does not say the baud rate"),
        (["read", "tcp://h", "holding:1", "--unit", "300"], "0 to 255"),
        (["write", "tcp://h", "holding:1", "2", "3"], "an address and a value"),
        (["write", "g.yaml", "plc", "x"], "a device, a tag and a value"),
        (["record", "tcp://h", "/dev/null/x", "--max-bytes", "many"], "no size"),
        (["record", "tcp://h", "/dev/null/x", "--seconds", "0"], "more than 0"),
        (["replay", __file__, "--speed", "nan"], "0 or more"),
        (["replay", __file__, "--seconds", "-1"], "more than 0"),
    ],
)
def test_wrong_use_says_the_cure_and_exits_with_2(capsys, arguments, words):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "validation error" not in err


OPCUA = """
gateway: g
devices: {plc: {driver: opcua, url: opc.tcp://127.0.0.1:1, security: none, tags: {a: i=2258}}}
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["probe", "opc.tcp://h"], 2),
        (["read", "opc.tcp://h", "i=2258"], 2),
        (["write", "opc.tcp://h", "i=2258", "3"], 2),
        (["record", "opc.tcp://h", "OUT"], 2),
        (["probe", "FILE", "plc"], 1),
        (["probe", "FILE"], 1),
        (["read", "FILE", "plc", "i=2257"], 1),
        (["record", "FILE", "OUT"], 1),
    ],
)
def test_a_driver_without_such_tools_is_named_with_what_it_has_instead(capsys, tmp_path, arguments, code):
    file, out = tmp_path / "g.yaml", tmp_path / "out.txt"
    file.write_text(OPCUA)
    assert main([{"FILE": str(file), "OUT": str(out)}.get(word, word) for word in arguments]) == code
    where = "opc.tcp://h" if code == 2 else "FILE plc"
    err = capsys.readouterr().err
    assert "the driver 'opcua' reads and writes tags, and its line can be neither probed nor recorded" in err
    assert f"`headgate browse {where} --values` shows what it has" in err
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("hello", 2, "no recording"),
        ("# headgate recording 1\n# driver: pigeon\n", 1, "no driver 'pigeon'"),
        ("# headgate recording 1\n# driver: modbus\n# framing: tcp\n", 2, "holds no request"),
        ("# headgate recording 1\n# driver: modbus\n# framing: tcp\nwrong", 2, "line 4"),
    ],
)
def test_a_file_that_cannot_be_replayed_says_why(capsys, tmp_path, text, code, words):
    path = tmp_path / "r.txt"
    path.write_text(text)
    assert main(["replay", str(path), "--listen", "tcp://127.0.0.1:0"]) == code
    assert words in capsys.readouterr().err


def test_a_recording_that_an_editor_saved_in_its_own_way_is_served(capsys, tmp_path):
    path = tmp_path / "r.txt"
    head = "# headgate recording 1\r\n# driver: modbus\r\n# framing: rtu\r\n# note: pump 3, außen\r\n"
    path.write_bytes(b"\xef\xbb\xbf" + f"{head}\r\n0.1 > 01 03 00 64 00 01 C5 D5\r\n0.2 < 01\r\n".encode())
    assert main(["replay", str(path), "--listen", "tcp://127.0.0.1:0", "--seconds", "0.05"]) == 0
    assert "serving" in capsys.readouterr().out


def test_a_recording_that_is_not_there_is_said(capsys, tmp_path):
    assert main(["replay", str(tmp_path / "none")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_a_recording_that_fails_at_once_leaves_no_file(capsys, tmp_path):
    out = tmp_path / "r.txt"
    assert main(["record", "gopher://h", str(out)]) == 2
    assert not out.exists()
