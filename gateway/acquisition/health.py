"""Who on a line is sick, whose turn it is to be asked again, and the share of the line's time that this may take. Pure.

A *patient* is a device that is silent, or one group of a device that is silent where its other groups are not. It
rests for its back-off, 1 s at first and doubling to 30 s, and then waits for its turn: of those whose back-off is over,
the one that was asked longest ago. What keeps the sick from harming the others, whatever their number and whatever
their timeouts:

- Failed attempts take at most a tenth of the line's time: one that cost t seconds must be paid for with 10 t, which may
  be saved up beforehand, but no more than two attempts of each patient so far (`CREDIT`). First failures of the healthy
  cannot be foreseen and are never held back; they are charged like all others, so that the sick wait the longer. In any
  window of W seconds all failed attempts together take at most W / 10 + (CREDIT + 1) * S, where S is the sum over all
  who ever failed of what their failure cost.
- As long as anybody on the line is well, the next attempt also comes no sooner than 9 t after one that failed: what was
  saved up is no reason to cost the others two timeouts in a row. A line on which nobody is well has nobody to protect.

Thus each patient is asked again at the latest 30 s (its back-off) + 20 * S after its last attempt: 10 * S until debts
are paid, 10 * S until all the others had their turn. Usually there are no debts and it is 30 s + 10 * S at most: a
single dead device with a timeout of 1 s is asked each 30 s, and each of ten each 100 s. On a line that is always busy a
turn may start a second and a poll late. An attempt that succeeds costs nothing, so when all return together, each is
asked right after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from random import random

from gateway.backoff import Backoff

FIRST_REST_S = 1.0
LONGEST_REST_S = 30.0
"""A meter whose power returns is asked again within half a minute, where not too many others are sick too."""

PRICE = 10
"""A failed attempt must be paid for with so many times what it cost: the sick have a tenth of the line's time."""

CREDIT = 2
"""How many failed attempts of each patient may be saved up for: a hiccup on a quiet line is got over at once."""

NEVER = float("inf")


class Patient:
    """Something on the line that may fall sick, and what is known of that."""

    __slots__ = ("asked_at", "backoff", "cost_s", "is_sick", "retry_at")

    def __init__(self, dice: Callable[[], float] = random) -> None:
        self.backoff = Backoff(FIRST_REST_S, LONGEST_REST_S, dice=dice)
        self.is_sick = False
        self.cost_s = 0.0  # of its last failure
        self.asked_at = -NEVER
        self.retry_at = 0.0


class Ward:
    """The patients of one line that are sick, and the line's account of failed attempts."""

    def __init__(self) -> None:
        self._sick: list[Patient] = []
        self._known: dict[Patient, None] = {}  # all who ever failed
        self._paid_at = -NEVER  # when all that failed attempts cost will have been paid for
        self._spaced_at = -NEVER  # 9 t after the last of them

    def __repr__(self) -> str:
        return f"<Ward of {len(self._sick)} sick>"

    def admit(self, patient: Patient, cost_s: float, now: float) -> None:
        """An attempt has failed that ended `now` and cost the line `cost_s`: the patient rests, longer each time."""
        patient.cost_s = cost_s
        self._known[patient] = None
        credit_s = PRICE * CREDIT * sum(known.cost_s for known in self._known)
        began = now - cost_s
        self._paid_at = max(self._paid_at, began - credit_s) + PRICE * cost_s
        self._spaced_at = now + (PRICE - 1) * cost_s
        patient.asked_at = now
        patient.retry_at = now + patient.backoff.next_s()
        self._enter(patient)

    def keep(self, patient: Patient, now: float) -> None:
        """The patient was not asked, and is known to be sick: it waits for its turn."""
        patient.retry_at = now
        self._enter(patient)

    def _enter(self, patient: Patient) -> None:
        if not patient.is_sick:
            patient.is_sick = True
            self._sick.append(patient)

    def dismiss(self, patient: Patient) -> None:
        """The patient is not to be asked in turn any more; whether it is well, its back-off remembers."""
        if patient.is_sick:
            patient.is_sick = False
            self._sick.remove(patient)

    def forget(self, patient: Patient) -> None:
        """The patient is there no more."""
        self.dismiss(patient)
        self._known.pop(patient, None)

    def opens_at(self, *, is_shared: bool) -> float:
        """From when on the line's account allows an attempt. `is_shared`: somebody on the line is well."""
        return max(self._paid_at, self._spaced_at) if is_shared else self._paid_at

    def next_at(self, *, is_shared: bool) -> float:
        """When the next attempt may come; infinity when nobody is sick."""
        if not self._sick:
            return NEVER
        return max(self.opens_at(is_shared=is_shared), min(patient.retry_at for patient in self._sick))

    def next(self, now: float, *, is_shared: bool) -> Patient | None:
        """Whose turn it is now, or None."""
        if now < self.opens_at(is_shared=is_shared):
            return None
        rested = [patient for patient in self._sick if patient.retry_at <= now]
        return min(rested, key=lambda patient: patient.asked_at, default=None)
