"""Clients that misbehave, each a process of its own: abusers.py WHAT PORT [NUMBER]. Says `ready`; ends when told to."""

import resource
import selectors
import socket
import struct
import sys
import time


def field(text):
    data = text.encode()
    return struct.pack("!H", len(data)) + data


def packet(first, body):
    length = b""
    size = len(body)
    while True:
        size, digit = divmod(size, 128)
        length += bytes((digit | (128 if size else 0),))
        if not size:
            return bytes((first,)) + length + body


def connect(name, keep_alive=0):
    return packet(0x10, field("MQTT") + b"\x04\x02" + struct.pack("!H", keep_alive) + field(name))


def subscribe(topic, qos=0):
    return packet(0x82, b"\x00\x01" + field(topic) + bytes((qos,)))


def publish(topic, payload, flags=0):
    return packet(0x30 | flags, field(topic) + payload)


def dial(port, name):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(connect(name))
    answer = sock.recv(4, socket.MSG_WAITALL)
    assert answer[:1] == b"\x20", answer
    assert answer[3] == 0, answer
    return sock


def ready():
    print("ready", flush=True)


def idle(port, count):
    """Connections with one subscription that say nothing."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, count + 100), limit))
    socks = [dial(port, f"idle{i}") for i in range(count)]
    for i, sock in enumerate(socks):
        sock.sendall(subscribe(f"idle/{i}"))
        sock.recv(5, socket.MSG_WAITALL)
    ready()
    sys.stdin.read()


def flood(port, _count):
    """One client that publishes as fast as the socket takes it."""
    sock = dial(port, "flood")
    data = publish("flood/x", b"x" * 64) * 1000
    ready()
    while True:
        sock.sendall(data)


def deaf(port, _count):
    """A subscriber that takes nothing, and a publisher for it."""
    ear, mouth = dial(port, "deaf"), dial(port, "mouth")
    ear.sendall(subscribe("deaf/#", 1))
    data = publish("deaf/x", b"x" * 1000) * 100
    ready()
    while True:
        mouth.sendall(data)
        time.sleep(0.002)


def knock(port, _count):
    """Connections that come and go, and half packets, as fast as they can."""
    ready()
    number = 0
    while True:
        number += 1
        try:
            sock = socket.create_connection(("127.0.0.1", port), timeout=1)
            hello = connect(f"knock{number % 500}")
            sock.sendall(hello if number % 3 else hello[: number % len(hello)])
            sock.close()
        except OSError:
            time.sleep(0.001)


def retained(port, count):
    """Makes `count` retained messages; then at each line read, subscribes to all and says how long it took (s)."""
    mouth = dial(port, "keeper")
    for i in range(count):
        mouth.sendall(packet(0x33, field(f"kept/{i}") + struct.pack("!H", i % 60000 + 1) + b"x" * 64))
        mouth.recv(4, socket.MSG_WAITALL)
    size = sum(len(publish(f"kept/{i}", b"x" * 64)) for i in range(count))
    ready()
    for number, _ in enumerate(sys.stdin):
        ear = dial(port, f"late{number}")
        started = time.perf_counter()
        ear.sendall(subscribe("kept/#"))
        got = -5  # SUBACK
        while got < size:
            data = ear.recv(1 << 20)
            assert data
            got += len(data)
        print(time.perf_counter() - started, flush=True)
        ear.close()


def half(port, count):
    """Connections that begin a large packet and never end it."""
    socks = []
    for i in range(count):
        sock = dial(port, f"half{i}")
        sock.sendall(b"\x30\xff\xff\x3f" + b"x" * 100)
        socks.append(sock)
    ready()
    with selectors.DefaultSelector():
        sys.stdin.read()


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
