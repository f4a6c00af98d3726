"""The same password and ACL files for mosquitto and the embedded broker: who comes in and who may do what agrees."""

from __future__ import annotations

import os
import random
import signal
import ssl
import subprocess
import sys
import time
from typing import Self

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.subscribeoptions import SubscribeOptions

from gateway.broker.access import Guard, subject
from gateway.broker.client import Identity
from gateway.broker.options import Options
from gateway.clock import SystemClock

DENIED = 0x87
GATEWAY = [sys.executable, "-m", "gateway"]


@pytest.fixture
def brokers(need, start, free_port, listening, wait_for, tmp_path):
    """`brokers(acl)` starts mosquitto and the embedded broker over the files `acl` and `passwd`; gives their ports."""
    need("mosquitto", "mosquitto_passwd")

    def begin(acl: str, *, is_open: bool = True) -> dict[str, int]:
        file = tmp_path / "acl"
        file.write_text(acl)
        file.chmod(0o640)
        anonymous = str(is_open).lower()
        ports = {"mosquitto": free_port(), "headgate": free_port()}
        config = [
            f"listener {ports['mosquitto']} 127.0.0.1",
            f"allow_anonymous {anonymous}",
            f"password_file {tmp_path}/passwd",
            f"acl_file {file}",
            "set_tcp_nodelay true",
            *(["user root"] * (os.geteuid() == 0)),  # else it gives up its rights and cannot read our files
        ]
        (tmp_path / "mosquitto.conf").write_text("\n".join(config))
        (tmp_path / "gateway.yaml").write_text(
            f"gateway: hub\nspool: {{path: {tmp_path}/spool}}\nbroker:\n  listen: mqtt://127.0.0.1:{ports['headgate']}\n"
            f"  users: {tmp_path}/passwd\n  acl: {file}\n  anonymous: {anonymous}\n"
        )
        start("mosquitto", "-c", str(tmp_path / "mosquitto.conf"), name="mosquitto")
        start(*GATEWAY, "run", str(tmp_path / "gateway.yaml"), name="gateway")
        for name, port in ports.items():
            wait_for(lambda port=port: listening(port), f"{name} to listen", 15)
        return ports

    return begin


@pytest.fixture
def people(tmp_path):
    """`people("a", "b")` makes a password file as mosquitto 2.0 has it; everybody's password is the name backwards."""

    def write(*names: str) -> None:
        file = tmp_path / "passwd"
        file.write_text("".join(f"{name}:{name[::-1]}\n" for name in names))
        file.chmod(0o600)
        subprocess.run(["mosquitto_passwd", "-U", str(file)], check=True, capture_output=True, timeout=60)

    return write


class Person:
    """A client that waits for each answer."""

    def __init__(
        self, port: int, client_id: str, username: str | None, password: str | None = None, address: str = "127.0.0.1"
    ) -> None:
        self._got: set[str] = set()
        self._codes: list[int] = []
        self._ends: list[int] = []
        self._client = client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
        if username is not None:
            client.username_pw_set(username, username[::-1] if password is None else password)
        client.on_connect = lambda c, u, f, code, p: self._codes.append(code.value)
        client.on_publish = lambda c, u, mid, code, p: self._codes.append(code.value)
        client.on_subscribe = lambda c, u, mid, codes, p: self._codes.append(codes[0].value)
        client.on_unsubscribe = lambda c, u, mid, codes, p: self._codes.append(0)
        client.on_disconnect = lambda c, u, f, code, p: self._ends.append(code.value)
        client.on_message = lambda c, u, message: self._got.add(message.topic)
        client.connect("127.0.0.1", port, bind_address=address)
        self.code = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop(0.01)

    def _answer(self) -> int:
        deadline = time.monotonic() + 20
        while not self._codes:
            assert self._client.loop(0.1) == paho.MQTT_ERR_SUCCESS or self._codes
            assert time.monotonic() < deadline, "no answer"
        return self._codes.pop()

    def ended(self) -> int:
        """The reason of the DISCONNECT that the broker sent."""
        deadline = time.monotonic() + 20
        while not self._ends:
            self._client.loop(0.1)
            assert time.monotonic() < deadline, "no DISCONNECT"
        return self._ends[0]

    def publish(self, topic: str) -> int:
        self._client.publish(topic, b"x", qos=1)
        return self._answer()

    def subscribe(self, filter_: str) -> int:
        self._client.subscribe(filter_, options=SubscribeOptions(qos=0))
        return self._answer()

    def received(self) -> set[str]:
        """The topics that came since the last time: all that the broker handled before now."""
        self._client.unsubscribe("nothing")
        self._answer()
        got, self._got = self._got & set(TOPICS), set()
        return got


TOPICS = [
    "a",
    "b",
    "a/a",
    "a/b",
    "b/a",
    "b/b",
    "a/b/a",
    "b/a/b/a",
    "/",
    "a/",
    "/a",
    "$x",
    "$x/a",
    "$SYS/x",
    "own/alice",
]
TOPICS += ["dev/c1", "dev/c1/a", "dev/u3", "u/u3", "u/u3/a", "all", "dev/a/b"]
EVERYTHING = ["#", "$x/#", "$SYS/x"]
ROOT = "user root\ntopic readwrite #\ntopic readwrite $x/#\ntopic readwrite $SYS/#\n"

HAND_MADE = """\
# anonymous clients first
topic read a/#
topic write b/+
topic deny a/b

user u0
topic a/#
topic deny a/b/#
user u1
topic read +/+
topic write #
topic deny +/b
user u2
topic readwrite $x/#
topic read $SYS/#
topic write $SYS/#
user u3

pattern readwrite dev/%c/#
pattern read u/%u
pattern write all
pattern deny dev/%c/a
user u0
topic read own/alice
"""


def random_file(number: int) -> str:
    """Rules for 24 users and anonymous clients, and every other time patterns, that nobody would think of."""
    draw = random.Random(number)

    def rules(word: str, count: int) -> list[str]:
        lines = []
        for _ in range(count):
            levels = [draw.choice(["a", "b", "+", "a", "b", "$x", ""]) for _ in range(draw.randint(1, 3))]
            if word == "pattern":
                levels[draw.randrange(len(levels))] = draw.choice(["%c", "%u", "a"])
            if draw.random() < 0.4:
                levels.append("#")
            right = draw.choice(["read", "write", "readwrite", "deny", ""])
            if any(levels):
                lines.append(f"{word} {right} {'/'.join(levels)}")
        return lines

    lines = rules("topic", 3)
    for user in range(24):
        lines += [f"user u{user}", *rules("topic", draw.randint(0, 5))]
    if number % 2:
        lines += rules("pattern", 4)
    draw.shuffle(lines) if number == 5 else None
    return "\n".join(lines) + "\n"


def what_may(port: int, who: tuple[str, str | None], root: Person) -> dict[str, str]:
    """Find out by trying: `r` where a message on the topic arrives, `w` where one is taken. `root` gets everything."""
    with Person(port, *who) as person:
        assert person.code == 0
        for filter_ in EVERYTHING:
            person.subscribe(filter_)
        for topic in TOPICS:
            root.publish(topic)
        assert root.received() == set(TOPICS) - {"$SYS/x"}
        readable = person.received()
        codes = {topic: person.publish(topic) for topic in TOPICS}
        writable = root.received()
        assert writable == {topic for topic, code in codes.items() if code != DENIED}
    return {topic: "r" * (topic in readable) + "w" * (topic in writable) for topic in TOPICS}


@pytest.mark.parametrize("file", [HAND_MADE, *map(random_file, range(6))], ids=["by hand", *map(str, range(6))])
def test_the_same_rules_allow_the_same(brokers, people, tmp_path, file):
    users = [f"u{n}" for n in range(24 if file is not HAND_MADE else 4)]
    odd = ["+", "u#", "a/b", "b a"]
    people("root", *users, *odd)
    ports = brokers(file + ROOT)
    everybody = [(f"c{n}", name) for n, name in enumerate(users)]
    everybody += [
        ("c1", None),
        ("a", None),
        ("a", "u3"),
        ("+", "u3"),
        ("x#", "u3"),
        ("c1", "+"),
        ("c1", "u#"),
        ("c1", "b a"),
    ]
    found = {}
    for broker, port in ports.items():
        with Person(port, "root", "root") as root:
            for filter_ in EVERYTHING:
                assert root.subscribe(filter_) == 0
            found[broker] = {who: what_may(port, who, root) for who in everybody}
    guard = Guard(Options(listen=(), users=tmp_path / "passwd", acl=tmp_path / "acl"), clock=SystemClock())
    said = {
        (client_id, name): {
            topic: "r" * (guard.may_read(who, topic) and topic != "$SYS/x") + "w" * guard.may_publish(who, topic)
            for topic in TOPICS
            for who in [Identity(client_id, name)]
        }
        for client_id, name in everybody
    }
    guard.close()
    for who in everybody:
        assert found["headgate"][who] == found["mosquitto"][who] == said[who], who
    assert {right for rights in said.values() for right in rights.values()} >= {"", "r", "w", "rw"}


def test_a_client_id_with_a_slash_gets_less_than_from_mosquitto(brokers, people):
    """There `a/b` is inside the topics of client `a`."""
    people("root", "u")
    ports = brokers(ROOT + "pattern readwrite dev/%c/#\n")
    found = {}
    for broker, port in ports.items():
        with Person(port, "root", "root") as root, Person(port, "a/b", "u") as person:
            root.subscribe("#")
            person.publish("dev/a/b")
            found[broker] = root.received()
    assert found == {"mosquitto": {"dev/a/b"}, "headgate": set()}


def test_subscribing_is_refused_only_where_mosquitto_would_grant_in_vain(brokers, people):
    people("root", "u0")
    ports = brokers(HAND_MADE + ROOT)
    filters = ["#", "a/#", "a/+/x", "a/b/#", "b/#", "own/+", "dev/c1/#", "dev/c1/a", "dev/c2/#", "$x/#", "$share/g/a/#"]
    with Person(ports["headgate"], "c1", "u0") as person:
        codes = {filter_: person.subscribe(filter_) for filter_ in [*filters, "$share/g/b/#"]}
    refused = {filter_ for filter_, code in codes.items() if code == DENIED}
    assert refused == {"a/b/#", "b/#", "dev/c1/a", "dev/c2/#", "$x/#", "$share/g/b/#"}
    with Person(ports["mosquitto"], "c1", "u0") as person, Person(ports["mosquitto"], "r", "root") as root:
        for filter_ in refused:
            assert person.subscribe(filter_) == 0
        for topic in TOPICS:
            root.publish(topic)
        root.received()
        assert person.received() == set()


def test_the_same_people_come_in(brokers, people, tmp_path):
    """With files that mosquitto_passwd made and that `headgate passwd` changed."""
    people("alice", "with blank", "ümlaut")
    passwd = tmp_path / "passwd"
    for name, word in (("bob", "secret"), ("carol", "p:ä$ ")):
        given = f"{word}\n".encode()
        command = [*GATEWAY, "passwd", str(passwd), name, "--stdin", "--hash", "pbkdf2"]
        subprocess.run(command, input=given, check=True, capture_output=True, timeout=60)
    subprocess.run(["mosquitto_passwd", "-b", str(passwd), "dave", "word"], check=True, timeout=60)
    ports = brokers("topic #\n", is_open=False)
    tries = [
        ("alice", "ecila"),
        ("alice", "alice"),
        ("alice", ""),
        ("with blank", "knalb htiw"),
        ("with blank ", "knalb htiw"),
        ("ümlaut", "tualmü"),
        ("bob", "secret"),
        ("bob", "Secret"),
        ("carol", "p:ä$ "),
        ("carol", "p:ä$"),
        ("dave", "word"),
        ("nobody", "word"),
        ("", ""),
        (None, None),
    ]
    found = {}
    for broker, port in ports.items():
        found[broker] = []
        for number, (username, password) in enumerate(tries):
            address = f"127.0.0.{number + 2}"  # each from elsewhere: the second failure of an address is answered late
            with Person(port, "c", username, password, address) as person:
                found[broker].append(person.code == 0)
    assert found["headgate"] == found["mosquitto"]
    assert found["headgate"] == [
        True,
        False,
        False,
        True,
        False,
        True,
        True,
        False,
        True,
        False,
        True,
        False,
        False,
        False,
    ]


def test_mosquitto_reads_and_changes_what_headgate_passwd_wrote(need, tmp_path):
    need("mosquitto_passwd")
    passwd = tmp_path / "passwd"
    for name in ("alice", "bob"):
        command = [*GATEWAY, "passwd", str(passwd), name, "--stdin", "--hash", "pbkdf2"]
        subprocess.run(command, input=b"x\n", check=True, capture_output=True, timeout=60)
    subprocess.run(["mosquitto_passwd", "-D", str(passwd), "alice"], check=True, timeout=60)
    listed = subprocess.run([*GATEWAY, "passwd", str(passwd), "--list"], check=True, capture_output=True, timeout=60)
    assert listed.stdout == b"bob: $7$\n"


SUBJECTS = [
    "/C=GB/ST=Derbyshire/L=Derby/O=Works, Ltd/OU=Pumps/CN=pump 1",
    "/DC=org/DC=works/UID=4711/CN=pümp日本/emailAddress=a@works.org",
    '/CN=#1 \\+ "a" <b>;\\\\c=d/serialNumber=7/title= x ',
    "/O=Works/GN=Ada+SN=Byron+initials=A/street=Main 1/postalCode=12/dnQualifier=q/pseudonym=p/name=n",
    "/CN=a\tb\x7f/description=d/organizationIdentifier=o/generationQualifier=III",
]


@pytest.mark.parametrize("text", SUBJECTS)
def test_a_subject_is_written_as_openssl_writes_it(need, tmp_path, text):
    need("openssl")
    cert = tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(tmp_path / "key.pem")]
    make += ["-out", str(cert), "-utf8", "-multivalue-rdn", "-subj", text]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    show = ["openssl", "x509", "-in", str(cert), "-noout", "-subject", "-nameopt", "RFC2253"]
    said = subprocess.run(show, check=True, capture_output=True, text=True, timeout=60).stdout
    decoded = ssl._ssl._test_decode_cert(str(cert))  # what getpeercert() gives, without a connection
    assert subject(decoded) == said.removeprefix("subject=").rstrip("\n")


def test_what_is_changed_in_the_files_holds_for_those_who_are_connected(brokers, people, tmp_path, wait_for):
    people("root", "alice", "bob")
    passwd, acl = tmp_path / "passwd", tmp_path / "acl"
    port = brokers(ROOT + "user alice\ntopic read a/#\nuser bob\ntopic read a/#\n")["headgate"]
    log = tmp_path / "gateway.log"
    [gateway] = [p for p in psutil.Process().children() if "gateway" in p.cmdline()]

    def reload(says: str) -> None:
        before = log.read_text().count(says)
        gateway.send_signal(signal.SIGHUP)
        wait_for(lambda: log.read_text().count(says) > before, f"the log to say: {says}")

    with Person(port, "r", "root") as root, Person(port, "a", "alice") as alice, Person(port, "b", "bob") as bob:
        for person in (alice, bob):
            assert person.subscribe("a/#") == 0
        root.publish("a/b")
        assert (alice.received(), bob.received()) == ({"a/b"}, {"a/b"})

        acl.write_text("no rule at all\n")
        reload("acl:1: ")
        root.publish("a/a")
        assert (alice.received(), bob.received()) == ({"a/a"}, {"a/a"})

        acl.write_text(ROOT + "user alice\ntopic read a/a\n")
        subprocess.run(
            [*GATEWAY, "passwd", str(passwd), "bob", "--delete"], check=True, capture_output=True, timeout=60
        )
        reload("are read anew")
        root.publish("a/b")
        root.publish("a/a")
        assert alice.received() == {"a/a"}
        assert bob.ended() == DENIED
    with Person(port, "b", "bob") as bob:
        assert bob.code == 0x86
