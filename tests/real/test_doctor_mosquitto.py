"""`headgate doctor` against real programs: mosquitto with certificates made by openssl, and headgate's own broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


@pytest.fixture
def doctor(tmp_path):
    """`doctor(text)`: exit code and findings for a gateway file."""

    def ask(text):
        file = tmp_path / "plant.yaml"
        file.write_text(f"gateway: plant7\nspool: {{path: {tmp_path / 'spool'}}}\n{text}")
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "doctor", str(file), "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        return done.returncode, json.loads(done.stdout)["findings"]

    return ask


@pytest.fixture
def openssl(need, tmp_path):
    """`openssl("req …")` in the test's folder."""
    need("openssl")

    def run(command, **env):
        subprocess.run(
            ["openssl", *command.split()], cwd=tmp_path, capture_output=True, check=True, env=os.environ | env
        )

    return run


@pytest.fixture
def authority(openssl, tmp_path):
    """`authority(name, names, days)`: a server's certificate and key, `NAME.pem` and `NAME.key`, issued by ca.pem."""
    made = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    openssl(f"req -x509 {made} -keyout ca.key -out ca.pem -subj /CN=plant-ca -days 3650")

    def issue(name, names="DNS:localhost,IP:127.0.0.1", days=365):
        openssl(f"req {made} -keyout {name}.key -out {name}.csr -subj /CN={name}")
        (tmp_path / f"{name}.ext").write_text(f"subjectAltName={names}\n")
        signing = f"-CA ca.pem -CAkey ca.key -CAcreateserial -extfile {name}.ext -days {days}"
        openssl(f"x509 -req -in {name}.csr -out {name}.pem {signing}")
        (tmp_path / f"{name}.key").chmod(0o600)

    return issue


@pytest.fixture
def mosquitto(need, start, free_port, listening, wait_for, tmp_path):
    """`mosquitto(*lines)`: one that listens on a free port with these lines of configuration; the port."""
    need("mosquitto")

    def run(*lines):
        port = free_port()
        config = [f"listener {port} 127.0.0.1", *lines, *["user root"] * (os.geteuid() == 0)]
        path = tmp_path / f"mosquitto-{port}.conf"
        path.write_text("\n".join(config) + "\n")
        start("mosquitto", "-c", str(path), name=f"mosquitto-{port}")
        wait_for(lambda: listening(port), "mosquitto listens")
        return port

    return run


def uplink(url, more=""):
    """A gateway file with that uplink, and a device because there must be one."""
    device = "devices: {boiler: {driver: modbus, url: 'tcp://127.0.0.1:1', tags: {flow: 'holding:1'}}}"
    return f"{device}\nuplinks: {{cloud: {{url: '{url}'{more and ', '}{more}}}}}\n"


def texts(findings, state):
    return [f["text"] for f in findings if f["state"] == state and f["thing"] != "clock"]


def test_an_uplink_over_tls_is_looked_at_up_to_the_limits(doctor, mosquitto, authority, tmp_path):
    authority("server")
    files = [f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key"]
    port = mosquitto(*files, "allow_anonymous true", "max_packet_size 9000", "max_keepalive 600")
    code, found = doctor(uplink(f"mqtts://localhost:{port}", "tls: {ca: ca.pem}"))
    assert (code, texts(found, "wrong")) == (0, [])
    assert [text for text in texts(found, "warning") if "9000 bytes" in text]
    assert any("TLSv1.3" in text for text in texts(found, "ok"))
    assert any(text == "MQTT 5.0: accepted" for text in texts(found, "ok"))


@pytest.mark.parametrize(
    ("names", "tls", "host", "words"),
    [
        ("DNS:else.example.com", "{ca: ca.pem}", "localhost", "is for else.example.com, not for localhost"),
        ("DNS:localhost", "{}", "localhost", "not trusted"),
        ("DNS:localhost", "{ca: ca.pem}", "127.0.0.1", "is for localhost, not for 127.0.0.1"),
    ],
)
def test_a_certificate_that_does_not_fit_is_wrong(doctor, mosquitto, authority, tmp_path, names, tls, host, words):
    authority("server", names)
    port = mosquitto(f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key", "allow_anonymous true")
    code, found = doctor(uplink(f"mqtts://{host}:{port}", f"tls: {tls}"))
    assert code == 1
    assert any(words in text for text in texts(found, "wrong"))


def test_a_certificate_that_ends_soon_is_a_warning(doctor, mosquitto, authority, tmp_path):
    authority("server", days=12)
    port = mosquitto(f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key", "allow_anonymous true")
    code, found = doctor(uplink(f"mqtts://localhost:{port}", "tls: {ca: ca.pem}"))
    assert code == 0
    assert any("expires on" in text for text in texts(found, "warning"))


def test_a_login_that_is_refused_is_wrong_and_the_right_one_well(doctor, mosquitto, need, tmp_path):
    need("mosquitto_passwd")
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-c", "-b", str(passwords), "plant7", "s3cret"], check=True)
    port = mosquitto(f"password_file {passwords}", "allow_anonymous false")
    for word, expected in (("s3cret", 0), ("wrong", 1)):
        (tmp_path / "password").write_text(word)
        (tmp_path / "password").chmod(0o600)
        login = "username: plant7, password: '${file:password}'"
        code, found = doctor(uplink(f"mqtt://localhost:{port}", login))
        assert code == expected
        assert any("0x87" in text or "0x86" in text for text in texts(found, "wrong")) == bool(expected)


def test_client_certificates_are_used_and_their_lack_is_found(doctor, mosquitto, authority, tmp_path):
    authority("server")
    authority("gateway")
    files = [f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key", f"cafile {tmp_path}/ca.pem"]
    port = mosquitto(*files, "require_certificate true", "allow_anonymous true")
    for tls, expected in (("{ca: ca.pem, cert: gateway.pem, key: gateway.key}", 0), ("{ca: ca.pem}", 1)):
        code, found = doctor(uplink(f"mqtts://localhost:{port}", f"tls: {tls}"))
        assert code == expected, found


def test_the_running_gateways_own_broker_is_well_and_what_differs_from_the_file_is_told(
    doctor, authority, start, free_port, listening, wait_for, tmp_path
):
    authority("server")
    ports = [free_port() for _ in range(4)]
    listen = [
        f"{scheme}://127.0.0.1:{port}" for scheme, port in zip(("mqtt", "mqtts", "ws", "wss"), ports, strict=True)
    ]
    text = f"broker: {{listen: [{', '.join(listen)}], tls: {{cert: server.pem, key: server.key}}}}\n"
    assert doctor(text)[0] == 0
    gateway = start(sys.executable, "-m", "gateway", "run", str(tmp_path / "plant.yaml"), name="gateway")
    wait_for(lambda: all(listening(port) for port in ports), "the gateway listens")
    code, found = doctor(text)
    assert (code, texts(found, "wrong"), texts(found, "warning")) == (0, [], [])
    assert texts(found, "ok").count("answers, and accepts a client") == 4
    authority("server")  # renewed, and not yet read by the gateway
    assert len([text for text in texts(doctor(text)[1], "warning") if "another certificate" in text]) == 2
    (tmp_path / "users").write_text("")
    (tmp_path / "users").chmod(0o600)
    code, found = doctor(text.replace("tls:", "users: users, tls:"))
    assert code == 1
    assert len([text for text in texts(found, "wrong") if "let in" in text]) == 4
    gateway.terminate()
    gateway.wait(20)


def test_every_sys_topic_of_mosquitto_but_its_heap_is_one_of_ours(need, mosquitto):
    from gateway.broker.sys_topics import Figures, SysTopics

    need("mosquitto_sub")
    port = mosquitto("allow_anonymous true", "sys_interval 1")
    listed = subprocess.run(
        ["mosquitto_sub", "-p", str(port), "-t", "$SYS/#", "-F", "%t", "-W", "4"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    theirs = {topic for topic in listed if "/heap/" not in topic}
    ours = {topic for topic, _ in SysTopics("1.2", 0.0).say(Figures(), 0.0)}
    assert len(theirs) > 40
    assert theirs <= ours
