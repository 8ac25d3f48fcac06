"""One knob of an engine, and the check of its values.

>>> chunk = Knob(name="max_num_batched_tokens", own_name="chunked_prefill_size", argument="--chunked-prefill-size",
...              roles=("aggregated",), minimum=256, maximum=65536, step=64, applied="restart",
...              trades="the TTFT of long prompts for the ITL beside them")
>>> chunk.neighbor(2048, up=True), chunk.neighbor(2048, up=False), chunk.neighbor(65536, up=True)
(4096, 1024, None)
>>> chunk.check(100)
Traceback (most recent call last):
...
dynamo_planner.engines.knob.KnobError: max_num_batched_tokens is 100; it must be from 256 to 65536: take 256
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from dynamo_planner.core.snapshot import Role
from dynamo_planner.core.values import Frozen, KnobValue

Applied = Literal["live", "restart", "router"]
"""How a value gets into effect: by a call to the running engine, by a restart of its workers, one after the other, or
by a key that the router watches."""


class KnobError(ValueError):
    """A value that a knob cannot have; the message names the knob, the value and the mend."""


class Knob(Frozen):
    """A setting of an engine that a policy may change.

    Args:
        name: its standard name, under which policies know it.
        own_name: its name in the engine.
        argument: the command-line argument that sets it, if one does.
        variable: the environment variable that sets it, if one does.
        roles: of the pools that have it; none, the default, means that it is a knob of the service.
        minimum: its smallest value.
        maximum: its largest value.
        step: the distance of its values from ``minimum`` on, by default 1; values are whole where both are.
        notch: how far a tuner moves it at a time, by default 2: a factor where it is above 1, one step where it is 1.
        applied: how a value takes effect, by default by a ``"restart"``.
        at_least: the name of another knob, whose value this one must not be below; by default none.
        trades: what a larger value trades for what, in words.
        settles_s: seconds until the effect of a change can be measured, after the restart; by default 30.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    own_name: str
    argument: str | None = Field(default=None, pattern=r"^--?[A-Za-z][A-Za-z0-9_-]*$")
    variable: str | None = Field(default=None, pattern=r"^[A-Z][A-Z0-9_]*$")
    roles: tuple[Role, ...] = ()
    minimum: float
    maximum: float
    step: float = Field(default=1, gt=0)
    notch: float = Field(default=2.0, ge=1)
    applied: Applied = "restart"
    at_least: str | None = None
    trades: str
    settles_s: float = Field(default=30.0, ge=0)

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.maximum < self.minimum:
            raise ValueError(f"maximum ({self.maximum:g}) must be at least minimum ({self.minimum:g})")
        return self

    @property
    def whole(self) -> bool:
        """Whether values are whole numbers."""
        return float(self.step).is_integer() and float(self.minimum).is_integer()

    def check(self, value: KnobValue) -> KnobValue:
        """The value itself. Raises :class:`KnobError` where the knob cannot have it."""
        if isinstance(value, bool | str) or not math.isfinite(value):
            raise KnobError(f"{self.name} is {value!r}; it must be a number from {self._range()}")
        nearest = self.nearest(value)
        if not self.minimum <= value <= self.maximum:
            raise KnobError(f"{self.name} is {value:g}; it must be from {self._range()}: take {nearest}")
        if not math.isclose(nearest, value, rel_tol=1e-9, abs_tol=1e-12) or (self.whole and not _is_whole(value)):
            raise KnobError(f"{self.name} is {value:g}; it goes in steps of {self.step:g}: take {nearest}")
        return value

    def nearest(self, value: float) -> int | float:
        """The permitted value nearest to a number."""
        steps = round((min(max(value, self.minimum), self.maximum) - self.minimum) / self.step)
        found = min(self.minimum + steps * self.step, self.maximum)
        return round(found) if self.whole else round(found, 12)

    def below(self, value: float) -> int | float:
        """The largest permitted value not above a number; ``minimum`` where all are."""
        steps = math.floor((min(max(value, self.minimum), self.maximum) - self.minimum) / self.step + 1e-9)
        found = self.minimum + steps * self.step
        return round(found) if self.whole else round(found, 12)

    def neighbor(self, value: float, *, up: bool) -> int | float | None:
        """The value one notch up or down; ``None`` at the end of the range."""
        if self.notch == 1:
            wished = value + self.step if up else value - self.step
        else:
            wished = value * self.notch if up else value / self.notch
        found = self.nearest(wished)
        return found if (found > value) == up and found != value else None

    def _range(self) -> str:
        return (
            f"{self.minimum:g} to {self.maximum:g}"
            if self.maximum < 1e5
            else f"{self.minimum:.0f} to {self.maximum:.0f}"
        )


def _is_whole(value: float) -> bool:
    return isinstance(value, int) or value.is_integer()


Catalogue = Mapping[str, Knob]
"""Knobs by their standard names."""


def check_knobs(knobs: Catalogue, values: Mapping[str, KnobValue]) -> None:
    """Raises :class:`KnobError` where a value is of no knob, out of its range, or at odds with another one.

    >>> from dynamo_planner.engines import catalogue
    >>> check_knobs(catalogue("vllm"), {"max_num_batched_tokens": 256, "max_num_seqs": 512})
    Traceback (most recent call last):
    ...
    dynamo_planner.engines.knob.KnobError: max_num_batched_tokens is 256, below max_num_seqs, which is 512: raise it \
to 512 or lower max_num_seqs
    """
    for name, value in values.items():
        if name not in knobs:
            raise KnobError(f"there is no knob {name!r}; there are {', '.join(knobs) or 'none'}")
        knobs[name].check(value)
    for name, value in values.items():
        other = knobs[name].at_least
        least = values.get(other) if other else None
        if isinstance(least, int | float) and isinstance(value, int | float) and value < least:
            raise KnobError(f"{name} is {value}, below {other}, which is {least}: raise it to {least} or lower {other}")
