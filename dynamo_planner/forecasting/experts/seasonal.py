"""Every day (or week) has the same shape: the profile of a period, moved to the present level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from dynamo_planner.forecasting.experts.expert import UNKNOWN, Expert, Memory, Seconds, decayed

_HEAD = 5
_LEAST, _MOST = 0.5, 2.0


class Seasonal(Expert):
    """The recent level, times what the profile of the period did from then on (seasonal naive with level transfer).

    The period is cut into ``slots``; each holds the mean root of its past visits, the latest weighing ``gain``. Between
    the middles of slots the profile is a straight line. A forecast is ``level * profile(then) / profile(now)``, the
    ratio kept within 0.5 to 2, where "now" is the mean age of what the level was made of. Where the profile is not
    known yet the level stands. Slots are counted in Unix time: daylight saving shifts the profile by an hour for some
    days. Keep slots longer than samples.

    >>> expert = Seasonal(period_s=86_400, slots=24, half_life_s=60)
    >>> memory = expert.start()
    >>> for second in range(60, 2 * 86_400 + 60, 60):
    ...     hour = second / 3600 % 24
    ...     memory = expert.update(memory, second, 60, 60, root=2 + (hour if hour < 12 else 24 - hour) / 12)
    >>> [round(root, 2) for root in expert.ahead(memory, 2 * 86_400, [0, 7200])]
    [2.0, 2.12]
    """

    kind: Literal["seasonal"] = "seasonal"
    period_s: Seconds = 86_400.0
    slots: int = Field(default=96, ge=2, le=672)
    half_life_s: Seconds = 240.0
    gain: float = Field(default=0.3, gt=0, le=1)

    def start(self) -> Memory:
        return (0.0, 0.0, UNKNOWN, 0.0, 0.0) + (UNKNOWN,) * self.slots

    def update(self, memory: Memory, at_s: float, elapsed_s: float, span_s: float, root: float) -> Memory:
        level, weight, slot, values, visit = memory[:_HEAD]
        profile = memory[_HEAD:]
        new = min(elapsed_s, span_s)
        here = (at_s - new / 2) % self.period_s // (self.period_s / self.slots)
        if here != slot:
            profile = self._learned(profile, int(slot), values, visit)
            slot, values, visit = here, 0.0, 0.0
        weight = weight * decayed(elapsed_s, self.half_life_s) + new
        level += new / weight * (root - level)
        return (level, weight, slot, values + new * root, visit + new, *profile)

    def _learned(self, profile: Memory, slot: int, values: float, visit: float) -> Memory:
        """The profile with a visit of a slot taken in, if at least half of the slot was seen."""
        if slot < 0 or visit < 0.5 * self.period_s / self.slots:
            return profile
        before, mean = profile[slot], values / visit
        after = mean if before == UNKNOWN else before + self.gain * (mean - before)
        return (*profile[:slot], after, *profile[slot + 1 :])

    def ahead(self, memory: Memory, at_s: float, ahead_s: Sequence[float]) -> list[float]:
        level, weight = memory[:2]
        now = self._profile(memory, at_s - weight)
        if now <= 0:
            return [level] * len(ahead_s)
        thens = [self._profile(memory, at_s + after) for after in ahead_s]
        return [level * min(max(then / now, _LEAST), _MOST) if then >= 0 else level for then in thens]

    def _profile(self, memory: Memory, at_s: float) -> float:
        """The profile at a time, or ``UNKNOWN``."""
        slots = self.slots
        place = at_s % self.period_s * slots / self.period_s + slots - 0.5
        whole = int(place)
        left, right = memory[_HEAD + whole % slots], memory[_HEAD + (whole + 1) % slots]
        return UNKNOWN if left < 0 or right < 0 else left + (place - whole) * (right - left)
