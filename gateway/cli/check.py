"""`headgate check FILE`: what is wrong with a gateway file, or what it says when nothing is. Nothing is touched."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.driver import Explanation
    from gateway.errors import Mistake
    from gateway.model import ScanGroup

SUMMARY = "check a gateway file: every mistake with its place and its cure; nothing is touched"

_SHOWN = 20
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Budget:
    """What the driver of a line says of it; the warning where that is more than the line can give."""

    port: str
    said: Explanation
    warning: Mistake | None


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("file", type=Path, help="the gateway file")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    parser.add_argument("--plan", action="store_true", help="list each request as it will be asked")
    parser.add_argument(
        "--export-csv", type=Path, metavar="OUT", help="write all tags as a CSV tag list to OUT (- for standard output)"
    )


def run(args: argparse.Namespace) -> int:
    """Check the file. Exit code 0 when it can be run, 2 when not, 1 when the list cannot be written.

    Mistakes and warnings go to standard output, one a line; how many there are goes to standard error.
    """
    from gateway.config import load
    from gateway.errors import FileError

    try:
        config = load(args.file)
    except FileError as error:
        if args.json:
            _print_json({"ok": False, "mistakes": _listed(error.mistakes), "warnings": []})
        else:
            for mistake in error.mistakes:
                print(mistake)
            print(f"{args.file}: {_count(len(error.mistakes), 'mistake')}", file=sys.stderr)
        return 2
    if args.export_csv is not None:
        return _export(config, args.export_csv)
    budgets = _budgets(config)
    warnings = [*config.warnings, *(b.warning for b in budgets if b.warning is not None)]
    if args.json:
        plans = _lines(budgets, plan=args.plan)
        _print_json({"ok": True, "mistakes": [], "warnings": _listed(warnings), **_facts(config), "budgets": plans})
        return 0
    for warning in warnings:
        print(f"{warning.place}: warning: {warning.text}")
    print("\n".join(_summary(config, budgets)))
    if args.plan:
        print("\n".join(f"{b.port}: {request}" for b in budgets for request in b.said.plan))
    print(f"{args.file}: no mistakes", file=sys.stderr)
    return 0


def _listed(mistakes: Iterable[Mistake]) -> list[dict[str, Any]]:
    return [{"file": m.place.file, "line": m.place.line, "column": m.place.column, "text": m.text} for m in mistakes]


def _print_json(document: dict[str, Any]) -> None:
    import orjson

    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def _budgets(config: Config) -> list[Budget]:
    """What the drivers say of their lines; nothing of those that cannot tell."""
    from gateway.driver import Explains, find
    from gateway.errors import Mistake

    budgets: list[Budget] = []
    for key, devices in config.lines.items():
        driver: Any = find(devices[0].driver)
        if isinstance(driver, Explains):
            said = driver.explain(devices, [group for device in devices for group in config.groups[device.name]])
            warning = None
            if said.busy is not None and said.busy > 1:
                text = f"line {key.port}: {_needed(said.busy)}; the first tags to slow down are {_some(said.slow)}"
                warning = Mistake(devices[0].place, text)
            budgets.append(Budget(key.port, said, warning))
    return budgets


def _lines(budgets: Iterable[Budget], *, plan: bool) -> list[dict[str, Any]]:
    """The budgets for machines."""
    return [
        {
            "line": b.port,
            "busy": None if b.said.busy is None else round(b.said.busy, 4),
            "slow": b.said.slow,
            **({"plan": b.said.plan} if plan else {}),
        }
        for b in budgets
    ]


def _needed(busy: float) -> str:
    return f"needs {busy * 1000:,.0f} ms of every 1,000 ms"


def _some(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _facts(config: Config) -> dict[str, Any]:
    """What the file says, in numbers."""
    return {
        "gateway": config.gateway,
        "prefix": config.prefix,
        "spool": str(config.spool.path),
        "lines": len(config.lines),
        "tags": sum(len(device.tags) for device in config.devices),
        "values_per_s": round(sum(values_per_s(groups) for groups in config.groups.values()), 3),
        "devices": [
            {
                "name": device.name,
                "driver": device.driver,
                "url": device.url,
                "part_of": device.part_of or None,
                "tags": len(device.tags),
                "groups": len(config.groups[device.name]),
                "requests": None if device.part_of else requests(config.groups[device.name]),
                "values_per_s": round(sum(1 / tag.every_s for tag in device.tags), 3),
            }
            for device in config.devices
        ],
        "uplinks": [
            {"name": u.name, "urls": u.servers, "payload": u.payload, "topic": u.topic, "qos": u.qos, "holds": u.holds}
            for u in config.uplinks.values()
        ],
        "broker": None if config.broker is None else {"listen": [str(a) for a in config.broker.options.listen]},
    }


def values_per_s(groups: Iterable[ScanGroup]) -> float:
    """How many values a second are read when all goes well."""
    return sum(len(group.tags) / group.every_s for group in groups)


def requests(groups: Iterable[ScanGroup]) -> int | None:
    """How many requests it takes to read each group once; None where the driver does not know."""
    counts = [group.requests for group in groups]
    return sum(counts) if all(counts) else None


def _summary(config: Config, budgets: Iterable[Budget]) -> list[str]:
    """What the file says, for people."""
    facts = _facts(config)
    plant = f"{_count(len(config.devices), 'device')} on {_count(len(config.lines), 'line')}"
    load = f"{_count(facts['tags'], 'tag')}, {facts['values_per_s']:g} values/s"
    lines = [f"gateway {config.gateway}: {plant}, {load}"]
    for device in facts["devices"][:_SHOWN]:
        asked = "" if device["requests"] is None else f" in {_count(device['requests'], 'request')}"
        text = f"{_count(device['tags'], 'tag')}{asked}, {device['values_per_s']:g} values/s"
        where = f"part of {device['part_of']}" if device["part_of"] else f"{device['driver']} {device['url']}"
        lines.append(f"  {device['name']}: {where}, {text}")
    if (more := len(config.devices) - _SHOWN) > 0:
        lines.append(f"  … and {more} more")
    busy = [(b.port, b.said.busy) for b in budgets if b.said.busy is not None]
    lines += [f"line {port}: {_needed(share)}" for port, share in busy[:_SHOWN]]
    for uplink in config.uplinks.values():
        topic = uplink.topic.replace("{prefix}", config.prefix).replace("{gateway}", config.gateway)
        lines.append(
            f"uplink {uplink.name}: {', '.join(uplink.servers)}, {uplink.payload} to {topic}, qos {uplink.qos}"
        )
    if config.broker is not None:
        options = config.broker.options
        unasked = [str(address) for address in options.listen if not options.asks_who_at(address)]
        who = "clients must show who they are" if not unasked else "anybody may enter"
        if 0 < len(unasked) < len(options.listen):
            who += f" at {', '.join(unasked)}"
        lines.append(f"broker: {', '.join(map(str, options.listen))}, {who}")
    lines.append(f"spool: {config.spool.path}")
    return lines


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _export(config: Config, out: Path) -> int:
    """Write the tags as a list. Exit code."""
    from gateway.driver import find
    from gateway.mapping.tags_csv import write_tags

    if str(out) == "-":
        write_tags(config.devices, find, sys.stdout)
        return 0
    try:
        with out.open("w", encoding="utf-8", newline="") as file:
            count = write_tags(config.devices, find, file)
    except OSError as error:
        print(f"{out}: {(error.strerror or str(error)).lower()}", file=sys.stderr)
        return 1
    print(f"{out}: {count} tags", file=sys.stderr)
    return 0
