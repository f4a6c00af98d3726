"""The driver: one session with an OPC UA server and the devices in it. Composed here; the work is done beside.

The library is imported when the driver is entered, for it takes 25 MB: who only checks a file does not pay for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel

from drivers.opcua import options, plan
from drivers.opcua.url import place_of
from gateway.clock import Clock
from gateway.driver import Explanation, Explored, Extras, LineKey
from gateway.errors import LineError
from gateway.metrics import Metrics
from gateway.model import Batch, Device, ScanGroup, Tag, Value

if TYPE_CHECKING:
    from drivers.opcua.certifying import Certificates
    from drivers.opcua.connecting.session import Session
    from drivers.opcua.listening.listener import Listener
    from drivers.opcua.nodes.catalogue import Catalogue
    from drivers.opcua.polling import Poller
    from drivers.opcua.writing import Writer


class Driver:
    """One server and the devices of it. Whatever they say of the connection, they must say alike."""

    DeviceOptions: ClassVar[type[BaseModel]] = options.DeviceOptions
    TagOptions: ClassVar[type[BaseModel]] = options.TagOptions
    SCHEMES: ClassVar[tuple[str, ...]] = ("opc.tcp",)

    def __init__(self, devices: Sequence[Device], *, clock: Clock, metrics: Metrics) -> None:
        self._devices = tuple(devices)
        self._clock = clock
        self._metrics = metrics
        self._parts: _Parts | None = None

    def __repr__(self) -> str:
        state = "never opened" if self._parts is None else repr(self._parts.session)
        return f"<opcua driver of {', '.join(device.name for device in self._devices)}: {state}>"

    @classmethod
    def line_key(cls, url: str, options: Any) -> LineKey:
        """`opc.tcp://HOST:PORT/PATH`, lower case but for the path. Raises ValueError with the cure."""
        return LineKey(place_of(url).url, plan.terms_of(options))

    @classmethod
    def compile(cls, device: Device, tags: Sequence[Tag]) -> list[ScanGroup]:
        """Check addresses and make groups. Raises FileError with every mistake found."""
        return plan.compile_groups(device, tags)

    @classmethod
    def explain(cls, devices: Sequence[Device], groups: Sequence[ScanGroup]) -> Explanation:  # noqa: ARG003 - the groups say it all
        """What the server will be asked for."""
        return plan.explain(groups)

    @classmethod
    def check_write(cls, device: Device, tag: Tag) -> None:  # noqa: ARG003 - the address says it all
        """Raises ValueError with the cure where this tag can never be written."""
        plan.item_of(tag)

    @classmethod
    def simulate(cls) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Start a simulated server on loopback; gives the `devices` section of a gateway file that reads it."""
        from drivers.opcua.simulate import simulate  # noqa: PLC0415 - a server is for demo and tests only

        return simulate()

    @classmethod
    def certificates(cls, device: Device, *, clock: Clock) -> Certificates:
        """Ours and the server's, for the commands `certificate` and `trust`. No I/O."""
        from drivers.opcua.certifying import Certificates  # noqa: PLC0415 - cryptography takes 11 MB

        return Certificates(device, clock=clock)

    async def __aenter__(self) -> Self:
        """Connect, take up the session that was lost or make a new one, and look up the nodes. Raises LineError."""
        if self._parts is None:
            self._parts = _Parts(self._devices, clock=self._clock, metrics=self._metrics)
        parts = self._parts
        parts.is_resumed = await parts.session.open()
        async with AsyncExitStack() as undo:
            undo.push_async_callback(parts.session.drop)
            await parts.catalogue.learn(parts.session, is_resumed=parts.is_resumed)
            undo.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close. After a loss of the link the server is left to keep the session, to be taken up when we return."""
        if self._parts is None:
            return
        if isinstance(error, LineError):
            await self._parts.session.drop()
        else:
            await self._parts.session.close()

    def regroup(self, device: Device, groups: Sequence[ScanGroup]) -> Sequence[ScanGroup]:
        """The groups with the types that the server told, and the tags that wildcards became."""
        return self._open.catalogue.regroup(device, groups)

    async def read(self, group: ScanGroup) -> Batch:
        """Read one group once. Raises DeviceError where the server refuses, LineError when the link is gone."""
        return await self._open.poller.read(group)

    def subscribe(self, groups: Sequence[ScanGroup]) -> AsyncIterator[Batch]:
        """What the server tells of these groups, after what it told while the link was down. Raises LineError."""
        parts = self._open
        return parts.listener.listen(groups, is_resumed=parts.is_resumed)

    async def write(
        self, device: Device, tag: Tag, value: Value, *, is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Write one raw value. Raises ValueError before anything is sent, ExpiredError, TagError or LineError."""
        await self._open.writer.write(device, tag, value, is_wanted)

    async def read_tag(self, device: Device, tag: Tag) -> Value:
        """The tag's raw value now. Raises TagError or LineError."""
        return await self._open.writer.read(device, tag)

    def as_read(self, device: Device, tag: Tag, value: Value) -> Value:
        """What the tag reads when `value` was written, as its node's type says; unchanged without a connection."""
        return value if self._parts is None else self._parts.writer.as_read(device, tag, value)

    async def probe(self, device: Device) -> None:
        """Ask for the server's state. Raises DeviceError where it refuses, LineError when the link is gone."""
        await self._open.poller.probe(device)

    async def browse(
        self, device: Device, start: str, *, depth: int | None, most: int, extras: Extras
    ) -> AsyncIterator[Explored]:
        """The server's tree from `start` on, parents first. Raises ValueError, DeviceError, LineError."""
        from drivers.opcua.exploring import Explorer  # noqa: PLC0415 - see the head of this file

        explorer = Explorer(self._open.session, plan.options_of(device), extras=extras, most=most)
        async for explored in explorer.walk(start, depth):
            yield explored

    @property
    def _open(self) -> _Parts:
        if self._parts is None:
            raise LineError("there is no connection yet", cause="offline")
        return self._parts


class _Parts:
    """What the driver is made of, once the library is there. They outlive each connection: they know what was lost."""

    session: Session
    catalogue: Catalogue
    listener: Listener
    poller: Poller
    writer: Writer

    def __init__(self, devices: Sequence[Device], *, clock: Clock, metrics: Metrics) -> None:
        from drivers.opcua.connecting.session import Session  # noqa: PLC0415 - see the head of this file
        from drivers.opcua.listening.listener import Listener  # noqa: PLC0415 - likewise
        from drivers.opcua.nodes.catalogue import Catalogue  # noqa: PLC0415 - likewise
        from drivers.opcua.polling import Poller  # noqa: PLC0415 - likewise
        from drivers.opcua.writing import Writer  # noqa: PLC0415 - likewise

        own = plan.options_of(devices[0])
        self.session = Session(devices[0].url, own, clock=clock, metrics=metrics)
        self.catalogue = Catalogue(devices)
        self.listener = Listener(self.session, self.catalogue, own, clock=clock, metrics=metrics)
        self.poller = Poller(self.session, self.catalogue, clock=clock, metrics=metrics)
        self.writer = Writer(self.session, self.catalogue)
        self.is_resumed = False
