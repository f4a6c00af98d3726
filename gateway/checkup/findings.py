"""What a check-up finds: what it is about, where, what is so, and the cure where something is not well."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

State = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `wrong`: it does not work, or anybody can get in. `warning`: it works, but not for good."""

    state: State
    thing: str
    place: str
    text: str
    cure: str = ""


@dataclass(slots=True)
class Chart:
    """The findings about one thing at one place, in the order they were made."""

    thing: str
    place: str
    findings: list[Finding] = field(default_factory=list)

    def well(self, text: str) -> None:
        """Note what is as it should be."""
        self.findings.append(Finding("ok", self.thing, self.place, text))

    def warn(self, text: str, cure: str) -> None:
        """Note what works but should not stay so."""
        self.findings.append(Finding("warning", self.thing, self.place, text, cure))

    def wrong(self, text: str, cure: str) -> None:
        """Note what does not work."""
        self.findings.append(Finding("wrong", self.thing, self.place, text, cure))

    def of(self, place: str) -> Chart:
        """Go on about the same thing at another place, in the same list."""
        return Chart(self.thing, place, self.findings)
