"""The uplink against mosquitto: plain and TLS, logins, permissions, limits, restarts, freezes, wills."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import asynccontextmanager

import aiomqtt
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.clock import SystemClock
from gateway.image import Image
from gateway.metrics import Metrics
from gateway.model import Batch, Definition, DeviceState
from gateway.secrets import Secret
from gateway.spool.limits import Limits
from gateway.spool.queue import Queue
from gateway.uplinks.forwarder import Forwarder
from gateway.uplinks.options import Options, Tls

TS = 1795330000123
STATUS = "headgate/plant7/status"
BOILER = "headgate/plant7/boiler"
GROUP = Definition("boiler", ("flow", "pump"), ("float32", "bool"), ("", ""), (None, None))


class Broker:
    """A mosquitto that can be stopped, killed, frozen, reloaded and started again on the same port."""

    def __init__(self, folder, start, listening, wait_for, port):
        self.folder, self.port = folder, port
        self._start, self._listening, self._wait_for = start, listening, wait_for
        self.process = None
        self.url = f"mqtt://127.0.0.1:{port}"

    def start(self, *lines, anonymous=True):
        config = [f"listener {self.port} 127.0.0.1", f"allow_anonymous {str(anonymous).lower()}", *lines]
        config += ["user root"] * (os.geteuid() == 0)  # else it gives up its rights and cannot read our files
        if lines or not (self.folder / "mosquitto.conf").exists():
            (self.folder / "mosquitto.conf").write_text("\n".join(config) + "\n")
        self.process = self._start("mosquitto", "-c", str(self.folder / "mosquitto.conf"), "-v", name="mosquitto")
        self._wait_for(lambda: self._listening(self.port), "mosquitto listens")
        return self

    def signal(self, number):
        self.process.send_signal(number)
        if number in (signal.SIGTERM, signal.SIGKILL):
            self.process.wait(10)

    def log(self):
        return (self.folder / "mosquitto.log").read_text()


@pytest.fixture
def broker(need, tmp_path, start, listening, wait_for, free_port):
    need("mosquitto")
    return Broker(tmp_path, start, listening, wait_for, free_port())


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "headgate.uplinks")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "headgate.uplinks"]


class Gateway:
    """Spool and forwarder as the app puts them together."""

    def __init__(self, folder, servers, **options):
        self.folder = folder / "spool"
        self.options = {"name": "cloud", "gateway": "plant7", "servers": servers, "connect_timeout_s": 3.0} | options
        self.options = {"order": "in_order", "replay_delay_s": 0.0} | self.options  # lanes have tests of their own
        self.states = self.options.pop("states", {})
        self.image = Image()
        self.count = 0

    async def __aenter__(self):
        clock, metrics = SystemClock(), Metrics()
        self.spool = await Queue.open(self.folder, Limits(commit_interval_s=0.1), clock=clock, metrics=metrics)
        self.cursor = self.spool.cursor("cloud")
        self.forwarder = Forwarder(
            Options(**self.options),
            streams=[(self.spool, self.cursor)],
            states=self.states,
            latest=self.image.batches,
            clock=clock,
            metrics=metrics,
        )
        self.task = asyncio.create_task(self.forwarder.run())
        return self

    async def __aexit__(self, *_):
        await self.forwarder.stop(2)
        await self.task
        await self.spool.close()

    def append(self, count):
        for _ in range(count):
            self.spool.append(Batch(GROUP, TS + self.count, [float(self.count), True]))
            self.count += 1

    async def until(self, condition, seconds=20):
        await until(lambda: self.task.done() or condition(), seconds)
        assert not self.task.done(), self.task.exception()

    async def connected(self, seconds=20):
        await self.until(lambda: self.forwarder.status().connected, seconds)

    async def delivered(self, seconds=20):
        await self.until(lambda: self.spool.status().cursors[0].lag_records == 0, seconds)


async def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def observer(port, topic="#", **options):
    """What a consumer hears, as (topic, payload, retained, user properties)."""
    heard = []

    async def listen(client):
        async for message in client.messages:
            user = dict(getattr(message.properties, "UserProperty", []))
            heard.append((str(message.topic), message.payload, message.retain, user))

    options = {"identifier": "observer", "protocol": aiomqtt.ProtocolVersion.V5} | options
    async with aiomqtt.Client("127.0.0.1", port, **options) as client:
        await client.subscribe(topic, qos=2)
        task = asyncio.create_task(listen(client))
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def flows(heard):
    return [orjson.loads(payload)["values"]["flow"] for topic, payload, _, _ in heard if topic == BOILER]


# --- delivery ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_records_arrive_once_in_order_and_are_acknowledged(broker, tmp_path, qos, version):
    broker.start("max_queued_messages 0")

    async def story():
        async with (
            observer(broker.port) as heard,
            Gateway(tmp_path, (broker.url,), qos=qos, version=version) as g,
        ):
            await g.connected()
            await until(lambda: heard)
            g.append(500)
            await g.delivered()
            await until(lambda: len(flows(heard)) == 500)
            assert flows(heard) == [float(i) for i in range(500)]
            topic, payload, retained, user = heard[1]
            epoch = g.spool.epoch
            assert (topic, retained) == (BOILER, False)
            assert payload == b'{"ts":%d,"seq":1,"epoch":"%b","values":{"flow":0.0,"pump":true}}' % (TS, epoch.encode())
            expected = {"gateway": "plant7", "device": "boiler", "epoch": epoch, "seq": "1"}
            assert user == (expected if version == "5" else {})
            assert g.forwarder.status().version == version

    asyncio.run(story())


def test_last_values_are_retained_one_topic_a_tag(broker, tmp_path):
    broker.start()

    async def story():
        async with Gateway(tmp_path, (broker.url,), payload="value") as g:
            g.image.add(GROUP)
            g.image.note(Batch(GROUP, TS, [8.100000381469727, True]))
            await g.connected()
            await g.until(lambda: g.forwarder.status().published == 3 and not g.forwarder.status().in_flight)
            async with observer(broker.port, f"{BOILER}/+") as heard:
                await until(lambda: len(heard) == 2)
                assert [(t, p, r) for t, p, r, _ in heard] == [
                    (f"{BOILER}/flow", b"8.1", True),
                    (f"{BOILER}/pump", b"true", True),
                ]

    asyncio.run(story())


# --- status and will --------------------------------------------------------------------------------------------------


def test_status_is_retained_online_then_stopped_and_devices_say_theirs(broker, tmp_path):
    broker.start()

    async def status(count):
        async with observer(broker.port, "headgate/+/#") as heard:
            await until(lambda: len(heard) == count)
            return {(topic, payload, retained) for topic, payload, retained, _ in heard}

    async def story():
        states = {"boiler": DeviceState("boiler", online=False, cause="timeout", since=5)}
        async with Gateway(tmp_path, (broker.url,), states=states) as g:
            await g.until(lambda: g.forwarder.status().published == 2 and not g.forwarder.status().in_flight)
            assert await status(2) == {
                (STATUS, b'{"state":"online"}', True),
                (f"{BOILER}/status", b'{"state":"offline","cause":"timeout","since":5}', True),
            }
            g.forwarder.device_changed(DeviceState("boiler", online=True, cause="", since=6))
            await g.until(lambda: g.forwarder.status().published == 3 and not g.forwarder.status().in_flight)
            assert (f"{BOILER}/status", b'{"state":"online"}', True) in await status(2)
        assert (STATUS, b'{"state":"stopped"}', True) in await status(2)

    asyncio.run(story())


def test_the_will_says_offline_when_the_gateway_is_killed(broker, tmp_path, start):
    broker.start()
    program = textwrap.dedent(
        f"""
        import asyncio
        from pathlib import Path
        from gateway.clock import SystemClock
        from gateway.metrics import Metrics
        from gateway.spool.limits import Limits
        from gateway.spool.queue import Queue
        from gateway.uplinks.forwarder import Forwarder
        from gateway.uplinks.options import Options

        async def main():
            clock, metrics = SystemClock(), Metrics()
            spool = await Queue.open(Path({str(tmp_path / "killed")!r}), Limits(), clock=clock, metrics=metrics)
            options = Options(name="cloud", gateway="plant7", servers=({broker.url!r},))
            cursor = spool.cursor("cloud")
            streams = [(spool, cursor)]
            await Forwarder(options, streams=streams, states={{}}, clock=clock, metrics=metrics).run()

        asyncio.run(main())
        """
    )

    async def story():
        async with observer(broker.port, STATUS) as heard:
            process = start(sys.executable, "-c", program, name="gateway")
            await until(lambda: heard)
            assert heard[0][1] == b'{"state":"online"}'
            process.kill()
            process.wait()
            await until(lambda: len(heard) == 2)
            assert heard[1][1] == b'{"state":"offline"}'
        async with observer(broker.port, STATUS) as heard:
            await until(lambda: heard)
            assert heard[0][1:3] == (b'{"state":"offline"}', True)

    asyncio.run(story())


# --- outages ----------------------------------------------------------------------------------------------------------


def test_a_broker_that_restarts_loses_nothing(broker, tmp_path, lines):
    broker.start("persistence true", f"persistence_location {tmp_path}/", "max_queued_messages 0")

    async def story():
        # A session that lives on: mosquitto keeps what arrives for it, over its restart too.
        durable = {"identifier": "historian", "clean_session": False, "protocol": aiomqtt.ProtocolVersion.V311}
        async with observer(broker.port, BOILER, **durable):
            pass
        async with Gateway(tmp_path, (broker.url,)) as g:
            await g.connected()
            for _ in range(50):
                g.append(20)
                await asyncio.sleep(0.002)
            broker.signal(signal.SIGTERM)
            g.append(500)
            await g.until(lambda: not g.forwarder.status().connected)
            await asyncio.sleep(0.5)
            broker.start()
            await g.connected()
            g.append(20)
            await g.delivered()
            async with observer(broker.port, BOILER, **durable) as heard:
                await until(lambda: set(flows(heard)) == {float(i) for i in range(1520)})
                replayed = [orjson.loads(p).get("replay", False) for _, p, _, _ in heard]
                assert replayed[-1] is False
                assert True in replayed
        assert len([line for line in lines() if "lost" in line]) == 1
        assert len([line for line in lines() if "cannot connect" in line]) <= 1

    asyncio.run(story())


def test_a_broker_that_freezes_is_noticed_by_keep_alive_and_nothing_is_lost(broker, tmp_path, lines):
    broker.start()

    async def story():
        async with Gateway(tmp_path, (broker.url,), keep_alive_s=5) as g:
            await g.connected()
            broker.signal(signal.SIGSTOP)
            frozen = time.monotonic()
            g.append(300)
            try:
                await g.until(lambda: not g.forwarder.status().connected, 30)
                assert time.monotonic() - frozen < 20  # two keep-alives, and a busy machine
                assert g.cursor.committed == 0
            finally:
                broker.signal(signal.SIGCONT)
            await g.delivered(30)
        assert any("no answer to a ping within 5 s" in line for line in lines())

    asyncio.run(story())


def test_a_connection_cut_again_and_again_loses_nothing(broker, tmp_path, lines):
    broker.start("max_queued_messages 0")

    async def story():
        async with observer(broker.port, BOILER) as heard, Gateway(tmp_path, (broker.url,)) as g:
            for _ in range(3):
                await g.connected()
                g.append(200)
                await asyncio.sleep(0.01)
                # Somebody else with the same client id: the server throws us out in mid-stream.
                thief = {"identifier": "plant7-cloud", "protocol": aiomqtt.ProtocolVersion.V5}
                async with aiomqtt.Client("127.0.0.1", broker.port, **thief):
                    await g.until(lambda: not g.forwarder.status().connected)
            await g.delivered(60)
            await until(lambda: set(flows(heard)) == {float(i) for i in range(600)})
            first = {}
            for index, flow in enumerate(flows(heard)):
                first.setdefault(flow, index)
            assert sorted(first, key=first.get) == [float(i) for i in range(600)]
        assert len([line for line in lines() if "lost" in line]) == 3

    asyncio.run(story())


def test_servers_are_tried_in_turn(broker, tmp_path, free_port, lines):
    broker.start()

    async def story():
        servers = (f"mqtt://127.0.0.1:{free_port()}", "mqtt://nowhere.invalid", broker.url)
        async with Gateway(tmp_path, servers) as g:
            g.append(5)
            await g.delivered()
            assert g.forwarder.status().server == broker.url
        assert len([line for line in lines() if "cannot connect" in line]) == 2

    asyncio.run(story())


# --- logins and permissions -------------------------------------------------------------------------------------------


def passwords(folder, **users):
    path = folder / "passwords"
    path.write_text("".join(f"{user}:{password}\n" for user, password in users.items()))
    subprocess.run(["mosquitto_passwd", "-U", str(path)], check=True)
    return f"password_file {path}"


def test_a_login_is_used_and_a_refused_one_is_an_error_until_a_person_has_acted(broker, need, tmp_path, lines):
    need("mosquitto_passwd")
    broker.start(passwords(tmp_path, plant7="wrong"), anonymous=False)

    async def story():
        login = {"username": "plant7", "password": Secret("hunter2")}
        async with Gateway(tmp_path, (broker.url,), **login) as g:
            g.append(3)
            await g.until(lines)
            assert "not authorized (0x87). A person must act" in lines()[0]
            await g.until(lambda: broker.log().count("not authorised") >= 2)
            assert len(lines()) == 1
            passwords(tmp_path, plant7="hunter2")
            broker.signal(signal.SIGHUP)
            await g.delivered()
        assert "hunter2" not in "".join(lines())

    asyncio.run(story())


def permit(folder, *topics):
    path = folder / "acl"
    path.write_text("".join(f"topic {topic}\n" for topic in topics))
    return f"acl_file {path}"


@pytest.mark.parametrize("qos", [1, 2])
def test_a_denied_topic_is_named_and_its_records_wait_until_it_is_permitted(broker, tmp_path, lines, qos):
    broker.start(permit(tmp_path, f"readwrite {STATUS}", f"read {BOILER}"))

    async def story():
        async with observer(broker.port, BOILER) as heard, Gateway(tmp_path, (broker.url,), qos=qos) as g:
            await g.connected()
            g.append(30)
            await g.until(lambda: g.forwarder.status().refused > 2)
            assert g.cursor.committed == 0
            permit(tmp_path, f"readwrite {STATUS}", f"readwrite {BOILER}")
            broker.signal(signal.SIGHUP)
            await g.delivered(90)
            await until(lambda: set(flows(heard)) == {float(i) for i in range(30)})
        said = [line for line in lines() if BOILER in line]
        assert said[0] == f"uplink 'cloud': the server refuses '{BOILER}': not authorized (0x87). What waits stays"
        assert said[1] == f"uplink 'cloud': the server takes '{BOILER}' again"
        assert len(said) == 2

    asyncio.run(story())


def test_with_3_1_1_a_denied_publish_is_acknowledged_all_the_same(broker, tmp_path):
    """Not what anybody wants: it is why MQTT 5 comes first, and why the documentation warns of 3.1.1."""
    broker.start(permit(tmp_path, f"readwrite {STATUS}"))

    async def story():
        async with Gateway(tmp_path, (broker.url,), version="3.1.1") as g:
            g.append(5)
            await g.delivered()
            assert g.forwarder.status().refused == 0

    asyncio.run(story())


# --- limits -----------------------------------------------------------------------------------------------------------


def test_the_server_s_limits_are_kept(broker, tmp_path, lines):
    broker.start("max_inflight_messages 3", "max_packet_size 2000", "max_keepalive 10")

    async def story():
        wide = Definition("boiler", tuple(f"t{i}" for i in range(400)), ("uint16",) * 400, ("",) * 400, (None,) * 400)
        async with observer(broker.port, BOILER) as heard, Gateway(tmp_path, (broker.url,)) as g:
            await g.connected()
            for _ in range(5):
                g.spool.append(Batch(wide, TS, list(range(400))))
            g.spool.append(Batch(GROUP, TS, ["x" * 5000, True]))
            await g.delivered()
            parts = [orjson.loads(payload) for _, payload, _, _ in heard]
            await until(lambda: len(heard) == sum(len(p["values"]) > 0 for p in parts))
            assert sum(len(p["values"]) for p in parts) == 5 * 400 + 1
            assert {p["part"][1] for p in parts[:-1]} == {len(parts) // 5}
            assert g.forwarder.status().skipped == 1
            assert len([line for line in lines() if "lost" in line]) == 0

    asyncio.run(story())


def test_a_server_that_retains_nothing_and_knows_no_qos_2_gets_less(broker, tmp_path, lines):
    broker.start("retain_available false", "max_qos 1")

    async def story():
        async with Gateway(tmp_path, (broker.url,), qos=2) as g:
            g.append(5)
            await g.delivered()
        assert "retain not supported" in lines()[0]
        assert any("no more than QoS 1" in line for line in lines())

    asyncio.run(story())


# --- TLS --------------------------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority for one test."""

    def __init__(self, folder, name="ca"):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self._sign(self.name, self.key, is_ca=True))

    def issue(self, common_name, *names):
        """Paths of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        cert, secret = self.folder / f"{common_name}.pem", self.folder / f"{common_name}.key"
        cert.write_bytes(self._sign(subject, key, names=names))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        secret.write_bytes(key.private_bytes(*form))
        return cert, secret

    def _sign(self, subject, key, *, names=(), is_ca=False):
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            known = [x509.IPAddress(ipaddress.ip_address(n)) if n[0].isdigit() else x509.DNSName(n) for n in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def secured(broker, tmp_path):
    """A TLS listener that asks for a client certificate and takes its name as the user's."""
    authority = Authority(tmp_path)
    cert, key = authority.issue("broker.example", "broker.example", "127.0.0.1")
    broker.start(
        f"cafile {authority.path}",
        f"certfile {cert}",
        f"keyfile {key}",
        "require_certificate true",
        "use_identity_as_username true",
        anonymous=False,
    )
    broker.url = f"mqtts://127.0.0.1:{broker.port}"
    return authority


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_tls_with_a_client_certificate(broker, secured, tmp_path, version):
    cert, key = secured.issue("plant7")

    async def story():
        tls = Tls(ca=secured.path, cert=cert, key=key)
        async with Gateway(tmp_path, (broker.url,), tls=tls, version=version) as g:
            await g.connected()
            g.append(2000)
            await g.delivered()
            assert g.forwarder.status().server == broker.url
        assert "u'plant7'" in broker.log()

    asyncio.run(story())


def test_certificates_are_read_anew_at_each_connect(broker, secured, tmp_path, lines):
    cert, key = secured.issue("plant7")
    good = cert.read_bytes()
    cert.write_text("no certificate")

    async def story():
        async with Gateway(tmp_path, (broker.url,), tls=Tls(ca=secured.path, cert=cert, key=key)) as g:
            await g.until(lines)
            assert f"tls.cert {cert}" in lines()[0]
            cert.write_bytes(good)
            await g.connected()

    asyncio.run(story())


@pytest.mark.parametrize("case", ["wrong ca", "missing ca", "no client certificate", "wrong client ca", "wrong name"])
def test_tls_that_is_not_trusted_is_refused_and_said(broker, secured, tmp_path, lines, case):
    cert, key = secured.issue("plant7")
    stranger = Authority(tmp_path, "stranger")
    if case == "wrong client ca":
        cert, key = stranger.issue("plant7-stranger")
    tls, words = {
        "wrong ca": (Tls(ca=stranger.path, cert=cert, key=key), "certificate is not trusted"),
        "missing ca": (Tls(ca=tmp_path / "none.pem", cert=cert, key=key), "none.pem: No such file"),
        "no client certificate": (Tls(ca=secured.path), "certificate"),
        "wrong client ca": (Tls(ca=secured.path, cert=cert, key=key), "alert"),
        "wrong name": (Tls(ca=secured.path, cert=cert, key=key, server_name="other.example"), "other.example"),
    }[case]

    async def story():
        login = {"username": "plant7", "password": Secret("hunter2")}
        async with Gateway(tmp_path, (broker.url,), tls=tls, **login) as g:
            g.append(1)
            await g.until(lines)
            await asyncio.sleep(0.3)
            assert not g.forwarder.status().connected
            assert words in lines()[0]
            assert "A person must act" in lines()[0]
            assert g.cursor.committed == 0

    asyncio.run(story())


@pytest.mark.parametrize("tls", [{"server_name": "broker.example"}, {"verify": False, "ca": None}], ids=["name", "off"])
def test_the_name_can_be_given_and_the_check_be_switched_off(broker, secured, tmp_path, lines, tls):
    cert, key = secured.issue("plant7")

    async def story():
        settings = Tls(**{"ca": secured.path, "cert": cert, "key": key} | tls)
        url = f"mqtts://localhost:{broker.port}"  # not in the certificate
        async with Gateway(tmp_path, (url,), tls=settings) as g:
            await g.connected()
        assert any("verify is off" in line for line in lines()) == ("verify" in tls)

    asyncio.run(story())


def test_a_port_that_speaks_no_tls_is_said(broker, tmp_path, lines):
    broker.start()

    async def story():
        async with Gateway(tmp_path, (f"mqtts://127.0.0.1:{broker.port}",)) as g:
            await g.until(lines)
            assert "cannot connect" in lines()[0]

    asyncio.run(story())
