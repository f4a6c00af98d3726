"""What a session's structures are made of: asked of the server once for each that turns up, and only then.

    encoding id ──inverse HasEncoding──▶ data type ──attribute DataTypeDefinition──▶ fields ──▶ their data types ──▶ …

A server that does not have the attribute, which came with version 1.04, still sends the standard's own structures,
whose fields are known (`standard`); all others stay bytes under the name of their type [Part 3 5.8.3, 8.48].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from asyncua import ua as _ua

from drivers.opcua.nodes.browsing import INVERSE, Browser
from drivers.opcua.nodes.kinds import DEFINITION, Kinds
from drivers.opcua.nodes.requests import attributes, content
from drivers.opcua.values.layouts import MAX_FIELDS, Layout, Member
from drivers.opcua.values.standard import standard_layout, standard_type
from drivers.opcua.values.variants import Decoder
from drivers.opcua.values.wire import Key

if TYPE_CHECKING:
    from drivers.opcua.connecting.session import Session

ua: Any = _ua  # its names are made at run time: no checker sees them

T = TypeVar("T")
_ROUNDS: Final = 8
"""How often a message is parsed again because what was learned held something else unknown."""
_LEVELS: Final = 20
"""How deep structures are followed into the structures of their fields."""
_MOST: Final = 2000
"""Data types that are looked at for one message."""
_HAS_ENCODING: Final = 38
_STRUCTURE, _VARIANT = 22, 24
_KINDS: Final[Mapping[int, str]] = {0: "structure", 1: "optional", 2: "union", 3: "structure", 4: "union"}
"""StructureType [Part 3 8.49]; in the last two a field that may be optional may be of a derived type instead."""
_WITH_DERIVED: Final = 3


class Structures:
    """The decoder of a session's values, and what has been learned for it: `session.structures`.

    The session calls `begin` whenever it is a new one. Who parses says `await session.structures.parsed(parse_publish,
    body, session)`; or, without waiting, `parse_publish(body, session.structures.decoder)`, and only where
    `decoder.missing` is not empty afterwards, `await session.structures.learn(session)` and once more.
    """

    def __init__(self) -> None:
        self.decoder = Decoder()
        self._types: dict[Any, Layout | None] = {}

    def begin(self, namespaces: Sequence[str]) -> None:
        """Forget everything: a new session, whose namespaces may stand elsewhere."""
        self.decoder = Decoder(namespaces)
        self._types = {}

    async def parsed(self, parse: Callable[[bytes, Decoder], T], body: bytes, session: Session) -> T:
        """Parse a response; where it holds unknown structures, ask the server what they are and parse it again.

        Raises ValueError where it cannot be parsed, LineError when the link is gone.
        """
        decoder = self.decoder
        found = parse(body, decoder)
        for _ in range(_ROUNDS):
            if not decoder.missing:
                break
            await self.learn(session)
            found = parse(body, decoder)
        decoder.missing.clear()
        return found

    async def learn(self, session: Session) -> None:
        """Ask for the definitions of what is missing, and note them; None for those that the server does not tell.

        Raises LineError when the link is gone: then nothing is noted.
        """
        decoder, types = self.decoder, self._types
        wanted = {_node_of(key): key for key in decoder.missing}
        owners = await _owners(session, list(wanted))
        await _define(session, types, owners.values())
        for node, key in wanted.items():
            decoder.layouts[key] = types.get(owners.get(node))
        decoder.missing.clear()


async def _owners(session: Session, encodings: list[Any]) -> dict[Any, Any]:
    """The data types that have these encodings, as far as anybody knows."""
    browser = Browser(session=session, mask=0, reference=_HAS_ENCODING, direction=INVERSE)
    listings = await browser.below(encodings, most=2 * len(encodings))
    owners = {}
    for encoding, listing in zip(encodings, listings, strict=True):
        owner = listing.references[0].node if listing.references else standard_type(encoding)
        if owner is not None:
            owners[encoding] = owner
    return owners


async def _define(session: Session, types: dict[Any, Layout | None], wanted: Iterable[Any]) -> None:
    """Read the definitions of structures, and of those that their fields are, and note them in `types`."""
    kinds = Kinds(session)
    todo = [kind for kind in dict.fromkeys(wanted) if kind not in types]
    found: dict[Any, Layout | None] = {}
    fields: list[tuple[Member, Any]] = []
    for _ in range(_LEVELS):
        todo = todo[: max(_MOST - len(found), 0)]
        if not todo:
            break
        definitions = await attributes(session, [(kind, DEFINITION) for kind in todo])
        for kind, value in zip(todo, definitions, strict=True):
            definition = content(value, ua.StructureDefinition)
            found[kind] = standard_layout(kind) if definition is None else Layout()
            if definition is not None:
                fields += await _fill(found, kind, definition, kinds)
        todo = [kind for kind in dict.fromkeys(kind for _, kind in fields) if kind not in found and kind not in types]
    for member, kind in fields:
        layout = found.get(kind, types.get(kind))
        member.kind, member.layout = (0, layout) if layout is not None else (_STRUCTURE, None)
    types.update(found)


async def _fill(
    found: dict[Any, Layout | None], data_type: Any, definition: Any, kinds: Kinds
) -> list[tuple[Member, Any]]:
    """Give a layout its members. Those that are structures themselves come back, with their data types."""
    shape = _KINDS.get(int(definition.StructureType))
    layout = found[data_type]
    if shape is None or layout is None or len(definition.Fields or ()) > MAX_FIELDS:
        found[data_type] = None
        return []
    layout.kind = shape  # type: ignore[assignment]
    has_derived = int(definition.StructureType) >= _WITH_DERIVED
    await kinds.learn({field.DataType for field in definition.Fields or ()})
    inner = []
    for field in definition.Fields or ():
        kind = kinds.of(field.DataType)
        if not kind.is_known:  # as a Variant it might even read as something, and be wrong
            found[data_type] = None
            return []
        is_open = has_derived and field.IsOptional
        number = kind.builtin or _VARIANT
        if is_open and number != _STRUCTURE:
            number = _VARIANT
        is_optional = bool(field.IsOptional)
        member = Member(field.Name or "", number, int(field.ValueRank), is_optional, kind.labels)
        if number == _STRUCTURE and not is_open and field.DataType != ua.NodeId(_STRUCTURE):
            inner.append((member, field.DataType))
        layout.members.append(member)
    return inner


def _node_of(key: Key) -> Any:
    """The library's NodeId of one from a message."""
    space, kind, identifier = key
    return ua.NodeId(UUID(str(identifier)) if kind == "g" else identifier, space)
