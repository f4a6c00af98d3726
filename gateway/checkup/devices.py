"""The devices' certificates looked at: how long ours is valid, and whether servers' wait to be approved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.certificates import Certificates, ServerCertificate
from gateway.checkup.findings import Chart, Finding
from gateway.clock import Clock, SystemClock
from gateway.driver import Certifies, find
from gateway.errors import RefusedError
from gateway.model import Device

_SOON = timedelta(days=60)
_DIGITS = 12
"""Of a thumbprint: enough to tell one from another."""


def look(
    devices: Iterable[Device], *, clock: Clock | None = None, drivers: Callable[[str], Any] = find
) -> list[Finding]:
    """What there is to say of the certificates, each folder once. Nothing is made, and no device is called."""
    own = clock or SystemClock()
    folders: dict[Path, list[tuple[str, Certificates]]] = {}
    for device in devices:
        driver = drivers(device.driver)
        if isinstance(driver, Certifies) and not device.part_of:
            certificates = driver.certificates(device, clock=own)
            if not (certificates.unused and certificates.unchecked):
                folders.setdefault(certificates.folder, []).append((device.name, certificates))
    now = datetime.fromtimestamp(own.wall_ms() / 1000, UTC)
    findings: list[Finding] = []
    for folder, found in folders.items():
        chart = Chart(f"certificates of {', '.join(name for name, _ in found)}", str(folder), findings)
        certificates = found[0][1]
        try:
            if not all(each.unused for _, each in found):
                _look_at_own(certificates, chart)
            for server in certificates.servers():
                _look_at_server(server, now, chart)
            for fault in certificates.faults():
                chart.warn(fault, "Take the file out, or put a whole certificate there")
        except RefusedError as error:
            text, _, cure = str(error).rpartition(". ")
            chart.wrong(text or cure, cure)
    return findings


def _look_at_own(certificates: Certificates, chart: Chart) -> None:
    own = certificates.seen()
    if own is None:
        chart.warn(
            "the gateway has no certificate yet: servers will refuse it once",
            "Make it and let the servers trust it before: headgate certificate FILE",
        )
        return
    for caution in own.cautions:
        text, _, cure = caution.rpartition(". ")
        chart.warn(text or cure, cure)
    if not own.cautions:
        chart.well(f"the gateway's own certificate is valid until {own.not_after:%Y-%m-%d}")


def _look_at_server(server: ServerCertificate, now: datetime, chart: Chart) -> None:
    there = ", ".join(server.urls) or server.path.name
    if server.state == "pending":
        cure = f"Compare it with the server's own, then: headgate trust FILE --approve {server.thumbprint[:_DIGITS]}"
        chart.warn(f"the certificate of {there} waits to be approved: {server.why}", cure)
    elif now >= server.not_after - _SOON:
        verb = "has ended" if now >= server.not_after else "ends"
        chart.warn(
            f"the certificate of {there} {verb} on {server.not_after:%Y-%m-%d}; it stays trusted here",
            "Renew it at the server, then approve the new one: headgate trust FILE",
        )
    else:
        chart.well(f"the certificate of {there} is trusted")
