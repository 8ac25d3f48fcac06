"""Validation of measured points: messages name the place, the value, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BeforeValidator, ValidationError, ValidationInfo

from dynamo_planner.core.values import Frozen, plain

MAX_VALUE = 1e300
"""Values from here on count as infinite."""

MAX_POINTS = 1000
"""Most points of one curve: the time of a fit grows with the cube of their number."""


MAX_GPUS = 512
"""Most GPUs of one worker."""

MIN_IMPLIED_GPUS = 0.1
"""Times and throughput that imply fewer GPUs than this are in different units."""


class ProfileError(ValueError):
    """A profile cannot be used; the message names the place, the value and the remedy."""


class PointsError(ValueError):
    """Something is wrong with a column of points, or with one entry of it.

    ``problem`` may speak of ``others``, further columns, as ``{0}``, ``{1}`` and so on.
    """

    def __init__(self, column: str, problem: str, index: int | None = None, others: Sequence[str] = ()) -> None:
        self.column, self.problem, self.index, self.others = column, problem, index, others
        super().__init__(self.naming({}))

    def naming(self, names: Mapping[str, str]) -> str:
        """The message, for a reader who knows the columns by these names."""
        others = [names.get(other, other) for other in self.others]
        problem = self.problem.format(*others) if others else self.problem
        place = "" if self.index is None else f"[{self.index}]"
        return f"{names.get(self.column, self.column)}{place} {problem}"


def listed(values: Any, info: ValidationInfo) -> Any:
    """A column of numbers as a tuple of floats, whatever kind of sequence or array it came as."""
    name = str(info.field_name)
    if values is None:
        return None
    try:
        array = np.asarray(values)
    except ValueError:
        raise PointsError(name, "is a ragged list: it takes a flat list, one number for each point") from None
    if array.ndim != 1:
        raise PointsError(name, f"has the shape {array.shape}: it takes a flat list, one number for each point")
    if not len(array):
        raise PointsError(name, "is empty: measure at least two points")
    if len(array) > MAX_POINTS:
        raise PointsError(name, f"has {len(array)} points: thin them to {MAX_POINTS} at most")
    for index, value in enumerate(map(plain, values)):
        if not isinstance(value, float | int) or not abs(value) < MAX_VALUE:
            raise PointsError(
                name, f"is {value!r:.40}: it takes a number, so leave this point out of every column", index
            )
    return tuple(array.astype(np.float64).tolist())


Column = Annotated[tuple[float, ...], BeforeValidator(listed)]
"""One number for each point."""


def in_range(column: str, values: Sequence[float], low: float, high: float, remedy: str) -> None:
    """Refuse a value that is not from ``low`` to ``high``."""
    for index, value in enumerate(values):
        if not low <= value <= high:
            raise PointsError(column, f"is {value:g}, and {low:g} to {high:g} is plausible: {remedy}", index)


def same_length(columns: Mapping[str, Sequence[float] | None]) -> None:
    """Refuse columns of different lengths."""
    lengths = {name: len(column) for name, column in columns.items() if column is not None}
    first, expected = next(iter(lengths.items()))
    for name, length in lengths.items():
        if length != expected:
            problem = f"has {length} points and {{0}} has {expected}: give one of each for each point"
            raise PointsError(name, problem, others=[first])


def distinct(columns: Mapping[str, Sequence[float]]) -> None:
    """Refuse two points at the same place, and fewer than two points."""
    places = list(zip(*columns.values(), strict=True))
    first = next(iter(columns))
    if len(places) < 2:
        raise PointsError(first, "has a single point: measure at least two")
    seen: dict[tuple[float, ...], int] = {}
    for index, place in enumerate(places):
        if place in seen:
            where = ", ".join(f"{{{number}}}={value:g}" for number, value in enumerate(place))
            problem = f"is a second point at {where} (the first is [{seen[place]}]): keep their median"
            raise PointsError(first, problem, index, others=list(columns))
        seen[place] = index


def implied_gpus(column: str, ideal: Sequence[float], throughput: Sequence[float]) -> float:
    """The GPUs that make the ideal tokens/s, from the tokens/s that its times give and the measured tokens/s per GPU.

    Refuses a number that no worker has: then one of the two is in another unit.
    """
    ratio = float(np.median(np.divide(ideal, throughput)))
    if not MIN_IMPLIED_GPUS <= ratio <= MAX_GPUS:
        raise PointsError(
            column,
            f"and the times imply {ratio:g} GPUs per worker: times are in milliseconds, throughput in tokens/s per GPU",
        )
    return ratio


M = TypeVar("M", bound=Frozen)


def built(build: Callable[[], M], place: str = "", names: Mapping[str, str] | None = None) -> M:
    """The result of ``build``, with its first problem raised as a :class:`ProfileError`.

    ``place`` is where the data come from, and ``names`` how the columns are called there.
    """
    try:
        return build()
    except ValidationError as error:
        details = error.errors()[0]
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, PointsError):
            problem = cause.naming(names or {})
        else:
            column = ".".join(map(str, details["loc"]))
            given = "" if details["type"] == "missing" else f" (got {details['input']!r:.60})"
            problem = f"{(names or {}).get(column, column)}: {details['msg'].removeprefix('Value error, ')}{given}"
        raise ProfileError(f"{place}: {problem}" if place else problem) from None
