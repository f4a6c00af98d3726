"""`headgate certificate FILE [DEVICE]`: the gateway's own certificate, made where there is none, renewed if asked."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.certificates import OwnCertificate
    from gateway.cli.certified import Holder

SUMMARY = "Show the certificate that servers know the gateway by; it is made where there is none."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from gateway.cli import certified

    certified.declare(parser)
    parser.add_argument("--renew", action="store_true", help="renew it now, with the same key")


def run(options: argparse.Namespace) -> int:
    """Show the certificates, each once however many devices share it. Exit code 1 where one cannot be used."""
    from gateway.cli import certified
    from gateway.cli.queue_target import print_json

    found = []
    for holders in certified.by_folder(certified.holders(options)).values():
        own = holders[0].certificates.own(renew=options.renew)
        found.append((holders, own, _cautions(holders, own)))
    if options.json:
        print_json({"certificates": [_document(*each) for each in found]})
        return 0
    for holders, own, cautions in found:
        print("\n".join(_lines(holders, own)))
        for caution in cautions:
            print(f"warning: {caution}", file=sys.stderr)
    return 0


def _cautions(holders: list[Holder], own: OwnCertificate) -> list[str]:
    """What to know of it, the devices asked one by one: each may say another application URI."""
    shown = [holder.certificates.seen() for holder in holders[1:]]
    found = dict.fromkeys([*own.cautions, *(caution for each in shown if each for caution in each.cautions)])
    unused = [
        f"device '{h.device}' makes no use of it: {h.certificates.unused}" for h in holders if h.certificates.unused
    ]
    return [*found, *unused]


def _lines(holders: list[Holder], own: OwnCertificate) -> list[str]:
    from gateway.cli.certified import lines_of

    return [
        f"{', '.join(holder.device for holder in holders)}: {own.path}{' (new)' if own.is_new else ''}",
        *lines_of(own),
        f"  private key       {own.key_path}",
        "The server has to trust it: copy this file into the server's folder of trusted clients, or start the gateway,",
        "which is refused once, and accept it in the server's list of refused certificates.",
    ]


def _document(holders: list[Holder], own: OwnCertificate, cautions: list[str]) -> dict[str, Any]:
    from gateway.cli.certified import document_of

    return {
        "devices": [holder.device for holder in holders],
        **document_of(own),
        "key_path": str(own.key_path),
        "is_new": own.is_new,
        "warnings": cautions,
    }
