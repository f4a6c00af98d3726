"""`headgate doctor FILE`: what is not well with a gateway file's broker, uplinks and certificates; nothing starts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.checkup.findings import Finding
    from gateway.config import Config

SUMMARY = "Look at broker, uplinks and devices' certificates: ports, logins, limits, dates, path MTU, clock."

_MOST_AT_ONCE = 16


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", type=Path, help="the gateway file")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(options: argparse.Namespace) -> int:
    """Look, and print what was found. Exit code 1 when something is wrong, 0 also with warnings."""
    from gateway.config import load

    config = load(options.file)
    findings = look(config)
    is_well = all(finding.state != "wrong" for finding in findings)
    if options.json:
        _print_json({"gateway": config.gateway, "ok": is_well, "findings": [_row(f) for f in findings]})
    else:
        print("\n".join(line for finding in findings for line in _lines(finding)))
        print(_summary(config.gateway, findings))
    return 0 if is_well else 1


def look(config: Config) -> list[Finding]:
    """Everything that is found, servers asked at the same time, in the order of the file."""
    from concurrent.futures import ThreadPoolExecutor

    from gateway.checkup import broker, devices, machine, uplinks

    status = machine.status_of(config.spool.path)
    is_running = status is not None
    with ThreadPoolExecutor(_MOST_AT_ONCE, "doctor") as pool:
        jobs = []
        if config.broker is not None:
            jobs.append(pool.submit(broker.look, config.broker.options, is_running=is_running))
        jobs += [pool.submit(uplinks.look, uplink, is_running=is_running) for uplink in config.uplinks.values()]
    found = [finding for job in jobs for finding in job.result()]
    return [*machine.look(config.warnings, status), *devices.look(config.devices), *found]


def _print_json(document: dict[str, Any]) -> None:
    import orjson

    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


def _row(finding: Finding) -> dict[str, str]:
    return {name: getattr(finding, name) for name in ("state", "thing", "place", "text", "cure")}


def _lines(finding: Finding) -> list[str]:
    """One finding for people: what is wrong first catches the eye by its word, the cure stands below."""
    where = " ".join(part for part in (finding.thing, finding.place) if part)
    lines = [f"{finding.state:<8} {where}: {finding.text}"]
    if finding.cure:
        lines.append(f"{'':<8}   {finding.cure}")
    return lines


def _summary(gateway: str, findings: list[Finding]) -> str:
    counts = {state: sum(f.state == state for f in findings) for state in ("wrong", "warning", "ok")}
    return f"{gateway}: {counts['wrong']} wrong, {counts['warning']} warnings, {counts['ok']} well"
