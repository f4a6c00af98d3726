"""`headgate queue VERB FILE`: what a person does with a spool, running or not, here or on a card found in a drawer."""

from __future__ import annotations

import argparse
import importlib
from typing import Any

SUMMARY = "Look into a spool and look after it: status, inspect, export, replay, purge, verify, audit, repair, …"

VERBS = (
    "status",
    "inspect",
    "export",
    "replay",
    "purge",
    "forget",
    "verify",
    "audit",
    "repair",
    "bench",
    "selftest",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs, each from a file of its own."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name in VERBS:
        module: Any = importlib.import_module(f"gateway.cli.queue_{name}")
        sub = verbs.add_parser(name, help=module.SUMMARY, description=module.SUMMARY)
        module.configure(sub)
        sub.set_defaults(work_of_verb=module.run)


def run(options: argparse.Namespace) -> int:
    """Do what the verb says."""
    return int(options.work_of_verb(options))
