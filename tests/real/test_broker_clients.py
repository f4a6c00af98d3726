"""The embedded broker as others see it: mosquitto_pub and _sub, paho, MQTT.js, over TCP, TLS and WebSocket."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import signal
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

GATEWAY = [sys.executable, "-m", "gateway"]


# --- what the tests need --------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    """A folder with MQTT.js in its node_modules."""
    folder = tmp_path_factory.mktemp("npm")
    done = subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "mqtt@5"],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    """An authority, a server certificate for localhost, and one for a client named `pump`, as PEM files."""
    folder = tmp_path_factory.mktemp("pki")
    now = dt.datetime.now(dt.UTC)

    def write(name, key, certificate):
        pem = serialization.Encoding.PEM
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(pem))
        plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{name}.key").write_bytes(plain)
        (folder / f"{name}.key").chmod(0o600)

    def certify(name, issuer=None, issuer_key=None):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=90))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        write(name, key, builder.sign(issuer_key or key, hashes.SHA256()))
        return subject, key

    issuer = certify("authority")
    certify("server", *issuer)
    certify("pump", *issuer)
    return folder


@pytest.fixture
def run(start, free_port, listening, wait_for, tmp_path):
    """`run("broker: …{port}…")` starts a gateway that is a broker and nothing else; gives process and port."""

    def begin(section: str, **holes: object) -> SimpleNamespace:
        port = free_port()
        file = tmp_path / f"gateway-{port}.yaml"
        file.write_text("gateway: hub\nspool: {path: " + str(tmp_path / f"spool-{port}") + "}\n")
        with file.open("a") as out:
            out.write(section.replace("{port}", str(port)))
        name = f"gateway-{port}"
        process = start(*GATEWAY, "run", str(file), name=name)
        wait_for(lambda: listening(port) or process.poll() is not None, "the broker to listen", 15)
        assert process.poll() is None, (tmp_path / f"{name}.log").read_text()
        return SimpleNamespace(port=port, process=process, log=tmp_path / f"{name}.log", file=file, name=name)

    return begin


def mosquitto(program, port, *arguments, timeout=20):
    return subprocess.run(
        [program, "-h", "127.0.0.1", "-p", str(port), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


# --- MQTT.js --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss"])
def test_mqtt_js_tours_the_broker(need, modules, pki, run, scheme):
    need("node", "npm")
    secure = scheme in {"mqtts", "wss"}
    tls = f"  tls: {{cert: {pki}/server.pem, key: {pki}/server.key}}\n" if secure else ""
    hub = run(f"broker:\n  listen: {scheme}://127.0.0.1:{{port}}\n{tls}")
    url = f"{scheme}://localhost:{hub.port}/mqtt" if "ws" in scheme else f"{scheme}://localhost:{hub.port}"
    options = {"ca": f"{pki}/authority.pem"} if secure else {}
    tour = str(Path(__file__).with_name("mqttjs_tour.js"))
    done = subprocess.run(
        ["node", tour, str(modules), url, json.dumps(options | {"family": 4})],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    stops = json.loads(done.stdout)
    assert len(stops) == 9
    assert {name: said for name, said in stops.items() if said != "ok"} == {}


# --- mosquitto_pub, mosquitto_sub -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_mosquittos_own_clients_pass_a_retained_value(need, run, version, qos):
    need("mosquitto_pub", "mosquitto_sub")
    hub = run("broker: {listen: mqtt://127.0.0.1:{port}}\n")
    sent = mosquitto("mosquitto_pub", hub.port, "-V", version, "-t", "a/b", "-m", "21.5", "-q", qos, "-r")
    assert sent.returncode == 0, sent.stderr
    got = mosquitto("mosquitto_sub", hub.port, "-V", version, "-t", "a/#", "-q", qos, "-C", "1", "-F", "%t %p %q %r")
    assert got.stdout == f"a/b 21.5 {qos} 1\n"


def test_a_session_of_mqtt_3_outlives_connection_and_kill_9(need, run, start, wait_for, listening):
    need("mosquitto_pub", "mosquitto_sub")
    hub = run("broker: {listen: mqtt://127.0.0.1:{port}}\n")
    session = ["-i", "keeper", "-c", "-t", "k/#", "-q", "2", "-V", "mqttv311"]
    mosquitto("mosquitto_sub", hub.port, *session, "-E")
    for number in range(3):
        assert mosquitto("mosquitto_pub", hub.port, "-t", f"k/{number}", "-m", f"{number}", "-q", "2").returncode == 0
    hub.process.send_signal(signal.SIGKILL)
    hub.process.wait()
    start(*GATEWAY, "run", str(hub.file), name="again")
    wait_for(lambda: listening(hub.port), "the broker to listen again", 15)
    got = mosquitto("mosquitto_sub", hub.port, *session, "-C", "3", "-W", "10")
    assert got.stdout.split() == ["0", "1", "2"]


# --- paho -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [paho.MQTTv311, paho.MQTTv5])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_paho_gets_a_thousand_messages_each_once_and_in_order(run, protocol, qos):
    hub = run("broker: {listen: mqtt://127.0.0.1:{port}}\n")
    got: list[int] = []
    ready, complete = threading.Event(), threading.Event()

    def on_message(_client, _data, message):
        got.append(int(message.payload))
        if len(got) == 1000:
            complete.set()

    subscriber = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=protocol)
    subscriber.on_message = on_message
    subscriber.on_subscribe = lambda *_: ready.set()
    subscriber.on_connect = lambda client, *_: client.subscribe("p/#", qos)
    publisher = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=protocol)
    for client in (subscriber, publisher):
        client.connect("127.0.0.1", hub.port)
        client.loop_start()
    try:
        assert ready.wait(10)
        last = [publisher.publish("p/x", str(i), qos) for i in range(1000)][-1]
        last.wait_for_publish(20)
        assert complete.wait(20), len(got)
    finally:
        for client in (subscriber, publisher):
            client.disconnect()
            client.loop_stop()
    assert got == list(range(1000))


# --- who may enter --------------------------------------------------------------------------------------------------


def test_a_client_certificate_is_a_user_name_and_the_acl_knows_it(need, pki, run, tmp_path):
    need("mosquitto_pub", "mosquitto_sub")
    (tmp_path / "acl").write_text("user pump\ntopic write plant/pump\npattern read to/%u\n")
    hub = run(
        "broker:\n  listen: mqtts://127.0.0.1:{port}\n  acl: acl\n"
        f"  tls: {{cert: {pki}/server.pem, key: {pki}/server.key, ca: {pki}/authority.pem, identity: cn}}\n"
    )
    trust = ["--cafile", f"{pki}/authority.pem", "-V", "mqttv5"]
    pump = [*trust, "--cert", f"{pki}/pump.pem", "--key", f"{pki}/pump.key"]
    assert mosquitto("mosquitto_pub", hub.port, *pump, "-t", "plant/pump", "-m", "1", "-q", "1").returncode == 0
    refused = mosquitto("mosquitto_pub", hub.port, *pump, "-t", "plant/other", "-m", "1", "-q", "1")
    assert "Not authorized" in refused.stderr + refused.stdout
    stranger = mosquitto("mosquitto_pub", hub.port, *trust, "-t", "plant/pump", "-m", "1", "-q", "1")
    assert stranger.returncode != 0


def test_a_password_file_of_ours_lets_in_who_knows_the_word(need, run, tmp_path):
    need("mosquitto_pub")
    made = subprocess.run(
        [*GATEWAY, "passwd", str(tmp_path / "users"), "eve", "--stdin"], input="secret", text=True, check=False
    )
    assert made.returncode == 0
    hub = run("broker: {listen: mqtt://127.0.0.1:{port}, users: users}\n")
    ask = ["-t", "x", "-m", "1", "-q", "1", "-V", "mqttv5"]
    assert mosquitto("mosquitto_pub", hub.port, *ask, "-u", "eve", "-P", "secret").returncode == 0
    assert mosquitto("mosquitto_pub", hub.port, *ask, "-u", "eve", "-P", "guess-17").returncode != 0
    assert mosquitto("mosquitto_pub", hub.port, *ask).returncode != 0
    assert "login_refused" in hub.log.read_text()
    assert "guess-17" not in hub.log.read_text()


def test_rules_that_change_hold_for_who_listens_already(need, run, start, wait_for, tmp_path):
    need("mosquitto_pub", "mosquitto_sub")
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite #\n")
    hub = run("broker: {listen: mqtt://127.0.0.1:{port}, acl: acl}\n")
    start("mosquitto_sub", "-h", "127.0.0.1", "-p", str(hub.port), "-t", "#", "-v", name="ear")
    heard = tmp_path / "ear.log"

    def say(topic, text):
        mosquitto("mosquitto_pub", hub.port, "-t", topic, "-m", text, "-q", "1", "-r")

    say("secret", "before")
    wait_for(lambda: "secret before" in heard.read_text(), "what is allowed")
    acl.write_text("topic readwrite open\ntopic write secret\n")
    hub.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "are read anew" in hub.log.read_text(), "the reload")
    say("secret", "after")
    say("open", "after")
    wait_for(lambda: "open after" in heard.read_text(), "what is still allowed")
    assert "secret after" not in heard.read_text()
    late = mosquitto("mosquitto_sub", hub.port, "-t", "#", "-v", "-C", "1", "-W", "5")
    assert late.stdout == "open after\n"


def test_a_certificate_is_exchanged_without_dropping_who_is_there(need, pki, run, start, wait_for, tmp_path):
    need("mosquitto_pub", "mosquitto_sub")
    for name in ("server.pem", "server.key"):
        (tmp_path / name).write_bytes((pki / name).read_bytes())
    (tmp_path / "server.key").chmod(0o600)
    hub = run("broker: {listen: mqtts://127.0.0.1:{port}, tls: {cert: server.pem, key: server.key}}\n")
    trust = ["--cafile", f"{pki}/authority.pem"]
    ear = start("mosquitto_sub", "-h", "127.0.0.1", "-p", str(hub.port), *trust, "-t", "#", "-v", "-d", name="ear")
    wait_for(lambda: "SUBACK" in (tmp_path / "ear.log").read_text(), "the subscription")
    shown = serial_of(hub.port)
    for kind in ("pem", "key"):
        (tmp_path / f"server.{kind}").write_bytes((pki / f"pump.{kind}").read_bytes())
    hub.process.send_signal(signal.SIGHUP)
    wait_for(lambda: serial_of(hub.port) != shown, "the new certificate")
    mosquitto("mosquitto_pub", hub.port, *trust, "-t", "still", "-m", "here", "-q", "1")
    wait_for(lambda: "still here" in (tmp_path / "ear.log").read_text(), "a message to who was there before")
    assert (tmp_path / "ear.log").read_text().count("CONNACK") == 1
    assert ear.poll() is None


def serial_of(port):
    pem = ssl.get_server_certificate(("127.0.0.1", port))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number
