"""The section `broker` of the gateway file: what it becomes, and what is refused with place and cure."""

from __future__ import annotations

import asyncio

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway import config
from gateway.app import App
from gateway.broker.options import Address, parse_address
from gateway.errors import FileError
from gateway.uplinks.tap import Form

_DEVICES = """
devices:
  pump: {driver: modbus, url: tcp://127.0.0.1:1502, tags: {flow: {address: holding:0, type: uint16}}}
"""


@pytest.fixture
def load(tmp_path):
    def read(broker: str) -> config.Config:
        file = tmp_path / "gateway.yaml"
        file.write_text(f"gateway: g\n{broker}{_DEVICES}")
        return config.load(file)

    return read


def mistakes(load, broker: str) -> list[str]:
    with pytest.raises(FileError) as caught:
        load(broker)
    return [f"{m.place.line}:{m.place.column}: {m.text}" for m in caught.value.mistakes]


def test_without_the_key_there_is_no_broker(load):
    assert load("").broker is None


def test_the_bare_key_is_a_broker_on_loopback_without_users(load):
    broker = load("broker:\n").broker
    assert broker.options.listen == (Address("mqtt", "127.0.0.1", 1883),)
    assert not broker.options.asks_who
    assert broker.forms == (Form("json"),)


def test_a_broker_spares_the_warning_that_values_go_nowhere(load):
    assert load("broker:\n").warnings == ()
    assert "values go nowhere" in load("").warnings[0].text


def test_every_key_reaches_the_options(load, tmp_path):
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    contents = {"acl": "topic read #\n", "jwt.pem": pem.decode()}
    for name in ("cert.pem", "key.pem", "ca.pem", "crl.pem", "acl", "passwd", "jwt.pem"):
        (tmp_path / name).write_text(contents.get(name, ""))
        (tmp_path / name).chmod(0o600)
    broker = load("""broker:
  listen: ["mqtts://0.0.0.0:8883", "wss://[::]:8084/plant"]
  users: passwd
  acl: acl
  admins: chief
  anonymous: false
  tls: {cert: cert.pem, key: key.pem, ca: ca.pem, crl: crl.pem, clients: optional, identity: cn}
  jwt: {key: jwt.pem, algorithms: ES256, audience: plant, issuer: us, claim: name}
  limits: {connections: 5, packet_bytes: 64KiB, stall: 5s, keep_alive_maximum: 10m, publish_per_s: 7}
  commit_interval: 250ms
  sync: always
  payload: [json, value]
  retain: true
""").broker
    options = broker.options
    assert [str(a) for a in options.listen] == ["mqtts://0.0.0.0:8883", "wss://[::]:8084/plant"]
    assert (options.users, options.acl) == (tmp_path / "passwd", tmp_path / "acl")
    assert options.admins == {"chief"}
    assert options.tls.crl == tmp_path / "crl.pem"
    assert (options.tls.clients, options.tls.identity) == ("optional", "cn")
    assert options.jwt.algorithms == ("ES256",)
    assert (options.jwt.audience, options.jwt.issuer, options.jwt.claim) == ("plant", "us", "name")
    assert (options.limits.connections, options.limits.packet_bytes, options.limits.stall_s) == (5, 65536, 5.0)
    assert options.limits.keep_alive_maximum_s == 600
    assert options.limits.publish_per_s == 7
    assert (options.commit_interval_s, options.sync) == (0.25, "always")
    assert broker.forms == (Form("json", None, True), Form("value", None, True))


@pytest.mark.parametrize(
    ("broker", "expected"),
    [
        ("broker: {listen: mqtt://0.0.0.0}", "mqtt://0.0.0.0:1883 would let anybody on the network in"),
        ("broker: {listen: 1883}", "listen: expected a list, got 1883"),
        ("broker: {listen: http://127.0.0.1}", "'http://127.0.0.1' is no listener: write mqtt://"),
        ("broker: {listen: 'mqtt://127.0.0.1:99999'}", "a port is a number from 0 to 65535"),
        ("broker: {listen: 'mqtt://'}", "has no address to listen on"),
        ("broker: {listen: 'mqtt://127.0.0.1/x'}", "only ws:// and wss:// have a path"),
        ("broker: {listen: 'mqtt://u:p@127.0.0.1'}", "nothing but address, port and path"),
        ("broker: {listen: ['mqtt://127.0.0.1', 'mqtt://127.0.0.1']}", "127.0.0.1:1883 is named twice"),
        ("broker: {listen: mqtts://127.0.0.1}", "mqtts://127.0.0.1:8883 needs a certificate"),
        ("broker: {tls: {cert: gone.pem}}", "tls: no listener is encrypted"),
        ("broker: {listen: mqtts://127.0.0.1, tls: {cert: gone.pem}}", "gone.pem: no such file or directory"),
        ("broker: {users: gone}", "gone: no such file or directory"),
        ("broker: {jwt: {key: gone, algorithms: [HS256, RS256]}}", "HS256 has a shared secret"),
        ("broker: {jwt: {key: gone, algorithms: none}}", "algorithms: 'none' is none of HS256, RS256, ES256"),
        ("broker: {payload: [json, value], topic: x}", "two forms cannot share one topic"),
        ("broker: {payload: [json, json]}", "one form is named twice"),
        ("broker: {payload: value, topic: '{prefix}/{device}'}", "needs {tag} in its topic"),
        ("broker: {topic: '{prefix}/{device}/{tag}'}", "{tag} says nothing"),
        ("broker: {topic: '{prefix}/{site}'}", "device 'pump' has no field 'site'"),
        ("broker: {limits: {packet_bytes: 1}}", "packet_bytes: '1' is outside 256B … 256MiB"),
        ("broker: {limts: {}}", "unknown key 'limts'. Did you mean 'limits'?"),
        ("broker: [mqtt]", "broker: expected keys and values, got a list"),
    ],
)
def test_what_cannot_be_run_is_refused_with_place_and_cure(load, broker, expected):
    found = mistakes(load, broker)
    assert any(expected in text for text in found), found
    assert all(text.startswith("2:") for text in found)


@pytest.mark.parametrize(
    ("key", "content", "expected"),
    [
        ("users", "eve:plain\n", "users:1: "),
        ("acl", "user eve\nallow #\n", "acl:2: 'allow' is no word of an ACL file"),
    ],
)
def test_what_stands_in_the_files_is_checked_too(load, tmp_path, key, content, expected):
    (tmp_path / key).write_text(content)
    assert any(expected in text for text in mistakes(load, f"broker: {{{key}: {key}}}"))


def test_a_password_that_travels_in_the_open_is_warned_of(load, tmp_path):
    users = tmp_path / "passwd"
    users.write_text("")
    users.chmod(0o600)
    warnings = [w.text for w in load("broker: {listen: mqtt://0.0.0.0, users: passwd}").warnings]
    assert warnings == ["broker: listen: passwords travel in the open to mqtt://0.0.0.0:1883. Use mqtts://"]


def test_a_password_file_that_everybody_reads_is_warned_of(load, tmp_path):
    (tmp_path / "passwd").write_text("")
    (tmp_path / "passwd").chmod(0o644)
    assert "chmod" in load("broker: {users: passwd}").warnings[0].text


def test_each_caution_is_said_once(load, tmp_path, caplog):
    for name, mode in (("passwd", 0o644), ("acl", 0o666)):
        (tmp_path / name).write_text("no colon, no rule\n" if name == "passwd" else "")
        (tmp_path / name).chmod(mode)
    file = load("broker: {listen: 'mqtt://127.0.0.1:0', users: passwd, acl: acl}")
    said = [warning.text for warning in file.warnings]
    assert sorted(("chmod" in text, "passwd" in text) for text in said) == [(False, True), (True, False), (True, True)]

    async def start():
        async with App(file):
            pass

    asyncio.run(start())
    assert [text for text in caplog.messages if str(tmp_path) in text] == []


def test_anonymous_beyond_loopback_is_refused_even_with_users(load, tmp_path):
    (tmp_path / "passwd").write_text("")
    found = mistakes(load, "broker: {listen: mqtt://0.0.0.0, users: passwd, anonymous: true}")
    assert any("Take anonymous out" in text for text in found)


def test_optional_certificates_do_not_open_a_listener_to_the_world(load, tmp_path):
    for name in ("cert.pem", "ca.pem"):
        (tmp_path / name).write_text("x")
    tls = "tls: {cert: cert.pem, ca: ca.pem, clients: %s}"
    found = mistakes(load, "broker: {listen: mqtts://0.0.0.0, " + tls % "optional" + "}")
    assert any("would let anybody" in text for text in found)
    assert load("broker: {listen: mqtts://0.0.0.0, " + tls % "required" + "}").broker.options.asks_who


@pytest.mark.parametrize("text", ["mqtt://127.0.0.1:0", "ws://[::1]:8083/mqtt", "mqtts://0.0.0.0:8883"])
def test_an_address_reads_as_it_is_written(text):
    assert str(parse_address(text)) == text
