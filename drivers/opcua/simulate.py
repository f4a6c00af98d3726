"""A simulated OPC UA server on loopback, for demo and tests: a conveyor with nine tags, one of which can be written.

A task of its own works the values out each half second, for a server has to tell of changes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from math import sin
from typing import Any

from asyncua.server.server import Server

from drivers.opcua.small_server import CURRENT_TIME, ENUMERATION, SmallServer, ua

HOST = "127.0.0.1"
NAMESPACE = "urn:headgate:demo"
MODES = ("Off", "Auto", "Hand")

_EVERY_S = 0.5
_TARGET = 0.8


@asynccontextmanager
async def simulate() -> AsyncIterator[dict[str, Any]]:
    """Run the server on a free port; gives the `devices` section of a gateway file that reads it."""
    logger = logging.getLogger("asyncua.server")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # a client that leaves is no news to us
    try:
        server: Any = Server(iserver=SmallServer())
        await server.init()
        server.set_endpoint(f"opc.tcp://{HOST}:0/")
        server.set_server_name("headgate demo")
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.set_identity_tokens([ua.AnonymousIdentityToken])
        server.disable_clock()  # it takes up to a second to stop; CurrentTime is told when it is read
        server.set_attribute_value_callback(ua.NodeId(CURRENT_TIME), _now)
        conveyor = await _Conveyor.build(server)
        await server.start()
        moving = asyncio.create_task(conveyor.run(), name="simulated conveyor")
        try:
            yield _devices(server.bserver.port)
        finally:
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)
            await server.stop()
    finally:
        logger.setLevel(level)


def _devices(port: int) -> dict[str, Any]:
    """What a gateway file says of it."""
    at = f"nsu={NAMESPACE};s=conveyor."
    return {
        "conveyor": {
            "driver": "opcua",
            "url": f"opc.tcp://{HOST}:{port}",
            "security": "none",
            "every": "1s",
            "tags": {
                "speed": {"address": f"{at}speed", "unit": "m/s", "decimals": 3},
                "target": {"address": f"{at}target", "unit": "m/s", "write": {"min": 0, "max": 2}},
                "current": {"address": f"{at}current", "unit": "A", "decimals": 2},
                "running": {"address": f"{at}running"},
                "mode": {"address": f"{at}mode"},
                "order": {"address": f"{at}order"},
                "pieces": {"address": f"{at}pieces"},
                "temperatures": {"address": f"{at}temperatures", "unit": "°C"},
                "message": {"address": "/Conveyor/message"},
            },
        }
    }


class _Conveyor:
    """The nodes and what they hold."""

    def __init__(self, server: Any, folder: Any, index: int) -> None:
        self._server = server
        self._folder = folder
        self._index = index
        self._started = time.monotonic()
        self._nodes: dict[str, Any] = {}
        self._held: dict[str, Any] = {}
        self._target: Any = None

    @classmethod
    async def build(cls, server: Any) -> _Conveyor:
        """Add the conveyor to a server's Objects."""
        index = await server.register_namespace(NAMESPACE)
        folder = await server.nodes.objects.add_folder(ua.NodeId("conveyor", index), f"{index}:Conveyor")
        made = cls(server, folder, index)
        kind = await made._mode_type()
        await made._add("target", ua.Variant(_TARGET, ua.VariantType.Double))
        made._target = server.get_node(made._nodes["target"])
        await made._target.set_writable()
        for name, value in (await made._values()).items():
            await made._add(name, value, kind if name == "mode" else None)
        return made

    async def run(self) -> None:
        """Move, until cancelled."""
        while True:
            for name, value in (await self._values()).items():
                if value != self._held[name]:
                    self._held[name] = value
                    await self._server.write_attribute_value(
                        self._nodes[name], ua.DataValue(value, SourceTimestamp=_utc())
                    )
            await asyncio.sleep(_EVERY_S)

    async def _values(self) -> dict[str, Any]:
        """What the nodes hold now; the speed follows the target."""
        t = time.monotonic() - self._started
        running = (t + 5) % 30 > 3
        target = await self._target.read_value()
        speed = target * (1 + 0.02 * sin(t)) if running else 0.0
        jammed = t % 120 > 110
        return {
            "speed": ua.Variant(speed, ua.VariantType.Double),
            "current": ua.Variant(4 + 3 * speed + 0.3 * sin(t / 3), ua.VariantType.Float),
            "running": ua.Variant(running, ua.VariantType.Boolean),
            "mode": ua.Variant(2 if jammed else int(running), ua.VariantType.Int32),
            "order": ua.Variant(f"A-{1001 + int(t / 90)}", ua.VariantType.String),
            "pieces": ua.Variant(48_000 + int(t * 0.7), ua.VariantType.UInt32),
            "temperatures": ua.Variant([round(40 + 5 * sin(t / 60 + i), 1) for i in range(3)], ua.VariantType.Double),
            "message": ua.Variant(ua.LocalizedText("Jam at the outfeed" if jammed else "Ready", "en")),
        }

    async def _mode_type(self) -> Any:
        """An enumeration that names its numbers in both of the ways there are [Part 3 8.14, 5.8.3]."""
        above: Any = self._server.get_node(ua.NodeId(ENUMERATION))
        node = await above.add_data_type(ua.NodeId("Mode", self._index), f"{self._index}:Mode")
        fields = [ua.EnumField(Name=name, Value=value) for value, name in enumerate(MODES)]
        await node.write_data_type_definition(ua.EnumDefinition(fields))
        await node.add_property(
            ua.NodeId("Mode.EnumStrings", self._index), "0:EnumStrings", [ua.LocalizedText(m) for m in MODES]
        )
        return node.nodeid

    async def _add(self, name: str, value: Any, kind: Any = None) -> None:
        node_id = ua.NodeId(f"conveyor.{name}", self._index)
        kind = kind or ua.NodeId(value.VariantType.value)
        await self._folder.add_variable(node_id, f"{self._index}:{name}", value, value.VariantType, kind)
        self._nodes[name] = node_id
        self._held[name] = value


def _utc() -> Any:
    """Now, as the library wants it."""
    return datetime.now(UTC)


def _now(_node: Any, _attribute: Any) -> Any:
    """CurrentTime when somebody reads it [Part 5 12.10]."""
    return ua.DataValue(ua.Variant(_utc(), ua.VariantType.DateTime), SourceTimestamp=_utc())
