"""probe, read, write, record and replay as a person types them, against other people's servers."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HEADGATE = [sys.executable, "-m", "gateway"]
DEVICES = str(Path(__file__).with_name("tool_devices.py"))


def headgate(*arguments, code=0, **options):
    done = subprocess.run(
        [*HEADGATE, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120, **options
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout, done.stderr


def headgate_any(*arguments):
    """What a command says, whatever its exit code."""
    done = subprocess.run([*HEADGATE, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120)
    return done.stdout + done.stderr


def document(*arguments, code=0):
    return json.loads(headgate(*arguments, "--json", code=code)[0])


@pytest.fixture
def identified(start, free_port, listening, wait_for):
    port = free_port()
    start(sys.executable, DEVICES, "identity", str(port), name="identity")
    wait_for(lambda: listening(port), "pymodbus to listen")
    return f"tcp://127.0.0.1:{port}"


def words(code, *values, order="ABCD"):
    """Values as the words of the libmodbus server's commands."""
    text = []
    for value in values:
        data = struct.pack(">" + code, value)
        pairs = [data[i : i + 2] for i in range(0, len(data), 2)]
        if order in ("CDAB", "DCBA"):
            pairs.reverse()
        text += [(p[::-1] if order in ("BADC", "DCBA") else p).hex() for p in pairs]
    return " ".join(text)


# --- probe ---


def test_probe_finds_the_units_of_a_server_and_what_they_say_of_themselves(identified):
    (scan,) = document("probe", identified, "--units", "1-6", "--timeout", "2s")
    assert [unit["unit"] for unit in scan["units"] if unit["answer"] == "values"] == [1, 5]
    assert scan["asked"] == 6
    for unit in scan["units"]:
        assert unit["identity"]["vendor"] == "Waterworks"
        assert unit["identity"]["product"] == "WW-7"
        assert unit["identity"]["model"] == "Seven"


def test_probe_shows_a_table_and_a_section_that_headgate_itself_accepts(identified, tmp_path):
    table, _ = headgate("probe", identified, "--units", "1,5", "--timeout", "2s")
    assert "2 of 2 units answered" in table
    assert "vendor: Waterworks" in table
    section, _ = headgate("probe", identified, "--units", "1,5", "--timeout", "2s", "--yaml")
    devices = yaml.safe_load(section)["devices"]
    assert sorted(devices) == ["seven_1", "seven_5"]
    file = tmp_path / "g.yaml"
    file.write_text("gateway: g\nbroker: {listen: ['mqtt://127.0.0.1:0']}\n" + section)
    headgate("check", file)


def test_probe_counts_an_exception_as_an_answer(libmodbus):
    server = libmodbus()
    server.tell("refuse holding 0 65535 4")
    (scan,) = document("probe", f"tcp://127.0.0.1:{server.port}", "--units", "1", "--timeout", "3s")
    assert [(u["unit"], u["answer"]) for u in scan["units"]] == [(1, "exception 4")]


def test_probe_names_the_profile_that_fits(libmodbus, tmp_path):
    server = libmodbus()
    common = b"SMA".ljust(32, b"\0") + b"STP 10.0".ljust(32, b"\0") + bytes(16) + b"1.0".ljust(16, b"\0")
    common += b"123".ljust(32, b"\0") + bytes(4)
    chain = b"SunS\0\1\0\x42" + common + b"\0\x67\0\x32" + bytes(100) + b"\xff\xff\0\0"
    for at in range(0, len(chain), 100):
        part = chain[at : at + 100]
        server.tell(f"set holding {40000 + at // 2} " + " ".join(part[i : i + 2].hex() for i in range(0, len(part), 2)))
    (scan,) = document("probe", f"tcp://127.0.0.1:{server.port}", "--units", "1", "--timeout", "3s")
    (unit,) = scan["units"]
    assert unit["identity"]["product"] == "STP 10.0"
    assert [model["number"] for model in unit["models"]] == [1, 103]
    assert any(name.startswith("sunspec/inverter") for name in unit["profiles"])


def test_probe_finds_the_baud_rate_of_a_serial_port(start, wait_for, tmp_path):
    link = tmp_path / "port"
    start(sys.executable, DEVICES, "picky", str(link), "38400", name="picky")
    wait_for(link.is_symlink, "the port")
    out, err = headgate("probe", f"rtu://{link}", "--units", "1-3", "--timeout", "60ms", "--json")
    (scan,) = json.loads(out)
    assert scan["url"] == f"rtu://{link}?baud=38400&parity=N"
    assert [unit["unit"] for unit in scan["units"]] == [3]
    assert "trying baud=9600&parity=N" in err


def test_probe_of_nobody_says_what_to_look_at(free_port):
    _, err = headgate("probe", f"tcp://127.0.0.1:{free_port()}", code=1)
    assert "is the device's server on" in err
    _, err = headgate("probe", "rtu:///dev/ttyNONE?baud=9600", code=1)
    assert "no such port" in err
    _, err = headgate("probe", "gopher://h", code=2)
    assert "tcp://" in err


SEEN = [
    ("float32 CDAB at 300", 300, ("f", "CDAB", 229.5), "229.5", "float32", "CDAB", 1.0),
    ("uint16 scaled by ten", 40, ("H", "ABCD", 2295), "229.5", "uint16", "", 0.1),
    ("int32 scaled by a thousand", 1202, ("i", "ABCD", 7654321), "7654.321", "int32", "", 0.001),
]


@pytest.mark.parametrize(
    ("at", "value", "seen", "kind", "order", "scale"), [s[1:] for s in SEEN], ids=[s[0] for s in SEEN]
)
def test_expect_finds_where_a_value_lives_and_how_it_is_read(libmodbus, at, value, seen, kind, order, scale):
    server = libmodbus()
    code, in_order, raw = value
    server.tell(f"set input {at} {words(code, raw, order=in_order)}")
    area = () if kind == "float32" else ("--area", "input:0-1999")
    found = document("probe", f"tcp://127.0.0.1:{server.port}?unit=1", "--expect", seen, *area)
    best = found["values"][0]["candidates"][0]
    assert best["address"] == f"input:{at}"
    assert best["type"].lstrip("u") == kind.lstrip("u")
    assert (best["order"], best["scale"]) == (order, scale)
    assert best["value"] == pytest.approx(float(seen))


def test_expect_prints_the_line_for_the_mapping(libmodbus):
    server = libmodbus()
    server.tell(
        f"set holding 10 {words('f', 229.5, order='CDAB')}", "refuse holding 0 9 2", "refuse holding 12 65535 2"
    )
    out, _ = headgate("probe", f"tcp://127.0.0.1:{server.port}", "--expect", "229.5", "--area", "holding:0-99")
    assert "value: {address: holding:10, type: float32, order: CDAB}" in out


def test_expect_looks_twice_also_when_its_time_is_over(identified):
    found = document(
        "probe",
        identified,
        "--expect",
        "142",
        "--area",
        "40001-40064",
        "--area",
        "holding:64-20000",
        "--seconds",
        "0.05",
    )
    assert "the time is over" in found["notes"][0]
    best = found["values"][0]["candidates"][0]
    assert (best["address"], best["notes"][:2]) == ("holding:42", ["exact", "steady"])


def test_a_unit_that_is_meant_alone_is_asked_alone(identified):
    (scan,) = document("probe", identified, "--unit", "5", "--timeout", "2s")
    assert (scan["asked"], [unit["unit"] for unit in scan["units"]]) == (1, [5])


# --- read and write ---


def test_read_shows_every_decoding_of_an_address(libmodbus):
    server = libmodbus()
    server.tell(f"set holding 100 {words('f', 12.5, order='CDAB')} 4844 4c4f")
    url = f"tcp://127.0.0.1:{server.port}"
    out, _ = headgate("read", url, "holding:100", "--unit", "1")
    assert "holding:100     0000" in out
    (row,) = [line for line in out.splitlines() if line.startswith("  float32")]
    assert "12.5" in row.split()
    found = document("read", url, "40101", "--type", "float32", "--order", "CDAB", "--count", "2")
    assert found["decodings"] == [{"type": "float32", "order": "CDAB", "value": 12.5}]


def test_read_of_what_is_not_there_says_so(libmodbus):
    server = libmodbus()
    server.tell("refuse holding 500 600 2")
    _, err = headgate("read", f"tcp://127.0.0.1:{server.port}", "holding:555", code=1)
    assert "exception 2" in err
    _, err = headgate("read", f"tcp://127.0.0.1:{server.port}", "pump:5", code=2)
    assert "no table" in err


def test_write_asks_first_and_reads_back(libmodbus):
    server = libmodbus()
    url = f"tcp://127.0.0.1:{server.port}"
    _, err = headgate("write", url, "holding:7", "1.5", "--type", "float32", code=1, stdin=subprocess.DEVNULL)
    assert "--yes" in err
    assert server.get("holding", 7, 2) == [0, 0]
    out, _ = headgate("write", url, "holding:7", "1.5", "--type", "float32", "--order", "CDAB", "--yes")
    assert "reads back as 1.5" in out
    assert server.get("holding", 7, 2) == [0x0000, 0x3FC0]
    out, _ = headgate("write", url, "coil:3", "on", "--yes")
    assert server.get("coil", 3) == [1]
    _, err = headgate("write", url, "input:7", "1", "--yes", code=2)
    assert "input:7" in err
    _, err = headgate("write", url, "holding:7", "70000", "--type", "int16", "--yes", code=2)
    assert "-32768..32767" in err


# --- record and replay ---


def gateway_file(tmp_path, url, **more):
    tags = {
        "flow": {"address": "holding:100", "type": "float32"},
        "level": {"address": "input:20", "type": "uint16", "scale": 0.1},
        "pump": {"address": "coil:5"},
        "gone": {"address": "holding:600"},
        **more,
    }
    document = {
        "gateway": "g",
        "broker": {"listen": ["mqtt://127.0.0.1:0"]},
        "devices": {"plc": {"driver": "modbus", "url": url, "every": "100ms", "timeout": "500ms", "tags": tags}},
    }
    file = tmp_path / "g.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def values_of(file):
    out = subprocess.run(
        [*HEADGATE, "read", str(file), "--json"], capture_output=True, text=True, check=False, timeout=60
    )
    return {row["tag"]: (row["value"], row["quality"]) for row in json.loads(out.stdout)}


@pytest.fixture
def plc(libmodbus):
    server = libmodbus()
    server.tell(f"set holding 100 {words('f', 12.5)}", "set input 20 3e9", "set coil 5 1", "refuse holding 600 600 2")
    return server


@pytest.fixture
def replayed(start, wait_for, tmp_path):
    def serve(recording, *arguments):
        start(*HEADGATE, "replay", str(recording), *arguments, "--speed", "0", name="replay")
        log = tmp_path / "replay.log"
        wait_for(lambda: "serving" in log.read_text(), "the replay")
        return log.read_text().splitlines()[0].rpartition(" at ")[2]

    return serve


@pytest.mark.parametrize("listen", ["tcp://127.0.0.1:0", "rtu+tcp://127.0.0.1:0", "pty"])
def test_a_recorded_session_replayed_gives_the_same_values(plc, replayed, tmp_path, listen):
    file = gateway_file(tmp_path, f"tcp://127.0.0.1:{plc.port}")
    headgate("record", file, tmp_path / "plc.txt", "--seconds", "1.5")
    truth = values_of(file)
    assert truth["flow"] == (12.5, "good")
    assert truth["gone"] == (None, "bad:exception:2")
    where = ["--pty", str(tmp_path / "port")] if listen == "pty" else ["--listen", listen]
    url = replayed(tmp_path / "plc.txt", *where)
    assert values_of(gateway_file(tmp_path, url)) == truth


def test_a_device_recorded_by_its_url_answers_what_nobody_asked_it(plc, replayed, tmp_path):
    out = tmp_path / "plc.txt"
    headgate("record", f"tcp://127.0.0.1:{plc.port}", out, "--units", "1", "--seconds", "3")
    url = replayed(out, "--listen", "tcp://127.0.0.1:0")
    found = document("read", url, "holding:100", "--count", "2", "--type", "float32")
    assert found["decodings"][0]["value"] == 12.5


def test_a_recording_is_not_overwritten_unasked_and_keeps_its_bounds(plc, tmp_path):
    file = gateway_file(tmp_path, f"tcp://127.0.0.1:{plc.port}")
    out = tmp_path / "plc.txt"
    out.write_text("mine")
    _, err = headgate("record", file, out, code=1)
    assert "--force" in err
    assert out.read_text() == "mine"
    told, _ = headgate("record", file, out, "--force", "--seconds", "60", "--max-bytes", "2kB")
    assert "the file is full" in told
    assert out.stat().st_size <= 2000


# --- a running gateway ---


@pytest.fixture
def running(start, wait_for, tmp_path):
    def run(file):
        start(*HEADGATE, "run", str(file), name="run")
        wait_for(lambda: json_status(file), "the gateway", 20)

    return run


def json_status(file):
    done = subprocess.run([*HEADGATE, "status", str(file), "--json"], capture_output=True, text=True, check=False)
    return done.returncode == 0 and json.loads(done.stdout)["devices"][0]["state"] == "online"


def test_tools_go_through_the_running_gateway(start, running, replayed, tmp_path, wait_for):
    link = tmp_path / "port"
    line = Path(__file__).parents[1] / "line" / "line.py"
    settings = {"framing": "rtu", "baud": 115200, "parity": "E", "units": {"1": {}, "2": {}}}
    start(sys.executable, str(line), str(link), json.dumps(settings), name="line", stdin=subprocess.PIPE)
    wait_for(link.is_symlink, "the line")
    document_ = {
        "gateway": "g",
        "broker": {"listen": ["mqtt://127.0.0.1:0"]},
        "devices": {
            "plc": {
                "driver": "modbus",
                "url": f"rtu://{link}?baud=115200&parity=E",
                "every": "100ms",
                "timeout": "1s",
                "tags": {"x": {"address": "holding:100"}},
            }
        },
    }
    file = tmp_path / "g.yaml"
    file.write_text(yaml.safe_dump(document_))
    running(file)
    (scan,) = document("probe", file, "plc", "--units", "1-3", "--timeout", "1s")
    assert [unit["unit"] for unit in scan["units"]] == [1, 2]
    out, err = headgate("read", file, "plc", "holding:7", "--unit", "2", "--count", "1")
    assert "through the running gateway 'g'" in err
    assert "2007" in out
    asked = ("probe", file, "plc", "--expect", "1042", "--tolerance", "0.01%", "--area", "holding:0-99", "--json")
    said = subprocess.run([*HEADGATE, *map(str, asked)], capture_output=True, text=True, check=False, timeout=120)
    if "is asked again in" in said.stderr:  # a poll found the unit silent just then: it has its time to be late, 3 s
        wait_for(lambda: "bad" not in headgate_any("read", file, "plc"), "the unit to be polled again")
        found = document(*asked[:-1])
    else:
        assert said.returncode == 0, said.stdout + said.stderr
        found = json.loads(said.stdout)
    assert found["values"][0]["candidates"][0]["address"] == "holding:42"
    told, _ = headgate("record", file, tmp_path / "live.txt", "--seconds", "1.2")
    assert "times heard" in told
    assert "already open" in (tmp_path / "live.txt").read_text()
    url = replayed(tmp_path / "live.txt", "--listen", "tcp://127.0.0.1:0")
    found = document("read", url, "holding:100", "--count", "1", "--type", "uint16")
    assert found["decodings"][0]["value"] == 1100
    assert json_status(file)


def test_a_gateway_writes_to_tags_only(plc, running, tmp_path):
    file = gateway_file(tmp_path, f"tcp://127.0.0.1:{plc.port}")
    running(file)
    out, _ = headgate("write", file, "plc", "holding:7", "5", code=1)
    assert "holding:7" in out
    assert plc.get("holding", 7) == [0]
