"""Data types of a server: the built-in type each comes down to, and the names of enumerations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from asyncua import ua

from drivers.opcua.address import PathAddress, Step
from drivers.opcua.nodes.asking import Asks
from drivers.opcua.nodes.browsing import HAS_SUBTYPE, INVERSE, Browser
from drivers.opcua.nodes.requests import VALUE, attributes, content, translate

DEFINITION = 23
"""The attribute DataTypeDefinition [Part 3 5.8.3]."""
WORDS = {
    1: "bool", 2: "int8", 3: "uint8", 4: "int16", 5: "uint16", 6: "int32", 7: "uint32", 8: "int64", 9: "uint64",
    10: "float32", 11: "float64", 12: "string",
}  # fmt: skip
"""Built-in types that have a word in a mapping file [Part 6 5.1.2]."""
_LAST_BUILTIN = 25
_ANY = 24
_INT32, _ENUMERATION = 6, 29
_ABSTRACT = frozenset({26, 27, 28})
"""Number, Integer, UInteger: the value says which it is."""
_STANDARD = {
    30: 15, 288: 7, 289: 7, 290: 11, 291: 12, 294: 13, 295: 12, 311: 15, 388: 17, 521: 15, 2000: 15, 2001: 15,
    2002: 15, 2003: 15, 11737: 9, 12877: 12, 12878: 12, 12879: 12, 12880: 12, 12881: 12, 16307: 15, 17588: 7,
    20998: 7, 23751: 12, 24263: 12, 25726: 12, 31917: 7, 31918: 12,
}  # fmt: skip
"""Simple types of the standard and the built-in types they are: small servers do not tell their hierarchy."""
_MAX_LEVELS = 30
_MAX_LABELS = 10_000


@dataclass(frozen=True, slots=True)
class Kind:
    """A data type: its built-in type, 0 where only values tell, and the names of an enumeration.

    `is_known` is False where its built-in type could not be found out at all.
    """

    builtin: int
    labels: Mapping[int, str] | None = None
    is_known: bool = True


_STRANGE = Kind(0, is_known=False)


@dataclass(slots=True)
class Kinds:
    """The data types of a server, as far as they were asked for. For one session: namespaces may move."""

    session: Asks
    _known: dict[ua.NodeId, Kind] = field(default_factory=dict)

    async def learn(self, wanted: Iterable[ua.NodeId]) -> None:
        """Look up these data types, up to their built-in types, with the names of enumerations."""
        chains = {kind: [kind] for kind in wanted if kind not in self._known and not self._settle(kind, kind)}
        climbing = dict(chains)
        browser = Browser(session=self.session, mask=0, reference=HAS_SUBTYPE, direction=INVERSE)
        for _ in range(_MAX_LEVELS):
            if not climbing:
                break
            tops = list({chain[-1]: None for chain in climbing.values()})
            listings = await browser.below(tops, most=2 * len(tops))
            parents = {
                top: listing.references[0].node
                for top, listing in zip(tops, listings, strict=True)
                if listing.references
            }
            for kind, chain in list(climbing.items()):
                parent = parents.get(chain[-1])
                if parent is None or parent in chain:
                    del climbing[kind]
                    continue
                chain.append(parent)
                if self._settle(kind, parent):
                    del climbing[kind]
        for kind in chains:
            self._known.setdefault(kind, _STRANGE)
        await self._name([kind for kind, chain in chains.items() if chain[-1] == ua.NodeId(ua.Int32(_ENUMERATION))])

    def of(self, kind: ua.NodeId | None) -> Kind:
        """What is known of a data type."""
        return _STRANGE if kind is None else self._known.get(kind, _STRANGE)

    def _settle(self, kind: ua.NodeId, top: ua.NodeId) -> bool:
        """Whether the built-in type follows from this ancestor, which is noted then."""
        number = top.Identifier if top.NamespaceIndex == 0 else None
        builtin = _STANDARD.get(number) if isinstance(number, int) else None
        if isinstance(number, int) and 1 <= number <= _LAST_BUILTIN:
            builtin = 0 if number == _ANY else number
        elif number == _ENUMERATION:
            builtin = _INT32
        elif number in _ABSTRACT:
            builtin = 0
        if builtin is None:
            return False
        self._known[kind] = Kind(builtin)
        return True

    async def _name(self, kinds: Sequence[ua.NodeId]) -> None:
        """The names of these enumerations, from their property, else from their definition."""
        named = await labels_below(self.session, kinds)
        bare = [kind for kind in kinds if kind not in named]
        definitions = await attributes(self.session, [(kind, DEFINITION) for kind in bare])
        for kind, value in zip(bare, definitions, strict=True):
            definition = content(value, ua.EnumDefinition)
            if definition is not None:
                named[kind] = {int(own.Value): str(own.Name) for own in (definition.Fields or ())[:_MAX_LABELS]}
        for kind, labels in named.items():
            self._known[kind] = replace(self._known[kind], labels=labels)


async def labels_below(session: Asks, nodes: Sequence[ua.NodeId]) -> dict[ua.NodeId, dict[int, str]]:
    """The names of values, of those data types or variables that have EnumStrings or EnumValues [Part 3 8.14]."""
    names = ("EnumStrings", "EnumValues")
    starts = [(node, property_path(name)) for node in nodes for name in names]
    targets = await translate(session, starts)
    there = [(node, target) for (node, _), (target, _) in zip(starts, targets, strict=True) if target is not None]
    values = await attributes(session, [(target, VALUE) for _, target in there])
    found: dict[ua.NodeId, dict[int, str]] = {}
    for (node, _), value in zip(there, values, strict=True):
        labels = _labels(content(value, list) or [])
        if labels:
            found[node] = labels
    return found


def property_path(name: str) -> PathAddress:
    """The path to a property of the standard."""
    return PathAddress((Step(0, name),))


def _labels(entries: Sequence[Any]) -> dict[int, str]:
    """The names that EnumStrings (texts by position) or EnumValues (numbers with texts) hold."""
    labels: dict[int, str] = {}
    for position, entry in enumerate(entries[:_MAX_LABELS]):
        if isinstance(entry, ua.LocalizedText):
            labels[position] = entry.Text or ""
        elif isinstance(entry, ua.EnumValueType):
            labels[int(entry.Value)] = entry.DisplayName.Text or ""
    return {number: text for number, text in labels.items() if text}
