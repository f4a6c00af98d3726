"""The section `spool`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.mapping.reading import Reading
from gateway.mapping.schema import Section
from gateway.model import Place
from gateway.quantities import DurationRange, SizeRange
from gateway.spool.spool import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """Where the spool lies (absolute) and how much it may take."""

    path: Path
    limits: Limits


class SpoolSection(Section):
    """The durable queue between the devices and the uplinks."""

    path: str | None = Field(
        None, description="The spool's folder, relative to this file; by default headgate-data/spool beside this file."
    )
    max_bytes: Annotated[int, SizeRange("1MiB", "16TiB")] = Field(
        2**30,
        description="The most the spool may hold on disk; beyond it the oldest records go, counted. Default 1GiB.",
    )
    commit_interval_s: Annotated[float, DurationRange("10ms", "1h")] = Field(
        1.0, alias="commit_interval", description="The longest a record waits before it is written to disk; default 1s."
    )
    commit_bytes: Annotated[int, SizeRange("4KiB", "64MiB")] = Field(
        256 * 2**10, description="So much data is written at once, before its time; default 256KiB."
    )
    ram_bytes: Annotated[int, SizeRange("1MiB", "64GiB")] = Field(
        16 * 2**20, description="The most memory that records may take; default 16MiB."
    )
    persist: Literal["on_age", "always"] = Field(
        "on_age",
        description="Whether to write only records that no uplink acknowledged in time (on_age), or all (always).",
    )


def read_spool(given: dict[str, Any], place: Place, reading: Reading) -> Spool | None:
    """The spool's settings; None when there are mistakes, which are noted."""
    section = reading.validate(SpoolSection, given, place, _spool)
    if section is None:
        return None
    path = (reading.base / (section.path or "headgate-data/spool")).absolute()
    if section.ram_bytes < section.commit_bytes:
        at = reading.places.locate(given, ["ram_bytes"], place)
        reading.mistakes.add(at, "spool: ram_bytes is less than commit_bytes. Make it larger")
    limits = Limits(
        max_bytes=section.max_bytes,
        ram_bytes=section.ram_bytes,
        commit_interval_s=section.commit_interval_s,
        commit_bytes=section.commit_bytes,
        persist=section.persist,
    )
    return Spool(path=path, limits=limits)


def _spool(_place: Place) -> str:
    return "spool: "
