"""The machine and the running gateway looked at: the clock, what the file warns of, the state of the uplinks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.checkup.findings import Chart, Finding
from gateway.clock import Clock, SystemClock
from gateway.control import ControlError, NotRunningError, ask
from gateway.errors import Mistake


def status_of(spool: Path) -> Mapping[str, Any] | None:
    """What the gateway that runs on this folder says of itself; None where none runs, empty where it does not say."""
    try:
        return ask(spool, {"do": "status"})
    except NotRunningError:
        return None
    except ControlError:
        return {}


def look(warnings: Iterable[Mistake], status: Mapping[str, Any] | None, clock: Clock | None = None) -> list[Finding]:
    """All there is to say before anybody is called."""
    chart = Chart("clock", "")
    if (clock or SystemClock()).state() == "synced":
        chart.well("synchronised")
    else:
        chart.warn(
            "the clock is not synchronised: dates of certificates and time stamps of samples cannot be believed",
            "Have a time service run: timedatectl set-ntp true, or chrony",
        )
    for warning in warnings:
        text, _, cure = warning.text.partition(". ")
        Chart("file", str(warning.place), chart.findings).warn(text, cure)
    _look_at_gateway(status, Chart("gateway", "", chart.findings))
    return chart.findings


def _look_at_gateway(status: Mapping[str, Any] | None, chart: Chart) -> None:
    if status is None:
        chart.well("does not run")
        return
    chart.well("runs")
    for uplink in status.get("uplinks", ()):
        there = Chart(f"uplink {uplink['name']}", "", chart.findings)
        if uplink["connected"]:
            there.well(f"the running gateway is connected to {uplink['server']}")
        else:
            there.wrong(
                f"the running gateway is not connected: {uplink['last_error']}", "See what is found about its servers"
            )
