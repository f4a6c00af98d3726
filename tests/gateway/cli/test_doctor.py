from __future__ import annotations

import json
import socket

import pytest

from gateway.cli.main import main

BROKER = "broker: {listen: 'mqtt://127.0.0.1:0'}\n"


@pytest.fixture
def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def write(tmp_path):
    def put(text):
        file = tmp_path / "plant.yaml"
        file.write_text(f"gateway: plant7\nspool: {{path: {tmp_path / 'spool'}}}\n{text}")
        return str(file)

    return put


def test_a_broker_that_could_start_is_well(write, free_port, capsys):
    address = f"mqtt://127.0.0.1:{free_port}"
    assert main(["doctor", write(f"broker: {{listen: '{address}'}}\n")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"ok       broker {address}: the gateway does not run, and the port is free for it" in lines
    assert lines[-1].startswith("plant7: 0 wrong,")


def test_what_is_wrong_is_told_with_its_cure_and_exit_code_1(write, free_port, capsys):
    url = f"mqtt://127.0.0.1:{free_port}"
    assert main(["doctor", write(f"{BROKER}uplinks: {{cloud: {{url: '{url}'}}}}\n")]) == 1
    lines = capsys.readouterr().out.splitlines()
    at = lines.index(f"wrong    uplink cloud {url}: the machine answers, but nothing listens on this port")
    assert lines[at + 1] == "           Check the port"
    assert lines[-1].startswith("plant7: 1 wrong,")


def test_the_document_has_every_finding_in_the_order_of_the_file(write, free_port, capsys):
    text = BROKER + "uplinks:\n"
    for name in ("zeta", "alpha"):
        text += f"  {name}: {{url: 'mqtt://127.0.0.1:{free_port}', client_id: {name}}}\n"
    assert main(["doctor", write(text), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["gateway"], document["ok"]) == ("plant7", False)
    assert [finding["thing"] for finding in document["findings"]][-3:] == ["broker", "uplink zeta", "uplink alpha"]
    assert set(document["findings"][-1]) == {"state", "thing", "place", "text", "cure"}
    assert all(finding["cure"] for finding in document["findings"] if finding["state"] != "ok")


def test_a_file_with_a_mistake_is_exit_code_2_and_nobody_is_called(write, capsys):
    assert main(["doctor", write("broker: {listen: 'mqtt://0.0.0.0:1883'}\n")]) == 2
    assert "would let anybody on the network in" in capsys.readouterr().err


def test_passwords_are_never_told(write, free_port, tmp_path, capsys):
    secret = tmp_path / "secret"
    secret.write_text("topsecret")
    login = f"username: u, password: '${{file:{secret}}}'"
    main(["doctor", write(f"{BROKER}uplinks: {{cloud: {{url: 'mqtt://127.0.0.1:{free_port}', {login}}}}}\n"), "--json"])
    assert "topsecret" not in capsys.readouterr().out


def test_secrets_that_everybody_can_read_are_a_warning_with_the_cure(write, tmp_path, capsys):
    users = tmp_path / "users"
    users.write_text("")
    users.chmod(0o644)
    assert main(["doctor", write("broker: {listen: 'mqtt://127.0.0.1:0', users: users}\n")]) == 0
    assert f"chmod o= {users}" in capsys.readouterr().out
