"""Writing tags and reading one by itself: the node's data type says what is sent, and nothing but the value is.

A write carries no times and no status, for many servers refuse to take these from a client: Bad_WriteNotSupported
[Part 4 5.11.4]. It is never sent twice: after a silence it may have been done, and only a person or the next value can
tell. A node of any type (BaseDataType, Number) gets the type of the value that it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from asyncua import ua as _ua
from asyncua.ua.ua_binary import variant_to_binary

from drivers.opcua.connecting.session import Session
from drivers.opcua.faults import ServiceFault
from drivers.opcua.nodes.catalogue import Catalogue
from drivers.opcua.nodes.known import Known
from drivers.opcua.options import TagOptions
from drivers.opcua.plan import options_of
from drivers.opcua.values.encode import encode
from drivers.opcua.values.parsing import parse_kinds, parse_read
from drivers.opcua.values.samples import labelled
from drivers.opcua.values.status import is_bad, name_of
from gateway.errors import DeviceError, ExpiredError, LineError, TagError
from gateway.model import Device, Tag, Value

ua: Any = _ua  # its names are made at run time: no checker sees them

_ANY: Final = (0, 24)
"""Built-in types of nodes that take values of more than one [Part 6 5.1.2]."""
_TEXTS: Final = (12, 21)
_BOOLEAN: Final = 1
_WORDS: Final = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}
"""What commands may say for a bool; the frame turns it into one where the file names the type."""
_UNKNOWN: Final = "it cannot be known whether the write was done"
_MAYBE: Final = frozenset(
    {
        "BadTimeout", "BadRequestTimeout", "BadCommunicationError", "BadNoCommunication", "BadDeviceFailure",
        "BadUnexpectedError", "BadInternalError", "BadRequestInterrupted", "BadRequestCancelledByClient",
        "BadRequestCancelledByRequest", "BadUnknownResponse", "BadResponseTooLarge", "BadEndOfStream",
    }
)  # fmt: skip
"""What a server says when it tried: its own link to the device failed, or it did. All else it says before it writes."""
_LINKS: Final = "Look at the server's own connection to the device"
_CURES: Final = {
    "BadTypeMismatch": "its data type is not what the server told when we connected. Reload, or look at the node",
    "BadNotWritable": "the node is never written (AccessLevel). Write to another node, or take write out of the tag",
    "BadUserAccessDenied": "this login may not write it. Log in as a user who may, or allow it in the server",
    "BadOutOfRange": "the server does not take that value. Look at the node's EURange or InstrumentRange, and say min "
    "and max",
    "BadWriteNotSupported": "the server does not write this part by itself. Take index_range out and write the whole",
    "BadIndexRangeInvalid": "the array has another number of dimensions than index_range. Mend it",
    "BadIndexRangeNoData": "the array is shorter than index_range says. Mend it",
    "BadIndexRangeDataMismatch": "index_range and the value have not the same number of elements. Give as many",
    "BadNodeIdUnknown": "there is no such node in the server. Mend the address; headgate browse shows what there is",
    "BadNodeIdInvalid": "the server does not take such a node id. Mend the address",
    "BadNoMatch": "nothing lies at the end of that path. Mend the address; headgate browse shows what there is",
    "BadAttributeIdInvalid": "the node has no value: it is no variable. Mend the address",
    "BadNotReadable": "the node is only written. Say write: {read_back: false}",
    "BadDataEncodingUnsupported": "the server does not take values in binary. Nothing helps but another server",
    "BadInvalidState": "the device does not take it in the state that it is in now",
    "BadNotConnected": _LINKS,
    "BadNoCommunication": _LINKS,
    "BadCommunicationError": _LINKS,
    "BadDeviceFailure": _LINKS,
    "BadOutOfService": _LINKS,
    "BadLocked": "another client holds it. Try again when that is done",
}


@dataclass(frozen=True, slots=True)
class _Target:
    """A tag, its node, and the part of the value that is meant."""

    device: str
    tag: Tag
    known: Known
    own: TagOptions

    def __str__(self) -> str:
        part = f"[{self.own.index_range}]" if self.own.index_range else ""
        return f"{self.device}/{self.tag.name} ({self.tag.address}{part})"


class Writer:
    """Writes and reads single tags in one session."""

    def __init__(self, session: Session, catalogue: Catalogue) -> None:
        self._session = session
        self._catalogue = catalogue

    async def write(self, device: Device, tag: Tag, value: Value, is_wanted: Callable[[], bool]) -> None:
        """Write one value. Raises ValueError before anything is sent, and ExpiredError where it came too late for it.

        Then TagError where the server refuses, DeviceError and LineError where nobody can know whether it was done.
        """
        target = await self._typed(device, self._resolved(device, tag))
        variant = self._encoded(target, value)
        node = ua.WriteValue(
            NodeId=target.known.node,
            AttributeId=ua.AttributeIds.Value,
            IndexRange=target.own.index_range,
            Value=ua.DataValue(variant, None),
        )
        request = ua.WriteRequest(Parameters=ua.WriteParameters(NodesToWrite=[node]))
        if not is_wanted():
            raise ExpiredError(f"{target}: it was not wanted any more when its turn came", cause="expired")
        try:
            response = await self._session.call(request)
        except LineError as error:
            raise LineError(f"{target}: {error}: {_UNKNOWN}", cause=error.cause) from error
        except ServiceFault as fault:
            raise _refusal(target, fault.name) from fault
        code = response.Results[0].value if response.Results else 0x8001_0000
        if is_bad(code):
            raise _refusal(target, name_of(code))

    async def read(self, device: Device, tag: Tag) -> Value:
        """The tag's value now, from the device and no cache. Raises TagError where it has none, LineError."""
        target = self._resolved(device, tag)
        body = await self._fetched(device, target)
        try:
            columns = await self._session.structures.parsed(parse_read, body, self._session)
            value, code = columns.values[0], columns.codes[0]
        except (ValueError, IndexError) as error:
            raise _unclear(target, error) from error
        if is_bad(code):
            raise TagError(f"{target}: {_explained(name_of(code))}", cause=name_of(code))
        if value is None and target.known.builtin in _TEXTS and target.known.rank == -1:
            return ""  # servers keep an empty text as none, which means the same [Part 6 5.2.1]
        return _named(target, value)

    def as_read(self, device: Device, tag: Tag, value: Value) -> Value:
        """What the tag reads when `value` has been written: a name for a number, float32 as it rounds, a time in UTC.

        Raises ValueError where it does not fit.
        """
        known = self._catalogue.find(device, tag)
        target = _Target(device.name, tag, known, _options(tag))
        if known.node is None or known.builtin in _ANY:
            return value
        data = variant_to_binary(self._encoded(target, value))
        return _named(target, self._session.structures.decoder.alone(data))

    def _resolved(self, device: Device, tag: Tag) -> _Target:
        known = self._catalogue.find(device, tag)
        target = _Target(device.name, tag, known, _options(tag))
        if known.node is None:
            name = name_of(known.code)
            raise TagError(f"{target}: {_explained(name)}", cause=name)
        return target

    async def _typed(self, device: Device, target: _Target) -> _Target:
        """The target with the type of the value that its node has, where the node itself leaves it open."""
        if target.known.builtin not in _ANY:
            return target
        try:
            ((_, kind, _),) = parse_kinds(await self._fetched(device, target))
        except ValueError as error:
            raise _unclear(target, error) from error
        return replace(target, known=replace(target.known, builtin=kind)) if kind else target

    async def _fetched(self, device: Device, target: _Target) -> bytes:
        """The answer to a Read of the tag, as it came: whatever a node of any type holds, we can take it apart."""
        try:
            return await self._session.fetch(_read_request(target), timeout_s=options_of(device).timeout)
        except ServiceFault as fault:
            raise TagError(f"{target}: {_explained(fault.name)}", cause=fault.name) from fault

    def _encoded(self, target: _Target, value: Value) -> Any:
        if target.known.builtin == _BOOLEAN and isinstance(value, str):
            value = _WORDS.get(value.strip().lower(), value)
        return encode(value, target.known, target.own.index_range, self._session.namespaces)


def _options(tag: Tag) -> TagOptions:
    return TagOptions.model_validate(tag.options) if tag.options else TagOptions()


def _read_request(target: _Target) -> Any:
    node = ua.ReadValueId(
        NodeId=target.known.node, AttributeId=ua.AttributeIds.Value, IndexRange=target.own.index_range
    )
    parameters = ua.ReadParameters(MaxAge=0, TimestampsToReturn=ua.TimestampsToReturn.Neither, NodesToRead=[node])
    return ua.ReadRequest(Parameters=parameters)


def _named(target: _Target, value: Value) -> Value:
    """An enumeration's name in place of its number, where the tag is published so."""
    labels = target.known.labels
    return labelled(value, labels)[0] if labels and target.own.enum == "name" and value is not None else value


def _refusal(target: _Target, name: str) -> TagError | DeviceError:
    """What a bad result of a write means."""
    if name in _MAYBE:
        return DeviceError(f"{target}: {_explained(name)}: {_UNKNOWN}", cause=name)
    return TagError(f"{target}: {_explained(name)}", cause=name)


def _unclear(target: _Target, error: Exception) -> TagError:
    return TagError(f"{target}: the answer cannot be understood: {error}", cause="decode")


def _explained(name: str) -> str:
    cure = _CURES.get(name)
    return f"{name}: {cure}" if cure else name
