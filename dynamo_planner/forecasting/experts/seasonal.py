"""The seasonal expert: the shape of a day (or week), moved to the present level."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from dynamo_planner.forecasting.experts.base import UNKNOWN, Expert, Memory, Seconds, decayed

MIN_RATIO, MAX_RATIO = 0.5, 2.0
"""Range of the ratio between the shape then and now."""

MIN_SLOT_COVERAGE = 0.5
"""Share of a slot that samples must cover for its visit to count."""

_HEAD = 5


class Seasonal(Expert, kind="seasonal"):
    """The recent level times the change that the shape of the period predicts (seasonal naive with level transfer).

    The period is cut into ``slots``; each holds the mean root of its past visits, the latest weighing ``gain``. Between
    the middles of slots the shape is a straight line. A forecast is ``level * shape(then) / shape(now)``, the
    ratio kept within 0.5 to 2, where "now" is the mean age of what the level was made of. Where the shape is not
    known yet the level stands. Slots are counted in Unix time: daylight saving shifts the shape by an hour for some
    days. Keep slots longer than samples.

    Args:
        period_s: seconds of a period. Default a day.
        slots: slots of a period. Default 96, of 15 minutes.
        half_life_s: age at which a sample has half its weight in the level. Default 240 s.
        gain: weight of the latest visit in a slot's mean. Default 0.3.

    >>> expert = Seasonal(period_s=86_400, slots=24, half_life_s=60)
    >>> memory = expert.start()
    >>> for second in range(60, 2 * 86_400 + 60, 60):
    ...     hour = second / 3600 % 24
    ...     memory = expert.update(memory, second, 60, 60, root=2 + (hour if hour < 12 else 24 - hour) / 12)
    >>> [round(root, 2) for root in expert.ahead(memory, 2 * 86_400, [0, 7200])]
    [2.0, 2.12]
    """

    period_s: Seconds = 86_400.0
    slots: int = Field(default=96, ge=2, le=672)
    half_life_s: Seconds = 240.0
    gain: float = Field(default=0.3, gt=0, le=1)

    def start(self) -> Memory:
        return (0.0, 0.0, UNKNOWN, 0.0, 0.0) + (UNKNOWN,) * self.slots

    def update(self, memory: Memory, at_s: float, elapsed_s: float, span_s: float, root: float) -> Memory:
        level, weight, slot, values, visit = memory[:_HEAD]
        shape = memory[_HEAD:]
        new = min(elapsed_s, span_s)
        here = (at_s - new / 2) % self.period_s // (self.period_s / self.slots)
        if here != slot:
            shape = self._learned(shape, int(slot), values, visit)
            slot, values, visit = here, 0.0, 0.0
        weight = weight * decayed(elapsed_s, self.half_life_s) + new
        level += new / weight * (root - level)
        return (level, weight, slot, values + new * root, visit + new, *shape)

    def _learned(self, shape: Memory, slot: int, values: float, visit: float) -> Memory:
        """The shape after a visit of a slot, where samples covered enough of the slot."""
        if slot < 0 or visit < MIN_SLOT_COVERAGE * self.period_s / self.slots:
            return shape
        before, mean = shape[slot], values / visit
        after = mean if before == UNKNOWN else before + self.gain * (mean - before)
        return (*shape[:slot], after, *shape[slot + 1 :])

    def ahead(self, memory: Memory, at_s: float, ahead_s: Sequence[float]) -> list[float]:
        level, weight = memory[:2]
        now = self._shape(memory, at_s - weight)
        if now <= 0:
            return [level] * len(ahead_s)
        thens = [self._shape(memory, at_s + after) for after in ahead_s]
        return [level * min(max(then / now, MIN_RATIO), MAX_RATIO) if then >= 0 else level for then in thens]

    def _shape(self, memory: Memory, at_s: float) -> float:
        """The shape at a time, or ``UNKNOWN``."""
        slots = self.slots
        place = at_s % self.period_s * slots / self.period_s + slots - 0.5
        whole = int(place)
        left, right = memory[_HEAD + whole % slots], memory[_HEAD + (whole + 1) % slots]
        return UNKNOWN if left < 0 or right < 0 else left + (place - whole) * (right - left)
