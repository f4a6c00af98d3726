"""An OPC UA server on asyncua in a process of its own: `asyncua_server.py SETTINGS`, a JSON object.

Settings and orders are those of servers.py beside it. One JSON object a line goes out: {"ready": true} first, then an
answer to each order that comes in. What asyncua's server cannot do, it does not do: limits are told and not kept, there
is no browsing in parts, every write is a change of value.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import resource
import socket
import sys
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from asyncua import Server, ua
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.crypto.truststore import TrustStore
from asyncua.crypto.validator import CertificateValidator, CertificateValidatorOptions
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

PLANT = "urn:headgate:tests:plant"
HERE = Path(__file__).parent
DEFAULTS: dict[str, Any] = {
    "counters": 0, "period": 100, "history": 0, "capacity": 100000, "policies": ["None"], "modes": ["None"],
    "namespaces": [PLANT], "anonymous": True, "users": {}, "types": True, "tree": [0, 0], "paused": False, "limits": {},
    "trusted": None, "users_trusted": None, "certificate": None, "key": None, "since": None,
}  # fmt: skip
LIMITS = {
    "maxNodesPerRead": 11705, "maxNodesPerWrite": 11707, "maxNodesPerBrowse": 11710,
    "maxNodesPerTranslateBrowsePathsToNodeIds": 11712, "maxMonitoredItemsPerCall": 11714,
    "maxNodesPerHistoryReadData": 12165,
}  # fmt: skip
"""Their nodes in every server [Part 5 6.3.11]."""


def node_id(text: str) -> ua.NodeId:
    return ua.NodeId.from_string(text)


ONE: dict[str, Any] = {
    "Int64": int, "UInt64": int, "StatusCode": ua.StatusCode, "ByteString": base64.b64decode,
    "XmlElement": ua.XmlElement, "LocalizedText": ua.LocalizedText,
    "DateTime": datetime.fromisoformat, "Guid": uuid.UUID, "NodeId": node_id,
    "ExpandedNodeId": lambda text: ua.ExpandedNodeId(int(text.removeprefix("i="))),
    "QualifiedName": lambda text: ua.QualifiedName(text.partition(":")[2], int(text.partition(":")[0])),
}  # fmt: skip
"""How a value of values.json becomes one of asyncua's, where it does not stay as it is."""


def variant(kind: str, value: Any) -> ua.Variant:
    """A value as the settings write it."""
    turn = ONE.get(kind, lambda v: v)
    many = isinstance(value, list)
    return ua.Variant([turn(v) for v in value] if many else turn(value), ua.VariantType[kind], is_array=many)


class Users:
    """Who may log in. A user certificate is good where its file lies in the folder."""

    def __init__(self, settings: SimpleNamespace) -> None:
        self.settings = settings
        folder = settings.users_trusted
        self.trusted = {file.read_bytes() for file in Path(folder).iterdir()} if folder else set()

    def get_user(
        self, _server: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> User | None:
        """The user, or None to refuse."""
        if username is not None:
            return User(UserRole.Admin) if self.settings.users.get(username) == password else None
        der = certificate.public_bytes(Encoding.DER) if isinstance(certificate, x509.Certificate) else certificate
        if der in self.trusted:
            return User(UserRole.Admin)
        return User(UserRole.Admin) if self.settings.anonymous else None


class Plant:
    """The server and what is in it."""

    def __init__(self, settings: SimpleNamespace) -> None:
        self.settings = settings
        self.server = Server(user_manager=Users(settings))  # type: ignore[arg-type]
        self.counters: list[ua.NodeId] = []
        self.count = 0
        self.started = 0.0
        self.ticking: asyncio.Task[None] | None = None
        self.nodes: dict[str, Any] = {}

    async def prepare(self) -> None:
        """Everything up to listening."""
        own, server = self.settings, self.server
        await server.init()
        server.set_endpoint(f"opc.tcp://127.0.0.1:{own.port}/")
        await self._secure()
        for uri in own.namespaces:
            await server.register_namespace(uri)
        self.index = await server.get_namespace_index(PLANT)
        self.folder = await server.nodes.objects.add_folder(self._id("Plant"), f"{self.index}:Plant")
        for name, limit in own.limits.items():
            await self._write(ua.NodeId(LIMITS[name]), ua.Variant(limit, ua.VariantType.UInt32))
        if own.types:
            await self._add_types()
        await self._add_tree(*own.tree)
        for i in range(own.counters):
            if i and i % 500 == 0:  # the library looks through all of a folder whenever it adds to it
                self.folder = await server.nodes.objects.add_folder(self._id(f"More.{i}"), f"{self.index}:More{i}")
            node = await self._add(f"counter.{i}", ua.Variant(0, ua.VariantType.UInt32))
            self.counters.append(node.nodeid)
            if i < own.history:
                await self._remember(node)

    async def _secure(self) -> None:
        own, server = self.settings, self.server
        types = {
            f"{policy.replace('_', '')}_{mode}".replace("None_None", "NoSecurity")
            for policy in own.policies
            for mode in own.modes
            if (policy == "None") == (mode == "None")
        }
        server.set_security_policy([ua.SecurityPolicyType[name] for name in types])
        tokens = [ua.AnonymousIdentityToken] if own.anonymous else []
        server.set_identity_tokens(
            tokens
            + ([ua.UserNameIdentityToken] if own.users else [])
            + ([ua.X509IdentityToken] if own.users_trusted else [])
        )
        if types != {"NoSecurity"}:
            folder = Path(own.folder)
            certificate, key = own.certificate or folder / "server.der", own.key or folder / "server.pem"
            if not own.certificate:
                await server.set_application_uri("urn:headgate:tests:asyncua")
                usage, names = [ExtendedKeyUsageOID.SERVER_AUTH], {"commonName": "asyncua", "organizationName": "tests"}
                await setup_self_signed_certificate(
                    key, certificate, server.get_application_uri(), "127.0.0.1", usage, names
                )
            await server.load_certificate(certificate)
            await server.load_private_key(key)
        if own.trusted:
            store = TrustStore([Path(own.trusted)], [])
            await store.load()
            options = CertificateValidatorOptions.TRUSTED_VALIDATION | CertificateValidatorOptions.PEER_CLIENT
            server.set_certificate_validator(CertificateValidator(options, store))

    async def _add(
        self, name: str, value: ua.Variant, datatype: ua.NodeId | None = None, *, writable: bool = True
    ) -> Any:
        node = await self.folder.add_variable(
            self._id(name), f"{self.index}:{name}", value, value.VariantType, datatype or _base(value)
        )
        if writable:
            await node.set_writable()
        self.nodes[name] = node
        return node

    async def _remember(self, node: Any) -> None:
        """Keep a history that is filled where the counter ticks: asyncua's own is a subscription for each node."""
        history = self.server.iserver.history_manager
        await history.storage.new_historized_node(node.nodeid, None, self.settings.capacity)
        await node.write_attribute(ua.AttributeIds.Historizing, ua.DataValue(True))
        for attribute in (ua.AttributeIds.AccessLevel, ua.AttributeIds.UserAccessLevel):
            await node.set_attr_bit(attribute, ua.AccessLevel.HistoryRead)

    async def _add_types(self) -> None:
        values = json.loads((HERE / "values.json").read_text())
        for kind, (scalar, array) in values.items():
            for name, value in ((kind, scalar), (f"{kind}.array", array)):
                await self._add(f"type.{name}", variant(kind, value))
                await self._add(f"write.{name}", variant(kind, value))
        await self._add("type.empty", ua.Variant([], ua.VariantType.Int32, is_array=True))
        await self._add("type.null", ua.Variant(), ua.NodeId(ua.ObjectIds.BaseDataType))
        both = [ua.Variant(1, ua.VariantType.Int16), ua.Variant("two", ua.VariantType.String)]
        await self._add("type.variants", ua.Variant(both, ua.VariantType.Variant, is_array=True))
        await self._add("type.matrix", ua.Variant([[1, 2, 3], [4, 5, 6]], ua.VariantType.Int32))
        await self._add_structures()
        for name, code in (("bad", "BadSensorFailure"), ("uncertain", "UncertainLastUsableValue")):
            node = await self._add(name, ua.Variant(1.5, ua.VariantType.Double))
            await self._set(node.nodeid, ua.Variant(1.5, ua.VariantType.Double), getattr(ua.StatusCodes, code))
        analog = await self._add("analog", ua.Variant(100.0, ua.VariantType.Double))
        await analog.add_property(ua.NodeId(0, 0), "0:EURange", ua.Range(0.0, 200.0))
        unit = ua.EUInformation("http://www.opcfoundation.org/UA/units/un/cefact", 4408652, ua.LocalizedText())
        await analog.add_property(ua.NodeId(0, 0), "0:EngineeringUnits", unit)
        await self._add("readonly", ua.Variant(1.0, ua.VariantType.Double), writable=False)
        await self.appear({"node": "vanishing"})

    async def _add_structures(self) -> None:
        await self.server.import_xml(HERE / "types.xml")
        await self.server.load_data_type_definitions()
        types = await self.server.get_namespace_index("urn:headgate:tests:types")
        make: Any = lambda n: ua.Recipe(  # noqa: E731
            Name=f"r{n}", Count=n, Ratio=n / 2, Where=ua.Position(X=1.5, Y=float(-n)), Steps=["mix", "heat"]
        )
        recipe = ua.NodeId(3002, types)
        for name in ("type.structure", "write.structure"):
            await self._add(name, ua.Variant(make(1), ua.VariantType.ExtensionObject), recipe)
        many = ua.Variant([make(1), make(2)], ua.VariantType.ExtensionObject, is_array=True)
        await self._add("type.structure.array", many, recipe)
        for name, datatype, value in (("Mode", 3003, 1), ("Grade", 3004, 20), ("beyond", 3003, 7)):
            for kind in ("type", "write"):
                held = ua.Variant(value, ua.VariantType.Int32)
                await self._add(f"{kind}.{name}", held, ua.NodeId(datatype, types))

    async def _add_tree(self, folders: int, leaves: int) -> None:
        if not folders:
            return
        root = await self.folder.add_folder(self._id("Tree"), f"{self.index}:Tree")
        for f in range(folders):
            branch = await root.add_folder(self._id(f"Tree.F{f}"), f"{self.index}:F{f}")
            for leaf in range(leaves):
                await branch.add_variable(self._id(f"Tree.F{f}.L{leaf}"), f"{self.index}:L{leaf}", float(leaf))

    def _id(self, name: str) -> ua.NodeId:
        return ua.NodeId(name, self.index)

    async def _set(self, node: ua.NodeId, value: ua.Variant, code: int = 0, when: datetime | None = None) -> None:
        now = datetime.now(UTC)
        status = ua.StatusCode(code)
        held = ua.DataValue(value, status, SourceTimestamp=when or now, ServerTimestamp=now)
        await self.server.write_attribute_value(node, held)

    async def _write(self, node: ua.NodeId, value: ua.Variant) -> None:
        await self.server.write_attribute_value(node, ua.DataValue(value))

    # --- counters: the k-th value is k, its source time is start + k * period, whenever the timer really came

    async def _tick(self) -> None:
        period = self.settings.period / 1000
        storage = self.server.iserver.history_manager.storage
        while True:
            while time.time() >= self.started + (self.count + 1) * period:
                self.count += 1
                when = datetime.fromtimestamp(round(self.started, 3), UTC) + timedelta(
                    milliseconds=self.count * self.settings.period
                )
                value = ua.Variant(self.count, ua.VariantType.UInt32)
                held = ua.DataValue(value, ua.StatusCode(0), SourceTimestamp=when, ServerTimestamp=when)
                for i, node in enumerate(self.counters):
                    await self.server.write_attribute_value(node, held)
                    if i < self.settings.history:
                        await storage.save_node_value(node, held)
                await asyncio.sleep(0)  # where it does not keep up, it is late, and still answers
            await asyncio.sleep(max(0.001, self.started + (self.count + 1) * period - time.time()))

    # --- orders

    async def go(self, _order: Any) -> None:
        """Let the counters run."""
        await self.stop(_order)
        since = None if self.count else self.settings.since
        self.started = since / 1000 if since else round(time.time() - self.count * self.settings.period / 1000, 3)
        self.ticking = asyncio.create_task(self._tick())

    async def stop(self, _order: Any) -> dict[str, Any]:
        """Hold the counters."""
        if self.ticking is not None:
            self.ticking.cancel()
            await asyncio.gather(self.ticking, return_exceptions=True)
            self.ticking = None
        return {"count": self.count}

    async def set(self, order: dict[str, Any]) -> None:
        """Give a node a value, a status and a source time."""
        when = datetime.fromisoformat(order["time"]) if "time" in order else None
        code = getattr(ua.StatusCodes, order.get("status", "Good"))
        await self._set(self.nodes[order["node"]].nodeid, variant(order["type"], order["value"]), code, when)

    async def get(self, order: dict[str, Any]) -> dict[str, Any]:
        """What a node holds, as text."""
        return {"value": str(await self.nodes[order["node"]].read_value())}

    async def kill_session(self, order: dict[str, Any]) -> dict[str, Any]:
        """End every session that came from outside."""
        sessions = list(self.server.iserver._external_sessions.values())
        for session in sessions:
            await session.close_session(not order.get("keep_subscriptions"))
        return {"killed": len(sessions)}

    def _subscriptions(self) -> dict[int, Any]:
        return dict(self.server.iserver.subscription_service.subscriptions)

    async def drop_subscription(self, _order: Any) -> dict[str, Any]:
        """Delete every subscription."""
        ids = list(self._subscriptions())
        await self.server.iserver.subscription_service.delete_subscriptions(ids)
        return {"dropped": len(ids)}

    async def drop_items(self, _order: Any) -> dict[str, Any]:
        """Delete every monitored item."""
        dropped = 0
        for subscription in self._subscriptions().values():
            items = subscription.monitored_item_srv
            ids = list(items._monitored_items)
            items.delete_monitored_items(ids)
            dropped += len(ids)
        return {"dropped": dropped}

    async def vanish(self, order: dict[str, Any]) -> None:
        """Delete a node."""
        await self.server.delete_nodes([self.nodes.pop(order["node"])])

    async def appear(self, order: dict[str, Any]) -> None:
        """Add a node, an Int32 of 1."""
        await self._add(order["node"], ua.Variant(1, ua.VariantType.Int32))

    async def state(self, _order: Any) -> dict[str, Any]:
        """How far the counters are, who is connected, what it cost."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        subscriptions = self._subscriptions().values()
        return {
            "count": self.count,
            "started": round(self.started * 1000),
            "sessions": len(self.server.iserver._external_sessions),
            "subscriptions": len(subscriptions),
            "items": sum(len(s.monitored_item_srv._monitored_items) for s in subscriptions),
            "cpu_s": used.ru_utime + used.ru_stime,
            "rss": used.ru_maxrss * 1024,
        }


def _base(value: ua.Variant) -> ua.NodeId:
    """The data type of a built-in type has its number."""
    return ua.NodeId(value.VariantType.value)


def say(**answer: Any) -> None:
    """One line of our half of the talk."""
    print(json.dumps(answer), flush=True)


def listen(loop: asyncio.AbstractEventLoop, orders: asyncio.Queue[str]) -> None:
    """Hand the lines of stdin to the loop."""
    for line in sys.stdin:
        loop.call_soon_threadsafe(orders.put_nowait, line)
    loop.call_soon_threadsafe(orders.put_nowait, '{"do": "quit"}')


async def main() -> None:
    """Serve until told to quit."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    plant = Plant(SimpleNamespace(**DEFAULTS | json.loads(sys.argv[1])))
    await plant.prepare()
    await plant.server.start()
    if plant.counters and not plant.settings.paused:
        await plant.go(None)
    orders: asyncio.Queue[str] = asyncio.Queue()
    threading.Thread(target=listen, args=(asyncio.get_running_loop(), orders), daemon=True).start()
    say(
        ready=True,
        port=plant.settings.port,
        namespaces=await plant.server.get_namespace_array(),
        host=socket.gethostname(),
    )
    while (order := json.loads(await orders.get()))["do"] != "quit":
        try:
            say(ok=True, **(await getattr(plant, order["do"])(order) or {}))
        except Exception as error:  # noqa: BLE001 - the test is told, whatever it is
            say(ok=False, error=repr(error))
    await plant.stop(None)
    await plant.server.stop()
    say(ok=True)


asyncio.run(main())
