"""What tools ask of a line beside its tags: who is there, what stands at an address, where a value lives.

All of it goes through the line's own transport, in between the polls: the line is never opened twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from pydantic import ValidationError

from drivers.modbus.frames.pdu import MAX_BITS, MAX_REGISTERS, Failure
from drivers.modbus.lines.exchange import Transport
from drivers.modbus.lines.url import SCHEMES, route_of
from drivers.modbus.options import DeviceOptions
from drivers.modbus.polling.plan import options_of
from drivers.modbus.values import address as addresses
from drivers.modbus.writing import request_of, target_of
from drivers.tape import Note, Tape
from gateway.clock import Clock
from gateway.driver import Candidate, Decoding, Expected, Finding, Patch, Replay, Survey
from gateway.errors import DeviceError, TagError
from gateway.model import Device, Tag, Value

if TYPE_CHECKING:  # a gateway that polls needs none of what is imported below only where it is used
    from drivers.modbus.tools import probing

_SHAPES = (
    (9600, "N"), (19200, "E"), (9600, "E"), (19200, "N"), (115200, "N"), (38400, "N"), (57600, "N"),
    (4800, "N"), (2400, "N"), (38400, "E"), (115200, "E"), (57600, "E"), (4800, "E"), (2400, "E"),
    (9600, "O"), (19200, "O"), (1200, "N"), (1200, "E"), (38400, "O"), (115200, "O"),
)  # fmt: skip
"""Baud rate and parity as devices leave the factory, the most usual first; one stop bit."""

_UNITS_TCP = (1, 255, 0, *range(2, 11), 100, 126, 247)
"""Devices on TCP are 1, 255 or 0 by themselves; 100, 126 and 247 are some makers' own; more stand behind gateways."""
_UNITS_SERIAL = (*range(1, 33), 100, 126, 247)

_LAST_UNIT = 255
_USUAL_TIMEOUT_S = 1.0
"""Where nobody says otherwise: what a device's own default is."""


def devices_of(url: str, units: Sequence[int], timeout_s: float | None) -> list[Device]:
    """Devices of a line that no file describes. Raises ValueError with the cure where the url is wrong."""
    route_of(url)
    said: dict[str, Any] = {} if timeout_s is None else {"timeout": f"{timeout_s * 1000:.0f}ms"}
    try:
        options = [DeviceOptions.model_validate({"unit": _checked(unit), **said}) for unit in units]
    except ValidationError as error:
        wrong = error.errors()[0]
        raise ValueError(f"{wrong['loc'][0]}: {wrong['msg'].removeprefix('Value error, ')}") from None
    return [Device(name=f"unit {own.unit}", driver="modbus", url=url, options=own) for own in options]


def _checked(unit: int) -> int:
    if not 0 <= unit <= _LAST_UNIT:
        raise ValueError(f"unit {unit} is none. Units go from 0 to {_LAST_UNIT}")
    return unit


class Explorer:
    """The part of the driver that tools use. The driver makes what is declared here."""

    SCHEMES: ClassVar[tuple[str, ...]] = SCHEMES

    _client: Transport
    _clock: Clock
    _tape: Tape
    _gaps: dict[int, float]
    _stations: dict[int, Device]
    """The devices by unit."""

    @classmethod
    def settings(cls, url: str) -> tuple[str, ...]:
        """The urls to try, best first, where a serial port's baud rate is left open; else that url alone."""
        parts = urlsplit(url)
        said = dict(parse_qsl(parts.query))
        if parts.scheme not in ("rtu", "ascii") or "baud" in said:
            return (url,)
        glue = "&" if parts.query else "?"
        shapes = [(baud, parity) for baud, parity in _SHAPES if said.get("parity", parity).upper()[:1] == parity]
        own = "" if "parity" in said else "&parity={}"
        return tuple(f"{url}{glue}baud={baud}{own.format(parity)}" for baud, parity in shapes)

    @classmethod
    def units(cls, url: str) -> tuple[int, ...]:
        """The units to look for where nobody says which, in a sensible order."""
        return _UNITS_TCP if urlsplit(url).scheme == "tcp" else _UNITS_SERIAL

    async def discover(self, unit: int, *, patience_s: float | None = None, thorough: bool = False) -> Finding | None:
        """Whether that unit is there, and who it is; `thorough` asks in more than one way.

        Raises ValueError for a unit that cannot be, and LineError.
        """
        from drivers.modbus.tools import probing  # noqa: PLC0415 - see above

        return await probing.discover(self._unit(unit, patience_s), thorough=thorough)

    async def peek(self, unit: int, address: str, count: int) -> Patch:
        """Read now. Raises ValueError for a wrong address or count, TagError, DeviceError and LineError."""
        from drivers.modbus.tools import probing  # noqa: PLC0415 - see above

        where = addresses.parse(address)
        if where.table not in probing.TABLES:
            raise ValueError(f"{address}: only coil:, discrete:, input: and holding: are shown")
        most = MAX_BITS if where.table.bits else MAX_REGISTERS
        if not 1 <= count <= min(most, addresses.LAST + 1 - where.number):
            raise ValueError(f"{count} are no values from {address} on. One request takes 1 to {most}")
        answer = await self._unit(unit).read(where.table, where.number, count)
        if isinstance(answer, bytes):
            return Patch(f"{where.table.name}:{where.number}", count, answer)
        raise _error(unit, addresses.span_name(where.table.function, where.number, count), answer)

    @classmethod
    def areas(cls) -> tuple[str, ...]:
        """Where values live most often, best first."""
        from drivers.modbus.tools import probing  # noqa: PLC0415 - see above

        return probing.AREAS

    async def survey(self, unit: int, area: str, *, requests: int) -> Survey:
        """Read what can be read of an area with that many requests. Raises ValueError and LineError."""
        from drivers.modbus.tools import probing  # noqa: PLC0415 - see above

        return await probing.survey(self._unit(unit), area, requests=requests, most=self._most(unit))

    @classmethod
    def decodings(cls, patch: Patch, *, kind: str = "", order: str = "") -> list[Decoding]:
        """Every way to read the first value of a patch; with `kind`, all its values. Raises ValueError."""
        from drivers.modbus.tools import decodings  # noqa: PLC0415 - see above

        return decodings.decodings(patch, kind=kind, order=order)

    @classmethod
    def rank(
        cls, first: Sequence[Patch], second: Sequence[Patch], expected: Sequence[Expected]
    ) -> list[list[Candidate]]:
        """For each expected value where it may live, best first; `second` is another reading some time later."""
        from drivers.modbus.tools import decodings  # noqa: PLC0415 - see above

        return decodings.rank(first, second, expected)

    def record(self, note: Note | None) -> None:
        """Tell `note` everything that goes over the line from now on; None ends it."""
        started = datetime.fromtimestamp(self._clock.wall_ms() // 1000, UTC).isoformat().replace("+00:00", "Z")
        self._tape.record(note, started=started)

    @classmethod
    def replay(
        cls, recording: str, *, listen: str, speed: float, tell: Callable[[str], None]
    ) -> AbstractAsyncContextManager[Replay]:
        """Serve the text of a recording as a simulated device. Raises ValueError with the cure."""
        from drivers.modbus.tools.replaying import replay  # noqa: PLC0415 - see above

        return replay(recording, listen=listen, speed=speed, tell=tell)

    def station(self, unit: int) -> Device:
        """The device of that unit, as the other verbs want it. Raises ValueError where there is none."""
        if unit not in self._stations:
            raise ValueError(f"unit {unit} is none of this line's")
        return self._stations[unit]

    @classmethod
    def spell(cls, device: Device, tag: Tag, value: Value) -> str:
        """What will be sent to write this, in hexadecimal. Raises ValueError where it cannot be written.

        Bits of a register are changed by a request that depends on the device; they are told in words.
        """
        target = target_of(device, tag, options_of(device))
        if target.slot.field.bit is not None:
            return f"bits of {target.slot.address}"
        return request_of(target, value).pdu.hex(" ").upper()

    def _unit(self, unit: int, patience_s: float | None = None) -> probing.Unit:
        from drivers.modbus.tools import probing  # noqa: PLC0415 - see above

        station = self._stations.get(_checked(unit))
        usual = _USUAL_TIMEOUT_S if station is None else options_of(station).timeout
        return probing.Unit(self._client, unit, usual if patience_s is None else patience_s, self._gaps.get(unit, 0.0))

    def _most(self, unit: int) -> int:
        return options_of(self._stations[unit]).max_registers if unit in self._stations else MAX_REGISTERS


def _error(unit: int, what: str, failure: Failure | None) -> DeviceError | TagError:
    """Why a read brought nothing, with the cure where there is one."""
    if failure is None:
        return DeviceError(f"unit {unit}: {what} was not asked for", cause="offline")
    if failure.cause == "timeout":
        cure = "is it unit: that number, and is it switched on? `headgate probe` finds who answers"
        return DeviceError(f"unit {unit}: {what}: {failure.text}: {cure}", cause="timeout")
    if failure.act == "unit":
        return DeviceError(f"unit {unit}: {what}: {failure.text}", cause=failure.cause)
    return TagError(f"unit {unit}: {what}: {failure.text}", cause=failure.cause)
