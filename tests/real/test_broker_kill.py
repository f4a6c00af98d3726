"""The broker killed with -9, again and again, under traffic: what was acknowledged arrives, QoS 2 once, in order."""

from __future__ import annotations

import random
import signal
import socket
import sys
import threading
import time

import pytest

from gateway.mqtt.client import ClientConnection
from gateway.mqtt.packets import (
    Connect,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Subscribe,
    Subscription,
)
from gateway.mqtt.properties import Properties

MESSAGES = 12_000
WINDOW = 12
KILLS = 6


class Person:
    """A client that remembers its session and comes back until it is told to stop."""

    def __init__(self, name, port):
        self.name, self.port = name, port
        self.connects = 0
        self.stop = threading.Event()
        self.failure = ""
        self.thread = threading.Thread(target=self._live, name=name, daemon=True)

    def _live(self):
        while not self.stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=0.2) as sock:
                    self._converse(sock)
            except OSError:
                time.sleep(0.02)

    def _converse(self, sock):
        connection = ClientConnection()
        connect = Connect(
            client_id=self.name, clean_start=self.connects == 0, properties=Properties(session_expiry=3600)
        )
        sock.sendall(connection.connect(connect))
        sock.settimeout(0.05)
        is_open = False
        while not self.stop.is_set():
            try:
                data = sock.recv(65536)
                if not data:
                    return
            except TimeoutError:
                data = b""
            connection.feed(data)
            out = []
            for packet in connection.events():
                if not is_open:
                    is_open = True
                    if self.connects and not packet.session_present:
                        self.failure = "the session is gone"
                        self.stop.set()
                        return
                    self.connects += 1
                    out += self.greet()
                else:
                    out += self.hear(packet)
            if is_open:
                out += self.more()
            if out:
                sock.sendall(b"".join(connection.send(packet) for packet in out))

    def more(self):
        return []


class Publisher(Person):
    def __init__(self, name, port, qos):
        super().__init__(name, port)
        self.qos = qos
        self.sent = self.done = 0
        self.flying = {}  # packet id -> payload, or None once PUBREC came

    def greet(self):
        return [
            Pubrel(number) if payload is None else Publish("chain/x", payload, self.qos, False, True, number)
            for number, payload in self.flying.items()
        ]

    def hear(self, packet):
        if isinstance(packet, Pubrec):
            self.flying[packet.packet_id] = None
            return [Pubrel(packet.packet_id)]
        if isinstance(packet, Puback | Pubcomp) and self.flying.pop(packet.packet_id, b"?") != b"?":
            self.done += 1
        return []

    def more(self):
        out = []
        while len(self.flying) < WINDOW and self.sent < MESSAGES:
            number = self.sent % 60000 + 1
            payload = str(self.sent).encode()
            self.flying[number] = payload
            out.append(Publish("chain/x", payload, self.qos, False, False, number))
            self.sent += 1
        return out


class Subscriber(Person):
    def __init__(self, name, port, qos):
        super().__init__(name, port)
        self.qos = qos
        self.got = []
        self.unreleased = set()

    def greet(self):
        return [Subscribe(1, (Subscription("chain/#", self.qos),))] if self.connects == 1 else []

    def hear(self, packet):
        if isinstance(packet, Publish):
            if packet.qos == 1:
                self.got.append(int(packet.payload))
                return [Puback(packet.packet_id)]
            if packet.packet_id not in self.unreleased:
                self.unreleased.add(packet.packet_id)
                self.got.append(int(packet.payload))
            return [Pubrec(packet.packet_id)]
        if isinstance(packet, Pubrel):
            self.unreleased.discard(packet.packet_id)
            return [Pubcomp(packet.packet_id)]
        return []


@pytest.mark.parametrize("qos", [1, 2])
def test_messages_survive_kill_9_of_the_broker(start, free_port, listening, wait_for, tmp_path, qos):
    port = free_port()
    file = tmp_path / "gateway.yaml"
    file.write_text(f"gateway: hub\nspool: {{path: {tmp_path}/spool}}\nbroker: {{listen: 'mqtt://127.0.0.1:{port}'}}\n")
    dice = random.Random(qos)

    def begin():
        process = start(sys.executable, "-m", "gateway", "run", str(file), name="gateway")
        wait_for(lambda: listening(port) or process.poll() is not None, "the broker to listen", 15)
        assert process.poll() is None, (tmp_path / "gateway.log").read_text()
        return process

    process = begin()
    subscriber, publisher = Subscriber("ear", port, qos), Publisher("mouth", port, qos)
    subscriber.thread.start()
    wait_for(lambda: subscriber.connects, "the subscriber")
    publisher.thread.start()
    try:
        for kill in range(1, KILLS + 1):
            wait_for(lambda kill=kill: publisher.done >= kill * MESSAGES // (KILLS + 2), "progress", 20)
            time.sleep(dice.random() * 0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process = begin()
        wait_for(lambda: publisher.done == MESSAGES or publisher.stop.is_set(), "all acknowledgements", 20)
        wait_for(lambda: len(set(subscriber.got)) == MESSAGES or subscriber.stop.is_set(), "all messages", 20)
    finally:
        for person in (publisher, subscriber):
            person.stop.set()
            person.thread.join(5)
    assert publisher.failure == subscriber.failure == ""
    assert publisher.connects > KILLS
    firsts = list(dict.fromkeys(subscriber.got))
    assert firsts == list(range(MESSAGES))
    if qos == 2:
        assert len(subscriber.got) == MESSAGES
