"""`headgate queue audit`: what became of every record, for each uplink."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gateway.cli import queue_target

if TYPE_CHECKING:
    from gateway.spool.cursor import State
    from gateway.upkeep.audit import Account
    from gateway.upkeep.survey import Survey

SUMMARY = "Say what is missing, doubled, evicted or unknown for each uplink. Exit code 1 when something is missing."

_SHOWN = 40


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    queue_target.declare(parser)
    queue_target.declare_span(parser, "only records")
    parser.add_argument("--uplink", metavar="NAME", help="only for this uplink")


def run(options: argparse.Namespace) -> int:
    """Read all there is and give each uplink's account."""
    from gateway.cli.queue_progress import Progress
    from gateway.upkeep.audit import audit

    span = queue_target.span(options)
    target = queue_target.find(options)
    surveys = target.surveys(options.record_class)
    states = [_without_reserve(survey, target) for survey in surveys]
    _check(options.uplink, {m.name for state in states if state is not None for m in state.marks})
    accounts: list[Account] = []
    with Progress("audit", sum(survey.size for survey in surveys)) as progress:
        for survey, state in zip(surveys, states, strict=True):
            accounts += audit(survey, span, options.uplink, state=state, advance=progress.advance)
    is_running = target.is_running
    is_complete = all(account.is_complete for account in accounts)
    if options.json:
        rows = [_document(account) for account in accounts]
        queue_target.print_json({"ok": is_complete, "running": is_running, "accounts": rows})
    else:
        for account in accounts:
            _print(account)
        print("nothing is missing" if is_complete else "something is missing, see `lost` above")
        if is_running:
            print("a gateway runs here: this is what the folder said; newer records may be in memory only")
    return int(not is_complete)


def _without_reserve(survey: Survey, target: queue_target.Target) -> State | None:
    """What the folder says; where a gateway runs, the numbers it has not given to any record yet are no riddle."""
    from dataclasses import replace

    from gateway.control import ControlError

    state = survey.state()
    with suppress(ControlError):
        answer = queue_target.running(target) if state is not None else None
        for queue in answer["spool"]["queues"] if answer else ():
            if state is not None and queue["record_class"] == survey.part.record_class:
                state = replace(state, ceiling=min(state.ceiling, queue["head"]))
    return state


def _check(uplink: str | None, known: set[str]) -> None:
    from gateway.errors import RefusedError

    if uplink is not None and uplink not in known:
        there = f"there are: {', '.join(sorted(known))}" if known else "there are none"
        raise RefusedError(f"the spool knows no uplink '{uplink}'; {there}")


def _document(account: Account) -> dict[str, Any]:
    totals = [{"fate": fate, "cause": cause, "count": n} for (fate, cause), n in account.totals.items()]
    return {**asdict(account), "totals": totals}


def _print(account: Account) -> None:
    from gateway.upkeep.moments import iso

    what = "" if account.holds else ", holds nothing"
    print(f"{account.record_class}, uplink {account.name or '(none is known)'}{what}:")
    for (fate, cause), count in account.totals.items():
        print(f"  {count:>12,} {fate}" + (f" ({cause})" if cause else ""))
    telling = [r for r in account.ranges if r.fate not in ("acknowledged", "waiting")]
    for r in telling[:_SHOWN]:
        times = f", {iso(r.first_time) or '?'} to {iso(r.last_time) or '?'}" if r.last_time else ""
        cause = f" ({r.cause})" if r.cause else ""
        print(f"    {r.fate}{cause}: records {r.first_seq} to {r.last_seq}, {r.count} at most{times}")
    if len(telling) > _SHOWN:
        print(f"    and {len(telling) - _SHOWN} more ranges; --json has them all")
    if not account.totals:
        print("  nothing of that time")
