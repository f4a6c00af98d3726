"""The floor that the gateway is measured against: the same work as a bare loop, without store, quality or checks.

    python tests/bench/bare_loop.py MQTT_PORT EVERY_S SECONDS TAGS json|orjson DEVICE_PORT...

One epoll loop, blocking connects, both requests of a device in one send, one struct, one JSON document, one raw QoS 1
publish. It believes every answer. Prints one JSON line with its own CPU seconds and values.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import struct
import sys
import time
from pathlib import Path


def packet(kind: int, body: bytes) -> bytes:
    n, length = len(body), bytearray()
    while True:
        n, digit = divmod(n, 128)
        length.append(digit | (0x80 if n else 0))
        if not n:
            return bytes([kind]) + bytes(length) + body


def main(mqtt_port: int, every: float, seconds: float, ports: list[int], tags: int, dumps) -> None:
    registers = 2 * tags
    spans = [(first, min(124, registers - first)) for first in range(0, registers, 124)]
    request = b"".join(struct.pack(">HHHBBHH", k, 0, 6, 1, 3, first, count) for k, (first, count) in enumerate(spans))
    answer_size = sum(9 + 2 * count for _, count in spans)
    unpack = struct.Struct(f">{tags}f").unpack
    names = [f"t{i:03}" for i in range(tags)]

    mqtt = socket.create_connection(("127.0.0.1", mqtt_port))
    mqtt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    mqtt.sendall(packet(0x10, struct.pack(">H4sBBHH4s", 4, b"MQTT", 4, 2, 60, 4, b"bare")))
    mqtt.recv(4)
    epoll = select.epoll()
    mqtt.setblocking(False)
    epoll.register(mqtt, select.EPOLLIN)

    devices = {}
    for number, port in enumerate(ports):
        s = socket.create_connection(("127.0.0.1", port))
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        epoll.register(s, select.EPOLLIN)
        topic = f"bare/d{number:03}".encode()
        devices[s.fileno()] = (s, struct.pack(">H", len(topic)) + topic, bytearray())
    order = list(devices.values())

    started = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF)
    due = [started + every * i / len(order) for i in range(len(order))]
    turn = values = packet_id = 0
    while (now := time.monotonic()) - started < seconds:
        while due[turn] <= now:
            order[turn][0].send(request)
            due[turn] += every
            turn = (turn + 1) % len(order)
        for fd, _ in epoll.poll(max(0.0, due[turn] - now)):
            if fd == mqtt.fileno():
                mqtt.recv(65536)
                continue
            s, head, buffer = devices[fd]
            buffer += s.recv(4096)
            if len(buffer) < answer_size:
                continue
            raw, at = b"", 0
            for _, count in spans:
                raw += buffer[at + 9 : at + 9 + 2 * count]
                at += 9 + 2 * count
            del buffer[:]
            document = {"ts": time.time_ns() // 1_000_000, "values": dict(zip(names, unpack(raw), strict=True))}
            packet_id = packet_id % 65535 + 1
            mqtt.send(packet(0x32, head + struct.pack(">H", packet_id) + dumps(document)))
            values += tags
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    with Path("/proc/self/status").open() as status:  # ru_maxrss would count the parent's memory at the fork
        resident = int(status.read().partition("VmHWM:")[2].split()[0])
    print(json.dumps({"values": values, "cpu_s": cpu, "rss_kib": resident, "s": time.monotonic() - started}))


if __name__ == "__main__":
    mqtt_port, every, seconds, tags, encoder, *ports = sys.argv[1:]
    if encoder == "orjson":
        import orjson

        encode = orjson.dumps
    else:

        def encode(document: dict) -> bytes:
            return json.dumps(document, separators=(",", ":")).encode()

    main(int(mqtt_port), float(every), float(seconds), [int(port) for port in ports], int(tags), encode)
