"""The section `broker` of the gateway file: what it becomes, and what is refused with place and cure."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import fields, replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway import config
from gateway.app import App
from gateway.broker.options import Address, Limits, parse_address
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
    assert broker.options.limits == Limits()
    assert broker.forms == (Form("json"),)


def test_a_broker_spares_the_warning_that_values_go_nowhere(load):
    assert load("broker:\n").warnings == ()
    assert "values go nowhere" in load("").warnings[0].text


@pytest.fixture
def certify(tmp_path):
    """`certify(begins, ends, until)`: cert.pem, key.pem, ca.pem and crl.pem; in days from now, `until`: the list's."""

    def certify(begins=-1, ends=9, until=9):
        now, key = dt.datetime.now(dt.UTC), ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "plant")])
        period = (now + dt.timedelta(begins), now + dt.timedelta(ends))
        built = x509.CertificateBuilder(name, name, key.public_key(), 7, *period).sign(key, hashes.SHA256())
        revoked = x509.CertificateRevocationListBuilder(name, now - dt.timedelta(99), now + dt.timedelta(until))
        pem = serialization.Encoding.PEM
        files = {"cert.pem": built.public_bytes(pem), "crl.pem": revoked.sign(key, hashes.SHA256()).public_bytes(pem)}
        plain = serialization.NoEncryption()
        files["key.pem"] = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
        for file, content in (*files.items(), ("ca.pem", files["cert.pem"])):
            (tmp_path / file).write_bytes(content)
            (tmp_path / file).chmod(0o600)

    return certify


def test_every_key_reaches_the_options(load, tmp_path, certify):
    certify()
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    contents = {"acl": "topic read #\n", "jwt.pem": pem.decode()}
    for name in ("acl", "passwd", "jwt.pem"):
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


_LIMITS = {
    "connections": (5, 5),
    "connections_per_address": (6, 6),
    "connects_per_s": (0.5, 0.5),
    "connect_timeout": ("3s", 3.0),
    "connect_bytes": ("2KiB", 2048),
    "packet_bytes": ("64KiB", 65536),
    "receive_maximum": (7, 7),
    "max_in_flight": (8, 8),
    "topic_alias_maximum": (0, 0),
    "keep_alive_maximum": ("10m", 600),
    "session_expiry_maximum": ("1d", 86400),
    "sessions": (9, 9),
    "subscriptions": (10, 10),
    "topic_levels": (11, 11),
    "queue_messages": (12, 12),
    "queue_bytes": ("3KiB", 3072),
    "total_queue_bytes": ("4KiB", 4096),
    "retained_messages": (13, 13),
    "retained_bytes": ("5KiB", 5120),
    "publish_per_s": (14, 14.0),
    "publish_bytes_per_s": ("6KiB", 6144),
    "stall": ("15s", 15.0),
}


@pytest.mark.parametrize("key", _LIMITS)
def test_every_limit_reaches_the_options_and_no_other_one_changes(load, key):
    given, expected = _LIMITS[key]
    name = key if hasattr(Limits(), key) else f"{key}_s"
    assert load(f"broker: {{limits: {{{key}: {given}}}}}").broker.options.limits == replace(
        Limits(), **{name: expected}
    )


def test_no_limit_is_left_out_here():
    assert {key.removesuffix("_s") for key in _LIMITS} == {f.name.removesuffix("_s") for f in fields(Limits)}


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
        (
            "broker: {listen: ['mqtt://127.0.0.1', 'ws://0.0.0.0:1883']}",
            "ws://0.0.0.0:1883/mqtt and mqtt://127.0.0.1:1883 share a port",
        ),
        ("broker: {listen: 'mqtt://[::1'}", "an address of IPv6 stands in brackets"),
        ("broker: {listen: []}", "listen: the list is empty. Write at least one entry"),
        ("broker: {payload: []}", "payload: the list is empty. Write at least one entry"),
        (
            "broker: {listen: mqtts://127.0.0.1, tls: {cert: c, clients: optional}}",
            "clients: without a ca no client certificate is asked for. Write ca",
        ),
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


def test_all_files_are_looked_at_though_one_is_wrong(load, tmp_path):
    (tmp_path / "acl").write_text("allow #\n")
    (tmp_path / "passwd").write_text("eve:plain\n")
    found = mistakes(load, "broker: {listen: http://x, users: passwd, acl: acl, jwt: {key: gone, algorithms: ES256}}")
    assert [text.partition(": ")[0] for text in found] == ["2:18", "2:35", "2:48", "2:64"]
    assert "passwd:1: user 'eve'" in found[1]
    assert "acl:1: 'allow' is no word" in found[2]
    assert "gone: no such file" in found[3]


_TLS = "broker: {listen: mqtts://127.0.0.1, tls: {cert: cert.pem, key: key.pem, ca: ca.pem, crl: crl.pem}}"


def test_certificates_that_fit_are_well(load, certify):
    certify()
    assert load(_TLS).warnings == ()


@pytest.mark.parametrize(
    ("file", "other", "key", "expected"),
    [
        ("cert.pem", None, "cert", "it holds no certificate"),
        ("key.pem", None, "key", "it holds no private key"),
        ("cert.pem", "key.pem", "cert", "it holds no certificate"),
        ("ca.pem", None, "ca", "it must hold the certificates of authorities as PEM"),
        ("crl.pem", None, "crl", "it must hold a list of revoked certificates as PEM"),
        ("crl.pem", "ca.pem", "crl", "a list of revoked certificates as PEM, and holds none"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_refused_where_it_is_named(
    load, certify, tmp_path, file, other, key, expected
):
    certify()
    (tmp_path / file).write_bytes((tmp_path / other).read_bytes() if other else b"what is this\n")
    (found,) = mistakes(load, _TLS)
    assert found.startswith(f"2:{_TLS.index(file) + 1}: broker: {key}: {tmp_path / file}: ")
    assert expected in found


def test_a_key_of_another_certificate_is_refused(load, certify, tmp_path):
    certify()
    key = (tmp_path / "key.pem").read_bytes()
    certify()
    (tmp_path / "key.pem").write_bytes(key)
    (found,) = mistakes(load, _TLS)
    assert f"key.pem: this key does not belong to the certificate {tmp_path}/cert.pem" in found


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        ({"begins": -9, "ends": -1}, {"cert": "clients refuse it. Renew it", "ca": "whom it vouches for is refused"}),
        ({"begins": 1}, {"cert": "Set this machine's clock", "ca": "Set this machine's clock"}),
        ({"ends": 30_000}, {}),  # beyond 2050 a date is written in another way
        ({"until": -1}, {"crl": "clients are refused. Have a new list issued"}),
    ],
)
def test_what_is_out_of_date_is_warned_of_and_stops_nothing(load, certify, dates, expected):
    certify(**dates)
    said = load(_TLS).warnings
    assert [w.place.column for w in said] == [_TLS.index(f"{key}.pem") + 1 for key in expected]
    for warning, text in zip(said, expected.values(), strict=True):
        assert text in warning.text
        assert "20" in warning.text  # the date


@pytest.mark.parametrize(
    ("url", "is_own"),
    [
        ("mqtt://localhost:1883", True),
        ("mqtt://127.0.0.1", True),
        ("mqtt://127.0.0.1:1884", False),
        ("mqtt://h", False),
    ],
)
def test_an_uplink_to_the_gateways_own_broker_is_warned_of(load, url, is_own):
    said = load(f"broker:\nuplinks: {{u: {{url: '{url}'}}}}\n").warnings
    assert ["this gateway's own broker" in w.text for w in said] == [True] * is_own
    assert [(w.place.line, w.place.column) for w in said] == [(3, 20)] * is_own


def test_what_says_nothing_without_users_is_warned_of(load):
    said = [w.text for w in load("broker: {anonymous: true, admins: chief}").warnings]
    assert [text.partition(" says nothing where nobody is asked")[0] for text in said] == [
        "broker: anonymous:",
        "broker: admins:",
    ]


def test_rules_that_everybody_can_change_are_warned_of(load, tmp_path):
    (tmp_path / "acl").write_text("topic read #\n")
    (tmp_path / "acl").chmod(0o666)
    (warning,) = load("broker: {acl: acl}").warnings
    assert warning.place.column == 15
    assert "acl can be changed by everybody on this machine: chmod" in warning.text


def test_a_password_that_travels_in_the_open_is_warned_of(load, tmp_path):
    users = tmp_path / "passwd"
    users.write_text("")
    users.chmod(0o600)
    warnings = [w.text for w in load("broker: {listen: mqtt://0.0.0.0, users: passwd}").warnings]
    assert warnings == ["broker: listen: passwords travel in the open to mqtt://0.0.0.0:1883. Use mqtts://"]


def test_a_token_that_travels_in_the_open_is_warned_of(load, tmp_path):
    (tmp_path / "secret").write_text("x" * 32)
    (tmp_path / "secret").chmod(0o600)
    file = "broker: {listen: ws://0.0.0.0, jwt: {key: secret, algorithms: HS256}}"
    assert [w.text for w in load(file).warnings] == [
        "broker: listen: tokens travel in the open to ws://0.0.0.0:8083/mqtt. Use wss://"
    ]


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


def test_optional_certificates_do_not_open_a_listener_to_the_world(load, certify):
    certify()
    tls = "tls: {cert: cert.pem, key: key.pem, ca: ca.pem, clients: %s}"
    found = mistakes(load, "broker: {listen: mqtts://0.0.0.0, " + tls % "optional" + "}")
    assert any("would let anybody" in text for text in found)
    assert load("broker: {listen: mqtts://0.0.0.0, " + tls % "required" + "}").broker.options.asks_who


def test_who_shows_a_certificate_outside_may_be_asked_nothing_on_this_machine(load, certify):
    certify()
    tls = "tls: {cert: cert.pem, key: key.pem, ca: ca.pem}"
    options = load("broker: {listen: [mqtt://127.0.0.1, mqtts://0.0.0.0], " + tls + "}").broker.options
    assert [options.asks_who_at(address) for address in options.listen] == [False, True]
    assert not options.asks_who
    found = mistakes(load, "broker: {listen: [mqtt://0.0.0.0, mqtts://0.0.0.0], " + tls + "}")
    assert any("mqtt://0.0.0.0:1883 would let anybody" in text for text in found)


@pytest.mark.parametrize("text", ["mqtt://127.0.0.1:0", "ws://[::1]:8083/mqtt", "mqtts://0.0.0.0:8883"])
def test_an_address_reads_as_it_is_written(text):
    assert str(parse_address(text)) == text
