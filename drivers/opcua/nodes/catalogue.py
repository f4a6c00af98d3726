"""Which node each tag of the devices is in this session, and what is known of it; wildcards become tags here.

learn     once a session: addresses into nodes, and their types
regroup   the groups as compiled, with the types that the server told, and the tags that wildcards became
known     what is known of a group's tags, beside them
find      the same of one tag, for writes
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from asyncua import ua

from drivers.opcua.address import NodeAddress, parse
from drivers.opcua.nodes.asking import Asks
from drivers.opcua.nodes.finding import BAD_NODE_UNKNOWN, Outcome, Wanted, find_all
from drivers.opcua.nodes.kinds import Kinds
from drivers.opcua.nodes.known import Known
from drivers.opcua.nodes.naming import Names, joined
from drivers.opcua.nodes.resolving import address_of, describe
from drivers.opcua.plan import MAX_TAGS, Item, Plan, group_of, is_wild, options_of
from drivers.opcua.values.status import name_of
from gateway.model import Device, ScanGroup, Tag

log = logging.getLogger("headgate.opcua")

_MOST_SAID = 10_000
_SHOWN = 5
_CURE = "Mend the address; headgate browse shows what the server has"


@dataclass(frozen=True, slots=True)
class _Node:
    """A node that an address led to. `names` are what its wildcards stood for; `address` names the node alone."""

    known: Known
    names: tuple[str, ...] = ()
    address: NodeAddress | None = None


class Catalogue:
    """The nodes of all devices of one session. Empty until `learn` was awaited."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self._devices = tuple(devices)
        self._is_learned = False
        self._nodes: dict[Wanted, tuple[_Node, ...]] = {}
        self._compiled: dict[str, tuple[ScanGroup, ...]] = {}
        self._groups: dict[str, tuple[ScanGroup, ...]] = {}
        self._known: dict[ScanGroup, tuple[Known, ...]] = {}
        self._tags: dict[str, dict[tuple[str, str], Known]] = {}
        self._said: set[str] = set()

    async def learn(self, session: Asks, *, is_resumed: bool) -> None:
        """Look up every address; nothing is asked where the session is still the one that was asked before.

        Addresses that lead nowhere are no error: their tags are bad, with the reason. Raises LineError.
        """
        if is_resumed and self._is_learned:
            return
        self._is_learned = False
        wanted = list(dict.fromkeys(one for device in self._devices for one in _wanted(device)))
        found = await find_all(session, wanted)
        nodes = list(dict.fromkeys(match.node for own in found.values() for match in own.matches))
        timeout_s = max((options_of(device).timeout for device in self._devices), default=0.0)
        told = await describe(session, nodes, Kinds(session), timeout_s=timeout_s)
        facts = dict(zip(nodes, told, strict=True))
        self._nodes = {
            one: tuple(
                _Node(facts[match.node][0], match.names, address_of(match.node, session.namespaces))
                for match in own.matches
            )
            or (_Node(Known(node=None, code=own.code)),)
            for one, own in found.items()
        }
        self._is_learned = True
        self._complain(found, {node: code for node, (_, code) in facts.items() if code})

    def regroup(self, device: Device, groups: Sequence[ScanGroup]) -> Sequence[ScanGroup]:
        """The groups of a device in this session, made from those that it was first asked for."""
        compiled = self._compiled.setdefault(device.name, tuple(groups))
        used = {group.names: group for group in self._groups.get(device.name, compiled)}
        for group in used.values():
            self._known.pop(group, None)
        names = Names(tag.name for tag in device.tags)
        own: list[ScanGroup] = []
        tags: dict[tuple[str, str], Known] = {}
        for group in compiled:
            pairs = list(self._expand(device, group.plan, names))
            for at in range(0, len(pairs), MAX_TAGS):
                part = pairs[at : at + MAX_TAGS]
                fresh = _grouped(device, group.plan, part)
                made = used.get(fresh.names)
                if made is None or not _is_same(made, fresh):
                    made = fresh
                own.append(made)
                self._known[made] = tuple(known for _, known in part)
                tags |= {(item.tag.part, item.tag.name): known for item, known in part}
        self._tags[device.name] = tags
        self._groups[device.name] = tuple(own)
        return self._groups[device.name]

    def known(self, group: ScanGroup) -> Sequence[Known]:
        """What is known of the tags of a group, beside them."""
        if group not in self._known:  # asked without `regroup`: as the file has it
            self._known[group] = tuple(self._first(_of_item(group.plan, item)) for item in group.plan.items)
        return self._known[group]

    def find(self, device: Device, tag: Tag) -> Known:
        """What is known of a tag: one of the file, or one that wildcards became."""
        known = self._tags.get(device.part_of or device.name, {}).get((tag.part, tag.name))
        if known is not None:
            return known
        options = options_of(device)
        return self._first(Wanted(options.root, options.max_matches, parse(tag.address)))

    def _first(self, wanted: Wanted) -> Known:
        nodes = self._nodes.get(wanted)
        return nodes[0].known if nodes else Known(node=None, code=BAD_NODE_UNKNOWN)

    def _expand(self, device: Device, plan: Plan, names: Names) -> Iterator[tuple[Item, Known]]:
        """The items of a compiled group, each with its node; one with wildcards is there once for each match."""
        for item in plan.items:
            nodes = self._nodes.get(_of_item(plan, item), ())
            if not is_wild(item.address) or not nodes or nodes[0].address is None:
                yield item, self._first(_of_item(plan, item))
                continue
            for node in nodes:
                address = node.address or item.address
                wanted = f"{item.tag.name}/{joined(node.names)}"
                name = names.take(wanted)
                if name != wanted:
                    self._say(f"device '{device.name}': two tags would be '{wanted}'; {address} is '{name}'")
                tag = replace(item.tag, name=name, address=str(address))
                yield replace(item, tag=tag, address=address), node.known

    def _complain(self, found: Mapping[Wanted, Outcome], bad: Mapping[ua.NodeId, int]) -> None:
        """Log once what leads nowhere, by device and reason, with the tags' names."""
        for device in self._devices:
            faults: dict[tuple[int, str], list[str]] = defaultdict(list)
            for tag, wanted in zip(device.tags, _wanted(device), strict=True):
                own = found[wanted]
                code = own.code or next((bad[match.node] for match in own.matches if match.node in bad), 0)
                if code or own.note:
                    faults[code, own.note].append(tag.name)
            for (code, note), tags in faults.items():
                reason = f"{name_of(code)}, {note}" if code and note else note or f"{name_of(code)}. {_CURE}"
                more = f" and {len(tags) - _SHOWN} more" if len(tags) > _SHOWN else ""
                shown = ", ".join(tags[:_SHOWN]) + more
                self._say(f"device '{device.name}': {shown}: {reason}")

    def _say(self, text: str) -> None:
        if text not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(text)
            log.warning(text)


def _wanted(device: Device) -> list[Wanted]:
    """The addresses of a device's tags, beside them."""
    options = options_of(device)
    return [Wanted(options.root, options.max_matches, parse(tag.address)) for tag in device.tags]


def _of_item(plan: Plan, item: Item) -> Wanted:
    return Wanted(plan.options.root, plan.options.max_matches, item.address)


def _grouped(device: Device, plan: Plan, pairs: Sequence[tuple[Item, Known]]) -> ScanGroup:
    """A group of these items, with the types that the server told."""
    types = [_word(item, known) for item, known in pairs]
    return group_of(device, plan.options, plan.every_s, [item for item, _ in pairs], types)


def _word(item: Item, known: Known) -> str:
    """The type as published: an enumeration goes by its names. A list has none, whatever is in it."""
    if known.labels and known.rank == -1 and item.options.enum == "name":
        return "string"
    return known.type or item.tag.type


def _is_same(one: ScanGroup, other: ScanGroup) -> bool:
    """Whether a group can stay in use."""
    return one.types == other.types and one.tags == other.tags and one.plan == other.plan
