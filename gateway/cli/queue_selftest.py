"""`headgate queue selftest`: kills a writing process, damages what it wrote: does the spool keep its word?"""

from __future__ import annotations

import argparse
import secrets
import signal
from dataclasses import asdict

from gateway.cli import queue_target

SUMMARY = "Write, kill, damage, and see that nothing durable is lost: on this medium, beside the spool."

_MOST_ROUNDS = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    queue_target.declare(parser, with_class=False)
    parser.add_argument("--rounds", type=_rounds, default=5, metavar="N", help="kill so often (default: 5)")
    parser.add_argument("--seed", type=int, metavar="N", help="repeat the run of that number")


def run(options: argparse.Namespace) -> int:
    """Say of each check whether it held. Exit code 1 when one did not. The spool itself is not touched."""
    from gateway.upkeep.trial import selftest

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left behind
    seed = options.seed if options.seed is not None else secrets.randbelow(1 << 31)
    checks = []
    for check in selftest(queue_target.find(options).ground, options.rounds, seed):
        checks.append(check)
        if not options.json:
            print(f"{'ok    ' if check.is_ok else 'FAILED'}  {check.name}: {check.seen}", flush=True)
    is_ok = all(check.is_ok for check in checks)
    if options.json:
        queue_target.print_json({"ok": is_ok, "seed": seed, "checks": [asdict(check) for check in checks]})
    elif not is_ok:
        print(f"something failed. The same run again: --seed {seed} --rounds {options.rounds}")
    return int(not is_ok)


def _rounds(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_ROUNDS:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 to {_MOST_ROUNDS}")
    return int(text)
