"""`headgate trust`: what it lists, asks of a server, approves and removes."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import struct
import sys
import threading
from datetime import UTC, datetime

import pytest

from drivers.opcua.connecting import certificate as certificates
from gateway.cli.main import main

GET_ENDPOINTS = 428
"""The number of a GetEndpointsRequest on the wire [Part 6 Annex A]."""
URL = "opc.tcp://127.0.0.1:1"
NOW = datetime.now(UTC)


@pytest.fixture(scope="session")
def key():
    return certificates.make_key()


@pytest.fixture
def write(tmp_path):
    def put(*names, url=URL, more="pki: p"):
        text = f"gateway: plant7\nspool: {{path: {tmp_path / 'spool'}}}\nbroker: {{listen: 'mqtt://127.0.0.1:0'}}\ndevices:\n"
        for name in names or ("plc",):
            text += f"  {name}: {{driver: opcua, url: '{url}', every: 1s, tags: {{a: i=2258}}, {more}}}\n"
        file = tmp_path / "plant.yaml"
        file.write_text(text)
        return str(file)

    return put


@pytest.fixture
def waiting(tmp_path, key):
    """`waiting("plc", URL)` puts a certificate of that name aside, as a connection does; gives its thumbprint."""

    def put(name, *urls, folder="p", why="unknown"):
        der = certificates.make(key, f"urn:{name}:server", name, NOW)
        thumbprint = certificates.thumbprint_of(der)
        at = tmp_path / folder / "pending"
        at.mkdir(parents=True, exist_ok=True)
        (at / f"{thumbprint}.der").write_bytes(der)
        note = {"urls": urls or [URL], "since": "2026-11-22T06:00:00Z", "why": why}
        (at / f"{thumbprint}.json").write_text(json.dumps(note))
        return thumbprint

    return put


@pytest.fixture
def typed(monkeypatch):
    """`typed("y")` is what a person at a terminal answers."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    return lambda text: monkeypatch.setattr(sys, "stdin", Terminal(f"{text}\n"))


class Relay:
    """A server on asyncua in a thread of its own, and a relay before it that notes what a client sends."""

    def __init__(self, folder, der, key):
        self.der = der
        self.sent = []
        self._loop = asyncio.new_event_loop()
        (folder / "server.der").write_bytes(der)
        (folder / "server.pem").write_bytes(certificates.key_pem(key))
        self._thread = threading.Thread(target=self._loop.run_forever, name="server")
        self._thread.start()
        self._do(self._start(folder))

    def _do(self, work):
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self, folder):
        from asyncua import Server, ua

        self.server = Server()
        await self.server.init()
        self.server.set_endpoint("opc.tcp://127.0.0.1:0")
        self.server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        await self.server.load_certificate(str(folder / "server.der"))
        await self.server.load_private_key(str(folder / "server.pem"))
        await self.server.start()
        self._inner = self.server.bserver._server.sockets[0].getsockname()[1]
        self._relay = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"opc.tcp://127.0.0.1:{self._relay.sockets[0].getsockname()[1]}"

    async def _accept(self, reader, writer):
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._inner)

        async def back():
            while data := await far_reader.read(65536):
                writer.write(data)
            writer.close()

        task = asyncio.create_task(back())
        try:
            while True:
                head = await reader.readexactly(8)
                body = await reader.readexactly(struct.unpack("<I", head[4:])[0] - 8)
                kind = head[:3].decode()
                if kind != "CLO":  # it may come too late to be counted
                    self.sent.append((kind, struct.unpack_from("<H", body, 18)[0]) if kind == "MSG" else kind)
                far_writer.write(head + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            far_writer.close()
        await asyncio.gather(task, return_exceptions=True)

    def close(self):
        async def stop():
            self._relay.close()
            await self.server.stop()
            rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        self._do(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()


@pytest.fixture(scope="module")
def relay(tmp_path_factory, key):
    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
    folder = tmp_path_factory.mktemp("server")
    relay = Relay(folder, certificates.make(key, "urn:real:server", "real", NOW), key)
    yield relay
    relay.close()


@pytest.fixture
def server(relay):
    relay.sent.clear()
    return relay


def listed(capsys, *args):
    capsys.readouterr()
    code = main(["trust", *args, "--json"])
    return code, json.loads(capsys.readouterr().out)["servers"]


# --- listed ---------------------------------------------------------------------------------------------------------


def test_what_waits_comes_first_with_all_that_a_person_compares_and_the_command(write, waiting, capsys):
    file = write()
    approved = waiting("old")
    main(["trust", file, "--approve", approved, "--yes"])
    new = waiting("new", why="changed")
    capsys.readouterr()
    assert main(["trust", file]) == 0
    out = capsys.readouterr().out
    assert out.index("pending  plc: opc.tcp://127.0.0.1:1") < out.index("trusted  plc: opc.tcp://127.0.0.1:1")
    assert new.upper() in out.replace(" ", "")
    assert "it was renewed or replaced, or somebody is in between, 2026-11-22T06:00:00Z" in out
    assert out.splitlines()[-1] == f"headgate trust {file} --approve {new[:12]}"


def test_the_document_says_whose_certificate_it_is(write, waiting, capsys):
    waiting("plc")
    waiting("press", "opc.tcp://elsewhere:4840")
    code, found = listed(capsys, write("plc", "twin"))
    assert code == 0
    devices = {one["application_uri"]: one["devices"] for one in found}
    assert devices == {"urn:plc:server": ["plc", "twin"], "urn:press:server": []}
    code, found = listed(capsys, write("plc", "twin"), "twin")
    assert [(one["application_uri"], one["state"], one["urls"]) for one in found] == [
        ("urn:plc:server", "pending", [URL])
    ]


def test_a_file_that_is_no_certificate_is_told(write, waiting, tmp_path, capsys):
    waiting("plc")
    (tmp_path / "p" / "trusted").mkdir()
    (tmp_path / "p" / "trusted" / "x.der").write_bytes(b"junk")
    assert main(["trust", write()]) == 0
    assert "warning: " in capsys.readouterr().err
    assert main(["trust", write(), "--json"]) == 0
    assert "x.der: there is no certificate in it" in json.loads(capsys.readouterr().out)["faults"][0]


# --- asked of the server --------------------------------------------------------------------------------------------


def test_where_nothing_is_known_the_server_is_asked_for_its_endpoints_and_nothing_else(write, server, capsys, tmp_path):
    file = write(url=server.url)
    code, found = listed(capsys, file, "plc")
    assert code == 0
    assert [(one["state"], one["thumbprint"]) for one in found] == [("pending", certificates.thumbprint_of(server.der))]
    assert found[0]["urls"] == [server.url]
    assert server.sent == ["HEL", "OPN", ("MSG", GET_ENDPOINTS)]
    assert not (tmp_path / "p" / "own").exists()
    assert listed(capsys, file, "plc")[1] == found
    assert len(server.sent) == 3  # it is known now: nobody is asked again
    assert listed(capsys, file, "--fetch")[0] == 0
    assert len(server.sent) == 6


def test_with_the_fingerprint_at_hand_one_command_is_enough(write, server, capsys):
    file = write(url=server.url)
    digits = certificates.thumbprint_of(server.der)
    assert main(["trust", file, "plc", "--approve", ":".join([digits[:2], digits[2:4], digits[4:12]]), "--yes"]) == 0
    assert capsys.readouterr().out == f"{digits[:12]} is trusted from the next connection on\n"
    code, found = listed(capsys, file)
    assert (code, [one["state"] for one in found]) == (0, ["trusted"])


def test_two_devices_of_one_server_ask_it_once(write, server, capsys):
    assert listed(capsys, write("plc", "twin", url=server.url), "--fetch")[1][0]["devices"] == ["plc", "twin"]
    assert len(server.sent) == 3


def test_a_server_that_is_not_there_is_exit_code_1_and_said(write, capsys):
    assert main(["trust", write()]) == 1
    said = capsys.readouterr()
    assert "plc: opc.tcp://127.0.0.1:1" in said.err
    assert "no certificates of servers are here" in said.err
    assert said.out == ""


def test_a_server_without_security_is_not_asked(write, capsys):
    assert main(["trust", write(more="pki: p, security: none")]) == 0
    assert "makes no use of them: security: none signs and encrypts nothing" in capsys.readouterr().err


def test_a_login_is_encrypted_for_a_server_without_security_too_so_it_is_asked(write, server, capsys):
    _, found = listed(capsys, write(url=server.url, more="pki: p, security: none, username: me"))
    assert [one["state"] for one in found] == ["pending"]


# --- approved and removed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_it_asks_first_and_shows_what_about(write, waiting, typed, capsys, answer):
    file, thumbprint = write(), waiting("plc")
    typed(answer)
    assert main(["trust", file, "--approve", thumbprint[:8]]) == (0 if answer == "y" else 1)
    said = capsys.readouterr()
    assert thumbprint.upper() in said.err.replace(" ", "")
    assert "Trust? [y/N]" in said.err
    assert listed(capsys, file)[1][0]["state"] == ("trusted" if answer == "y" else "pending")


def test_where_nobody_is_there_to_ask_nothing_is_done(write, waiting, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    thumbprint = waiting("plc")
    assert main(["trust", write(), "--approve", thumbprint]) == 1
    assert "nobody is there to be asked" in capsys.readouterr().err
    assert listed(capsys, write())[1][0]["state"] == "pending"


@pytest.mark.parametrize("digits", ["", "ab", "xyz123", "../../etc", "abcg"])
def test_what_is_no_fingerprint_is_wrong_use(write, waiting, capsys, digits):
    waiting("plc")
    assert main(["trust", write(), "--approve", digits, "--yes"]) == 2
    assert "is no fingerprint" in capsys.readouterr().err


def test_the_beginning_of_two_is_refused_with_both(write, tmp_path, waiting, capsys, key):
    found = {}
    while True:  # two certificates whose thumbprints begin alike; 4 digits, so after some hundred
        der = certificates.make(key, f"urn:n{len(found)}:server", "plc", NOW)
        digits = certificates.thumbprint_of(der)
        if digits[:4] in found:
            break
        found[digits[:4]] = der
    waiting("plc")
    for one in (der, found[digits[:4]]):
        (tmp_path / "p" / "pending" / f"{certificates.thumbprint_of(one)}.der").write_bytes(one)
    assert main(["trust", write(), "--approve", digits[:4], "--yes"]) == 1
    said = capsys.readouterr().err
    assert f"{digits[:4]} is the beginning of several" in said
    assert digits in said
    assert main(["trust", write(), "--approve", digits, "--yes"]) == 0


def test_the_sha256_is_as_good(write, waiting, capsys):
    waiting("plc")
    digits = listed(capsys, write())[1][0]["sha256"]
    assert main(["trust", write(), "--approve", digits[:16].upper(), "--yes"]) == 0


def test_all_is_all_of_one_server(write, waiting, capsys):
    waiting("plc")
    waiting("press", "opc.tcp://127.0.0.1:2")
    file = write()
    text = f"{file}"
    with open(file, "a") as out:  # noqa: PTH123 - one more device
        out.write("  press: {driver: opcua, url: 'opc.tcp://127.0.0.1:2', every: 1s, tags: {a: i=2258}, pki: p}\n")
    assert main(["trust", text, "--approve", "all", "--yes"]) == 1
    assert "certificates of several servers wait. Name the device" in capsys.readouterr().err
    assert main(["trust", text, "press", "--approve", "all", "--yes"]) == 0
    states = {one["application_uri"]: one["state"] for one in listed(capsys, text)[1]}
    assert states == {"urn:plc:server": "pending", "urn:press:server": "trusted"}


def test_removed_it_waits_again_and_removed_again_it_is_forgotten(write, waiting, capsys):
    file, thumbprint = write(), waiting("plc")
    main(["trust", file, "--approve", thumbprint, "--yes"])
    assert main(["trust", file, "--remove", thumbprint[:12], "--yes"]) == 0
    assert "is not trusted from the next connection on" in capsys.readouterr().out
    ((found),) = listed(capsys, file)[1]
    assert (found["state"], found["why"]) == ("pending", "somebody removed it from the trusted ones")
    assert main(["trust", file, "--remove", thumbprint[:12], "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["servers"][0]["thumbprint"] == thumbprint
    assert main(["trust", file, "--remove", thumbprint[:12], "--yes"]) == 1
    assert f"no certificate there begins with {thumbprint[:12]}; there are: none" in capsys.readouterr().err


def test_what_is_trusted_already_is_no_failure(write, waiting, capsys):
    file, thumbprint = write(), waiting("plc")
    main(["trust", file, "--approve", thumbprint, "--yes"])
    assert main(["trust", file, "--approve", thumbprint[:12], "--yes"]) == 0
    assert "it is trusted already" in capsys.readouterr().err


def test_the_same_certificate_in_two_folders_needs_the_device(write, waiting, tmp_path, capsys, key):
    thumbprint = waiting("plc")
    other = tmp_path / "q" / "pending"
    other.mkdir(parents=True)
    (other / "x.der").write_bytes((tmp_path / "p" / "pending" / f"{thumbprint}.der").read_bytes())
    file = write()
    with open(file, "a") as out:  # noqa: PTH123 - one more device
        out.write("  press: {driver: opcua, url: 'opc.tcp://127.0.0.1:2', every: 1s, tags: {a: i=2258}, pki: q}\n")
    assert main(["trust", file, "--approve", thumbprint[:12], "--yes"]) == 1
    assert "is there more than once, for plc, press. Name the device" in capsys.readouterr().err
    assert main(["trust", file, "plc", "--approve", thumbprint[:12], "--yes"]) == 0
    found = [(one["devices"], one["state"]) for one in listed(capsys, file)[1]]
    assert found == [(["press"], "pending"), (["plc"], "trusted")]
