"""What the check-up says of the devices' certificates, by a driver that has some."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.certificates import OwnCertificate, ServerCertificate
from gateway.checkup import devices
from gateway.clock import SystemClock
from gateway.errors import RefusedError
from gateway.model import Device

NOW = datetime.fromtimestamp(SystemClock().wall_ms() / 1000, UTC)
DAY = timedelta(days=1)
SHOWN = {
    "path": Path("/pki/x.der"),
    "thumbprint": "ab" * 20,
    "sha256": "cd" * 32,
    "subject": "CN=x",
    "issuer": "CN=x",
    "application_uri": "urn:x",
    "hosts": (),
    "not_before": NOW - DAY,
    "not_after": NOW + 400 * DAY,
}
OWN = OwnCertificate(**SHOWN, key_path=Path("/pki/key.pem"), is_new=False)
SERVER = ServerCertificate(**SHOWN, state="trusted", urls=("opc.tcp://plc:4840",))


@dataclass
class Certificates:
    folder: Path = Path("/pki")
    unused: str = ""
    unchecked: str = ""
    own_one: OwnCertificate | None = OWN
    known: list = field(default_factory=list)
    wrong: tuple = ()

    def seen(self):
        if isinstance(self.own_one, Exception):
            raise self.own_one
        return self.own_one

    def servers(self):
        return self.known

    def faults(self):
        return self.wrong


@pytest.fixture
def look():
    """`look(plc=Certificates(…))` are the findings as (state, text)."""

    def run(**found):
        class Driver:
            @classmethod
            def certificates(cls, device, *, clock):
                return found[device.name]

        plant = [Device(name=name, driver="opcua", url="opc.tcp://x") for name in found]
        plant.append(Device(name="mb", driver="modbus", url="tcp://x"))
        return devices.look(plant, drivers={"opcua": Driver, "modbus": object}.__getitem__)

    return run


def said(findings):
    return [(finding.state, finding.text) for finding in findings]


def test_where_all_is_well_the_end_is_named_and_each_folder_once(look):
    findings = look(plc=Certificates(known=[SERVER]), press=Certificates())
    assert said(findings) == [
        ("ok", f"the gateway's own certificate is valid until {OWN.not_after:%Y-%m-%d}"),
        ("ok", "the certificate of opc.tcp://plc:4840 is trusted"),
    ]
    assert {(finding.thing, finding.place) for finding in findings} == {("certificates of plc, press", "/pki")}


def test_cautions_come_with_their_cure(look):
    (finding,) = look(plc=Certificates(own_one=replace(OWN, cautions=("it ends on 2027-01-01. Renew it",))))
    assert (finding.state, finding.text, finding.cure) == ("warning", "it ends on 2027-01-01", "Renew it")


def test_what_is_missing_waits_or_ends_is_a_warning(look):
    waits = replace(SERVER, state="pending", why="never seen before")
    ends = replace(SERVER, not_after=NOW + 59 * DAY)
    ended = replace(SERVER, not_after=NOW - DAY)
    findings = look(plc=Certificates(own_one=None, known=[waits, ends, ended], wrong=("x.der: no certificate",)))
    assert [state for state, _ in said(findings)] == ["warning"] * 5
    texts = " / ".join(text for _, text in said(findings))
    ends_on, ended_on = f"ends on {ends.not_after:%Y-%m-%d}", f"has ended on {ended.not_after:%Y-%m-%d}"
    waits_for = "waits to be approved: never seen before"
    for part in ("has no certificate yet", waits_for, ends_on, ended_on, "x.der: no certificate"):
        assert part in texts
    assert "headgate trust FILE --approve abababababab" in findings[1].cure


def test_a_folder_that_cannot_be_used_is_wrong(look):
    (finding,) = look(plc=Certificates(own_one=RefusedError("/pki/key.pem: permission denied. Run this as root")))
    assert (finding.state, finding.text, finding.cure) == (
        "wrong",
        "/pki/key.pem: permission denied",
        "Run this as root",
    )


def test_a_device_that_makes_no_use_of_certificates_is_left_out(look):
    assert look(plc=Certificates(unused="security: none", unchecked="nothing is encrypted")) == []


def test_where_only_the_server_s_certificate_counts_ours_is_not_missed(look):
    assert said(look(plc=Certificates(own_one=None, unused="security: none", known=[SERVER]))) == [
        ("ok", "the certificate of opc.tcp://plc:4840 is trusted")
    ]
