"""The section `spool`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from gateway.mapping.reading import Reading
from gateway.mapping.schema import Section
from gateway.model import CLASSES, Place, RecordClass
from gateway.quantities import DurationRange, SizeRange, format_size, parse_duration, parse_size
from gateway.settings.checks import many
from gateway.spool.limits import Full, Limits

_SHARES: Mapping[RecordClass, float] = {"alarm": 0.1, "event": 0.05, "diag": 0.05}
"""What of `max_bytes` and `ram_bytes` a class gets that asks for nothing; data has the rest."""

_LEAST_BYTES = 1 << 20
_LEAST_RAM = 512 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What the file asks for one class beside the usual; None: by default."""

    max_bytes: int | None = None
    commit_interval_s: float | None = None
    full: Full | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spool:
    """Where the spool lies (absolute) and how much it may take, all classes together.

    `clock_wait_s`: how long records wait for a clock that is evidently wrong.
    """

    path: Path
    limits: Limits
    clock_wait_s: float = 600.0
    shares: Mapping[RecordClass, Share] = field(default_factory=dict)

    def limits_of(self, used: Collection[RecordClass]) -> dict[RecordClass, Limits]:
        """The limits of each class's queue; what the `used` ones may take, data may not."""
        limits = {name: self._limits_of(name) for name in _SHARES}
        taken = [limits[name] for name in limits if name in used]
        rest = replace(
            self.limits,
            max_bytes=max(_LEAST_BYTES, self.limits.max_bytes - sum(limit.max_bytes for limit in taken)),
            ram_bytes=max(_LEAST_BYTES, self.limits.ram_bytes - sum(limit.ram_bytes for limit in taken)),
        )
        return {"data": self._asked("data", rest), **limits}

    def _limits_of(self, name: RecordClass) -> Limits:
        share, whole = _SHARES[name], self.limits
        limits = replace(
            whole,
            max_bytes=max(_LEAST_BYTES, int(whole.max_bytes * share)),
            ram_bytes=max(_LEAST_RAM, int(whole.ram_bytes * share)),
            keep_bytes=int(whole.keep_bytes * share),
            commit_interval_s=0.0 if name == "alarm" else whole.commit_interval_s,
            full="drop_oldest",
        )
        return self._asked(name, limits)

    def _asked(self, name: RecordClass, limits: Limits) -> Limits:
        asked = self.shares.get(name, Share())
        return replace(
            limits,
            max_bytes=limits.max_bytes if asked.max_bytes is None else asked.max_bytes,
            commit_interval_s=(
                limits.commit_interval_s if asked.commit_interval_s is None else asked.commit_interval_s
            ),
            full=asked.full or limits.full,
        )


class ClassSection(Section):
    """What one class of records may take."""

    max_bytes: Annotated[int, SizeRange("1MiB", "16TiB")] | None = Field(
        None, description="The most this class may hold on disk: by default alarm 10 %, event 5 %, diag 5 % of all."
    )
    commit_interval_s: Annotated[float, DurationRange("0s", "1h")] | None = Field(
        None,
        alias="commit_interval",
        description="The longest a record of this class waits before it is written; by default 0s for alarm.",
    )
    full: Full | None = Field(None, description="What gives way when this class is full; by default drop_oldest.")


def _keep(written: str) -> str:
    """Check that it is a duration or a size. Raises ValueError."""
    if written != "0" and not written.endswith("B"):
        parse_duration(written)
    elif written != "0":
        parse_size(written)
    return written


def _bounds(value: Any) -> Any:
    """A list of one where one bound stands for it; a number is text, so that it is told that its unit is missing."""
    return many(str(value) if type(value) in {int, float} else value)


class SpoolSection(Section):
    """The durable queue between the devices and the uplinks."""

    path: str | None = Field(
        None, description="The spool's folder, relative to this file; by default headgate-data/spool beside this file."
    )
    max_bytes: Annotated[int, SizeRange("1MiB", "16TiB")] = Field(
        2**30,
        description="The most the spool may hold on disk; then `full` says what goes. Default 1GiB.",
    )
    min_free_bytes: Annotated[int, SizeRange("0B", "16TiB")] = Field(
        64 * 2**20,
        description="So much of the file system is left to others: below it the spool takes no more. Default 64MiB.",
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
    keep_after_ack: Annotated[
        list[Annotated[str, BeforeValidator(_keep)]],
        BeforeValidator(_bounds, json_schema_input_type=str | list[str]),
    ] = Field(
        default_factory=list,
        description="How long (1d), up to what size (500MiB), or both, stored records stay when all have them.",
    )
    full: Full = Field(
        "drop_oldest",
        description="What gives way at max_bytes: the oldest records, new ones, or detail of the oldest (thin).",
    )
    thin_window_s: Annotated[float, DurationRange("1s", "1h")] = Field(
        30.0,
        alias="thin_window",
        description="With thin, of so long a time a tag's first, last, lowest and highest value stay; default 30s.",
    )
    clock_wait_s: Annotated[float, DurationRange("0s", "24h")] = Field(
        600.0,
        alias="clock_wait",
        description="How long records other than alarms wait for a clock that is evidently wrong; default 10m.",
    )
    classes: dict[RecordClass, ClassSection] = Field(
        default_factory=dict, description="Bounds of their own for classes of records: alarm, event, data, diag."
    )


def read_spool(given: dict[str, Any], place: Place, reading: Reading) -> Spool | None:
    """The spool's settings; None when there are mistakes, which are noted."""
    section = reading.validate(SpoolSection, given, place, _spool)
    if section is None:
        return None
    path = (reading.base / (section.path or "headgate-data/spool")).absolute()
    _check(section, given, place, reading)
    kept = [text for text in section.keep_after_ack if text != "0"]
    limits = Limits(
        max_bytes=section.max_bytes,
        ram_bytes=section.ram_bytes,
        min_free_bytes=section.min_free_bytes,
        commit_interval_s=section.commit_interval_s,
        commit_bytes=section.commit_bytes,
        persist=section.persist,
        keep_s=next((parse_duration(text) for text in kept if not text.endswith("B")), 0.0),
        keep_bytes=next((parse_size(text) for text in kept if text.endswith("B")), 0),
        full=section.full,
        thin_s=section.thin_window_s,
    )
    shares = {
        name: Share(max_bytes=own.max_bytes, commit_interval_s=own.commit_interval_s, full=own.full)
        for name, own in section.classes.items()
    }
    return Spool(path=path, limits=limits, clock_wait_s=section.clock_wait_s, shares=shares)


def _check(section: SpoolSection, given: dict[str, Any], place: Place, reading: Reading) -> None:
    """Note what does not go together."""
    if section.ram_bytes < section.commit_bytes:
        at = reading.places.locate(given, ["ram_bytes"], place)
        reading.mistakes.add(at, "spool: ram_bytes is less than commit_bytes. Make it larger")
    at = reading.places.locate(given, ["keep_after_ack"], place)
    if len({text.endswith("B") for text in section.keep_after_ack}) < len(section.keep_after_ack):
        text = "spool: keep_after_ack takes one duration and one size. Take one out"
        reading.mistakes.add(at, text)
    if section.keep_after_ack and section.persist == "on_age":
        text = (
            "spool: keep_after_ack keeps what was written, and with persist: on_age nothing is while the uplinks work."
            " Write persist: always"
        )
        reading.mistakes.warn(at, text)
    if any(text.endswith("B") and parse_size(text) > section.max_bytes for text in section.keep_after_ack):
        text = "spool: keep_after_ack asks for more than max_bytes, which ends it before. Make max_bytes larger"
        reading.mistakes.warn(at, text)
    fulls = (section.full, *(share.full for share in section.classes.values()))
    if "thin_window_s" in section.model_fields_set and "thin" not in fulls:
        at = reading.places.locate(given, ["thin_window"], place)
        reading.mistakes.warn(at, "spool: thin_window is for full: thin and does nothing here. Take it out")


def check_shares(
    spool: Spool, used: Collection[RecordClass], given: dict[str, Any], place: Place, reading: Reading
) -> None:
    """Note classes that together take more than there is; `used` are those of the tags."""
    names = {"data", *used, *(name for name, share in spool.shares.items() if share.max_bytes is not None)}
    limits = {name: limit.max_bytes for name, limit in spool.limits_of(names).items() if name in names}
    needed = sum(limits.values())
    if needed > spool.limits.max_bytes:
        at = reading.places.locate(given, ["classes" if "classes" in given else "max_bytes"], place)
        listed = ", ".join(f"{name} {format_size(limits[name])}" for name in CLASSES if name in limits)
        text = f"spool: max_bytes is {format_size(spool.limits.max_bytes)}, and the classes take more: {listed}."
        reading.mistakes.add(at, f"{text} Make it {format_size(needed)} or more, or give classes less")


def _spool(_place: Place) -> str:
    return "spool: "
