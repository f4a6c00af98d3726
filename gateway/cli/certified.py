"""The devices of a file that are met with certificates, for `headgate certificate` and `headgate trust`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.certificates import Certificates, ShownCertificate
    from gateway.config import Config


@dataclass(frozen=True, slots=True)
class Holder:
    """A device, and the certificates on both sides of its connection."""

    device: str
    certificates: Certificates


def declare(parser: argparse.ArgumentParser) -> None:
    """The arguments that both commands share."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the gateway file")
    parser.add_argument("device", nargs="?", metavar="DEVICE", help="only this device; otherwise all with certificates")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def holders(options: argparse.Namespace) -> list[Holder]:
    """The devices that were asked for. Raises FileError, and RefusedError where there are none with certificates."""
    from gateway.cli.desk import device_of
    from gateway.config import load
    from gateway.errors import RefusedError

    config = load(options.file)
    if options.device is None:
        found = _holders(config)
        if not found:
            raise RefusedError(
                f"{options.file}: none of its devices is met with certificates; those with driver: opcua are"
            )
        return found
    device = device_of(config, options.device)
    found = [holder for holder in _holders(config) if holder.device == device.name]
    if not found:
        raise RefusedError(f"device '{device.name}' has no certificates: its driver '{device.driver}' does not use any")
    return found


def _holders(config: Config) -> list[Holder]:
    from gateway.clock import SystemClock
    from gateway.driver import Certifies, find

    found, clock = [], SystemClock()
    for device in config.devices:
        driver: Any = find(device.driver)
        if isinstance(driver, Certifies) and not device.part_of:
            found.append(Holder(device.name, driver.certificates(device, clock=clock)))
    return found


def by_folder(found: Sequence[Holder]) -> dict[Path, list[Holder]]:
    """The same, those together that share a folder."""
    folders: dict[Path, list[Holder]] = {}
    for holder in found:
        folders.setdefault(holder.certificates.folder, []).append(holder)
    return folders


def digits_of(text: str) -> str:
    """The digits of a fingerprint, however somebody writes it, as a certificate's are: no separators, lower case."""
    return re.sub(r"[\s:.-]", "", text).lower()


def begins_with(shown: ShownCertificate, digits: str) -> bool:
    """Whether one of its fingerprints begins with these digits."""
    return shown.thumbprint.startswith(digits) or shown.sha256.startswith(digits)


def lines_of(shown: ShownCertificate) -> list[str]:
    """A certificate for people to compare."""
    return [
        f"  subject           {shown.subject}",
        f"  application URI   {shown.application_uri or 'none'}",
        f"  hosts             {', '.join(shown.hosts) or 'none'}",
        f"  thumbprint        {grouped(shown.thumbprint)}  (SHA-1)",
        f"  SHA-256           {grouped(shown.sha256)}",
        f"  valid             {shown.not_before:%Y-%m-%d} to {shown.not_after:%Y-%m-%d}",
    ]


def grouped(digits: str) -> str:
    """Hexadecimal digits in groups of eight, upper case as most tools show them."""
    return " ".join(digits[at : at + 8] for at in range(0, len(digits), 8)).upper()


def document_of(shown: ShownCertificate) -> dict[str, Any]:
    """A certificate for machines."""
    return {
        "path": str(shown.path),
        "thumbprint": shown.thumbprint,
        "sha256": shown.sha256,
        "subject": shown.subject,
        "issuer": shown.issuer,
        "application_uri": shown.application_uri,
        "hosts": shown.hosts,
        "not_before": f"{shown.not_before:%Y-%m-%dT%H:%M:%SZ}",
        "not_after": f"{shown.not_after:%Y-%m-%dT%H:%M:%SZ}",
    }
