"""`headgate certificate`: what it makes, shows and renews."""

from __future__ import annotations

import json
import stat
import subprocess
import sys

import pytest

from gateway.cli.main import main


@pytest.fixture
def write(tmp_path):
    """`write(plc="pki: a", press="")` is a gateway file with OPC UA devices; `modbus` one of the other sort."""

    def put(**devices):
        text = f"gateway: plant7\nspool: {{path: {tmp_path / 'spool'}}}\nbroker: {{listen: 'mqtt://127.0.0.1:0'}}\ndevices:\n"
        for name, more in devices.items():
            if name == "modbus":
                text += "  modbus: {driver: modbus, url: tcp://127.0.0.1, every: 1s, tags: {a: holding:1}}\n"
            else:
                rest = f"every: 1s, tags: {{a: i=2258}}, {more}"
                text += f"  {name}: {{driver: opcua, url: opc.tcp://{name}, {rest}}}\n"
        file = tmp_path / "plant.yaml"
        file.write_text(text)
        return str(file)

    return put


def test_a_certificate_is_made_shown_and_told_what_to_do_with(write, tmp_path, capsys):
    file = write(plc="application_uri: 'urn:gw:headgate'")
    assert main(["certificate", file]) == 0
    said = capsys.readouterr()
    at = tmp_path / "headgate-data" / "pki" / "own"
    lines = said.out.splitlines()
    assert lines[0] == f"plc: {at}/certificate.der (new)"
    assert "  application URI   urn:gw:headgate" in lines
    assert "copy this file into the server's folder of trusted clients" in said.out
    assert said.err == ""
    assert stat.S_IMODE((at / "key.pem").stat().st_mode) == 0o600
    assert main(["certificate", file]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"plc: {at}/certificate.der"


def test_the_document_has_the_digits_as_they_are_typed(write, capsys):
    file = write(plc="pki: p")
    main(["certificate", file])
    shown = capsys.readouterr().out
    assert main(["certificate", file, "plc", "--json"]) == 0
    (own,) = json.loads(capsys.readouterr().out)["certificates"]
    assert own["devices"] == ["plc"]
    assert own["thumbprint"].upper() in shown.replace(" ", "")
    assert own["sha256"].upper() in shown.replace(" ", "")
    assert (own["is_new"], own["warnings"]) == (False, [])
    assert own["not_after"].endswith("Z")


def test_devices_that_share_a_folder_are_shown_once_and_others_by_themselves(write, capsys):
    file = write(plc="pki: a", press="pki: a", oven="pki: b", modbus="")
    assert main(["certificate", file, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["certificates"]
    assert [own["devices"] for own in found] == [["plc", "press"], ["oven"]]
    assert len({own["thumbprint"] for own in found}) == 2


def test_renewed_it_is_another_certificate_and_the_former_is_kept(write, tmp_path, capsys):
    file = write(plc="pki: p")
    main(["certificate", file])
    own = tmp_path / "p" / "own"
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    capsys.readouterr()
    assert main(["certificate", file, "--renew"]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("(new)")
    assert (own / "former.der").read_bytes() == before["certificate.der"]
    assert (own / "certificate.der").read_bytes() != before["certificate.der"]
    assert (own / "key.pem").read_bytes() == before["key.pem"]


def test_another_application_uri_in_the_file_is_told_whichever_device_says_it(write, capsys):
    main(["certificate", write(plc="pki: p", press="pki: p")])
    capsys.readouterr()
    assert main(["certificate", write(plc="pki: p", press="pki: p, application_uri: 'urn:x:y'")]) == 0
    assert "warning: the file says application_uri urn:x:y, the certificate urn:" in capsys.readouterr().err


def test_a_device_without_security_is_told_to_make_no_use_of_it(write, capsys):
    assert main(["certificate", write(plc="security: none")]) == 0
    said = capsys.readouterr().err
    assert said == "warning: device 'plc' makes no use of it: security: none signs and encrypts nothing\n"


def test_what_has_no_certificates_is_told(write, capsys):
    file = write(modbus="", plc="pki: p")
    assert main(["certificate", file, "modbus"]) == 1
    assert capsys.readouterr().err == (
        "headgate: device 'modbus' has no certificates: its driver 'modbus' does not use any\n"
    )
    assert main(["certificate", file, "nobody"]) == 1
    assert "there is no device 'nobody'" in capsys.readouterr().err
    assert main(["certificate", write(modbus="")]) == 1
    assert "none of its devices is met with certificates" in capsys.readouterr().err


def test_no_protocol_library_is_needed_to_show_a_certificate(write):
    code = "import sys; from gateway.cli.main import main; print(main(sys.argv[1:]), 'asyncua' in sys.modules)"
    command = [sys.executable, "-c", code, "certificate", write(plc="pki: p"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 False"


def test_a_folder_that_cannot_be_used_is_exit_code_1_and_a_wrong_file_2(write, tmp_path, capsys):
    file = write(plc="pki: p")
    (tmp_path / "p").write_text("in the way")
    assert main(["certificate", file]) == 1
    assert f"{tmp_path}/p" in capsys.readouterr().err
    assert main(["certificate", write(plc="trust: everybody")]) == 2
