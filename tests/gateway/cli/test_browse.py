"""`headgate browse`: the tree for people, documents for machines, and the file that it writes."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway.certificates import ServerCertificate
from gateway.cli.browse_mapping import gateway_file, mapping_file, quoted
from gateway.cli.browse_tree import Tree, plain
from gateway.cli.main import main
from gateway.driver import Explored, LineKey, Node, find
from gateway.errors import DeviceError, LineError
from gateway.model import GOOD, ScanGroup, bad
from gateway.secrets import Secret


def node(above, name, kind="variable", **more):
    tag = more.pop("tag", name if kind == "variable" else "")
    return Node(above=above, name=name, kind=kind, address=f"s={name}", tag=tag, **more)


PLANT = [
    node(-1, "Objects", "object"),
    node(0, "Plant", "object"),
    node(0, "Empty", "object"),
    node(1, "Level", type="float64", unit="m³", is_writable=True, value=1.5, quality=GOOD, description="how full"),
    node(1, "Mode", choices=("Off", "Auto"), value=None, quality=bad("BadNotReadable")),
    node(1, "Trend", type="float32", is_list=True),
    node(1, "Key", is_readable=False),
    node(1, "Maker", "property"),
    node(1, "Reset", "method"),
]


class Options(BaseModel):
    security: str = "auto"
    username: str = ""
    password: Secret | None = None
    pki: Path = Path("pki")


class TagOptions(BaseModel):
    pass


class Certificates:
    """One certificate that waits."""

    def __init__(self):
        self.url, self.approved = "plant://h:1", []

    def servers(self):
        times = {"not_before": datetime(2026, 1, 1, tzinfo=UTC), "not_after": datetime(2027, 1, 1, tzinfo=UTC)}
        return [
            ServerCertificate(
                path=Path("x.der"), thumbprint="ab" * 20, sha256="cd" * 32, subject="CN=plant", issuer="CN=plant",
                application_uri="urn:plant", hosts=("h",), state="pending", urls=("plant://h:1",), **times,
            )
        ]  # fmt: skip

    def approve(self, certificate):
        self.approved.append(certificate.thumbprint)


class Driver:
    """Tells PLANT, or whatever the test wants."""

    DeviceOptions, TagOptions, SCHEMES = Options, TagOptions, ("plant",)

    def __init__(self, devices, **_):
        type(self).devices = list(devices)

    @classmethod
    def line_key(cls, url, options):
        """Refuses one url."""
        if "bad" in url:
            raise ValueError(f"{url} is no url of a plant")
        return LineKey(url)

    @classmethod
    def compile(cls, device, tags):
        """One group."""
        return [ScanGroup.of(device, tags, types=[tag.type for tag in tags], every_s=1.0, plan=None)]

    @classmethod
    def certificates(cls, device, *, clock):
        """Always the same."""
        return cls.certificates_of

    async def __aenter__(self):
        if not (self.is_trusted or self.certificates_of.approved):
            raise LineError("its certificate is not trusted", cause="BadCertificateUntrusted")
        return self

    async def __aexit__(self, *_):
        pass

    async def browse(self, device, start, *, depth, most, extras):
        """In two parts."""
        self.asked.update(start=start, depth=depth, most=most, extras=extras)
        if self.error is not None:
            raise self.error
        yield Explored(self.told[:2], 1, 2)
        yield Explored(self.told[2:], 2, 2, is_cut=len(self.told) > most, notes=("s=Secret: refused\x1b[2J",))


@pytest.fixture
def driver(monkeypatch):
    """The only driver that is installed."""
    own = type("Driver", (Driver,), {
        "told": PLANT, "asked": {}, "devices": [], "certificates_of": Certificates(), "is_trusted": True, "error": None,
    })  # fmt: skip
    point = SimpleNamespace(name="plant", load=lambda: own)
    monkeypatch.setattr("gateway.driver.entry_points", lambda **_: [point])
    find.cache_clear()
    yield own
    find.cache_clear()


def browse(*arguments):
    return main(["browse", "plant://h:1", *arguments])


def test_the_tree_shows_names_addresses_and_what_was_asked_for(driver, capsys):
    assert browse() == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "Objects/  s=Objects",
        "  Plant/  s=Plant",
        "    Level  s=Level  float64  [m³]  writable  = 1.5  # how full",
        "    Mode  s=Mode  one of Off|Auto  bad:BadNotReadable",
        "    Trend  s=Trend  float32[]",
        "    Key  s=Key  not readable",
        "    Maker  s=Maker",
        "    Reset()  s=Reset",
        "  Empty/  s=Empty",
    ]
    assert "9 nodes, 4 of them variables" in said.err
    assert "warning: s=Secret: refused\\x1b[2J" in said.err


def test_only_variables_leaves_out_what_holds_none(driver, capsys):
    assert browse("--variables") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "Objects/", "Plant/", "Level", "Mode", "Trend", "Key",
    ]  # fmt: skip


def test_a_filter_keeps_what_it_fits_and_what_that_hangs_below(driver, capsys):
    assert browse("--filter", "/Plant/*e*l") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["Objects/", "Plant/", "Level"]
    assert browse("--filter", "/Nothing*") == 1


def test_what_is_asked_is_what_was_said(driver, capsys):
    assert browse("--start", "/Plant", "--depth", "3", "--limit", "7", "--details", "--values") == 0
    extras = driver.asked.pop("extras")
    assert driver.asked == {"start": "/Plant", "depth": 3, "most": 7}
    assert (extras.details, extras.values) == (True, True)
    assert "there is more; this ends at 9 nodes. Raise --limit" in capsys.readouterr().err


def test_the_document_has_a_row_for_each_node(driver, capsys):
    assert browse("--json") == 0
    rows = orjson.loads(capsys.readouterr().out)
    assert [row["path"] for row in rows[:4]] == ["/", "/Plant", "/Empty", "/Plant/Level"]
    assert rows[3] == {
        "path": "/Plant/Level", "name": "Level", "kind": "variable", "address": "s=Level", "tag": "Level",
        "type": "float64", "unit": "m³", "description": "how full", "writable": True, "value": 1.5, "quality": "good",
    }  # fmt: skip
    assert rows[5]["list"] is True
    assert rows[6]["readable"] is False
    assert rows[4]["choices"] == ["Off", "Auto"]
    assert browse("--json", "--filter", "/Nothing") == 1
    assert orjson.loads(capsys.readouterr().out) == []


def test_bytes_can_be_told_as_json(driver, capsys):
    driver.told = [*PLANT[:3], node(1, "Raw", value=b"\x01\xff", quality=GOOD)]
    assert browse("--json") == 0
    assert orjson.loads(capsys.readouterr().out)[3]["value"] == "01ff"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["plant://h", "plc"], "'plc': a device stands in a gateway file. Name that in place of the url"),
        (["gone.yaml"], "browse what? Name a device of gone.yaml"),
        (["gone.yaml", "plc", "--user", "u"], "--user is for a url. What is said of a device stands in gone.yaml"),
        (["gone.yaml", "plc"], "no such file"),
        (["pigeon://h"], "pigeon:// cannot be browsed. What can: plant://"),
        (["plant://bad"], "plant://bad is no url of a plant"),
        (["plant://h", "--password", "secret"], "--password: a secret in plain text"),
        (["plant://h", "--timeout", "5s", "--json", "--mapping", "x.yaml"], "--json prints, --mapping writes a file"),
        (["plant://h", "--depth", "-1"], "--depth -1 is none"),
        (["plant://h", "--limit", "0"], "--limit 0 is none"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_asked(driver, capsys, arguments, reason):
    assert main(["browse", *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert not driver.asked


def test_a_start_that_is_wrong_or_not_there_is_said(driver, capsys):
    driver.error = ValueError("'x' is no address")
    assert browse("--start", "x") == 2
    assert "--start: 'x' is no address" in capsys.readouterr().err
    driver.error = DeviceError("'/x' leads nowhere", cause="config")
    assert browse("--start", "/x") == 1


def test_a_login_of_a_url_goes_to_the_device(driver, monkeypatch):
    monkeypatch.setenv("PLANT_PASSWORD", "geheim")
    assert browse("--user", "u", "--password", "${env:PLANT_PASSWORD}", "--security", "none", "--pki", "certs") == 0
    own = driver.devices[0].options
    assert (own.username, own.password.reveal(), own.security, own.pki) == ("u", "geheim", "none", Path("certs"))


# --- an unknown server ------------------------------------------------------------------------------------------------


def test_an_unknown_server_is_refused(driver, capsys):
    driver.is_trusted = False
    assert browse() == 1
    assert "its certificate is not trusted. Without a gateway file: browse with --trust" in capsys.readouterr().err
    assert driver.certificates_of.approved == []


def test_an_unknown_server_is_shown_and_trusted_if_a_person_says_yes(driver, capsys, monkeypatch):
    driver.is_trusted = False
    for word, code in (("n\n", 1), ("yes\n", 0)):

        class Keyboard:
            readline, isatty = staticmethod(lambda word=word: word), staticmethod(lambda: True)

        monkeypatch.setattr(sys, "stdin", Keyboard)
        assert browse("--trust") == code
        assert "ABABABAB" in capsys.readouterr().err
    assert driver.certificates_of.approved == ["ab" * 20]


def test_where_nobody_can_be_asked_nothing_is_trusted(driver, monkeypatch):
    driver.is_trusted = False
    monkeypatch.setattr(sys, "stdin", None)
    assert browse("--trust") == 1
    assert driver.certificates_of.approved == []


@pytest.mark.parametrize(
    ("digits", "code"),
    [
        ("ab" * 6, 0),
        ("AB:AB:AB:AB:AB:AB", 0),
        ("AB-AB-AB-AB-AB-AB", 0),
        ("cd" * 32, 0),
        ("abab", 1),
        ("ab" * 5 + "ff", 1),
    ],
)
def test_a_fingerprint_that_was_given_is_compared_and_must_be_long_enough(driver, capsys, digits, code):
    driver.is_trusted = False
    assert browse("--trust", digits) == code
    assert (f"--trust {digits}: no certificate that waits begins so" in capsys.readouterr().err) is (code == 1)
    assert bool(driver.certificates_of.approved) is (code == 0)


# --- the mapping ------------------------------------------------------------------------------------------------------


def test_the_mapping_of_a_url_is_a_whole_file_of_what_can_be_read(driver, tmp_path, capsys):
    out = tmp_path / "out.yaml"
    assert browse("--mapping", str(out), "--security", "none") == 0
    assert f"Wrote {out}: 3 tags. Next: `headgate check {out}`" in capsys.readouterr().out
    text = out.read_text()
    device = yaml.safe_load(text)["devices"]["plc"]
    assert (device["driver"], device["url"], device["security"]) == ("plant", "plant://h:1", "none")
    assert device["tags"] == {
        "Level": {"address": "s=Level", "type": "float64", "unit": "m³", "source": "/Plant/Level"},
        "Mode": {"address": "s=Mode", "source": "/Plant/Mode"},
        "Trend": {"address": "s=Trend", "source": "/Plant/Trend"},
    }
    assert text.count("# write: true") == 1
    assert "write" not in str(device)
    assert driver.asked["extras"].details
    assert main(["check", str(out)]) == 0


def test_the_mapping_of_a_device_is_named_there(driver, tmp_path, capsys):
    file, out = tmp_path / "plant.yaml", tmp_path / "out.yaml"
    text = "gateway: g\ndevices:\n  plc: {driver: plant, url: 'plant://h:1', tags: {x: 's=x'}}\n"
    file.write_text(text)
    assert main(["browse", str(file), "plc", "--mapping", str(out)]) == 0
    assert f"Name it in {file}, below plc: mapping: {out}" in capsys.readouterr().out
    assert driver.devices[0].tags == ()
    assert yaml.safe_load(out.read_text())["driver"] == "plant"
    file.write_text(text.replace("tags: {x: 's=x'}", "mapping: out.yaml"))
    assert main(["check", str(file)]) == 0
    assert "3 tags" in capsys.readouterr().out


def test_a_file_that_is_there_stays_as_it_is(driver, tmp_path, capsys):
    out = tmp_path / "out.yaml"
    out.write_text("mine")
    assert browse("--mapping", str(out)) == 1
    assert out.read_text() == "mine"
    assert browse("--mapping", str(tmp_path / "no" / "out.yaml")) == 1
    assert browse("--mapping", str(tmp_path / "other.yaml"), "--filter", "/Nothing") == 1
    assert not (tmp_path / "other.yaml").exists()


def test_the_folder_of_certificates_is_named_as_seen_from_the_file(tmp_path):
    lines = list(
        gateway_file("plc", "plant", "plant://h", {"pki": str(tmp_path / "pki")}, [], tmp_path / "a" / "o.yaml")
    )
    assert '    pki: "../pki"' in lines


strange = st.text(max_size=40) | st.sampled_from(
    ['a"b\\c', "yes", "\x00\x7f\x85\u2028\ufeff\U0001f600", "a: b # c", "é\n"]
)


@settings(deadline=None)
@given(strange, strange)
def test_whatever_a_server_says_the_file_is_yaml_that_says_the_same(address, unit):
    own = Node(above=0, name="x", kind="variable", address=address, tag="x", unit=unit)
    text = "\n".join(mapping_file("plant", f"plc{unit}", [(own, address)]))
    read = yaml.safe_load(text)["tags"]["x"]
    assert read["address"] == address
    assert read.get("unit", "") == unit
    assert read["source"] == address[-400:]


@settings(deadline=None)
@given(strange)
def test_quoted_text_reads_back(text):
    assert yaml.safe_load(quoted(text)) == text


@pytest.mark.parametrize("name", ["yes", "1", "1.5", "null", "2026-01-01", "a/b.c-d", "0x10", "on", "1e3"])
def test_tags_keep_their_names_whatever_yaml_thinks_of_them(name):
    own = Node(above=0, name="x", kind="variable", address="s=x", tag=name)
    assert list(yaml.safe_load("\n".join(mapping_file("plant", "plc", [(own, "/x")])))["tags"]) == [name]


# --- the tree ---------------------------------------------------------------------------------------------------------


def test_what_could_steer_a_terminal_is_spelled_out():
    assert plain("Füllstand 水") == "Füllstand 水"
    assert plain("a\x1b[2J\nb\u202e") == "a\\x1b[2J\\nb\\u202e"


def test_a_deep_tree_needs_no_deep_calls():
    tree = Tree([node(i - 1, f"N{i}") for i in range(5000)])
    assert len(list(tree.lines(tree.branches(tree.chosen(tree.paths(), None, is_variables=False))))) == 5000
