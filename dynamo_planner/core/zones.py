"""Time zones as data: the UTC offsets of an IANA zone over the years, so that deciding reads no time zone database.

>>> berlin = Zone.of("Europe/Berlin", first_year=2026, last_year=2027)
>>> berlin.offsets[:3]  # from 2026-01-01, from 2026-03-29 01:00 UTC, from 2026-10-25 01:00 UTC
((1767222000.0, 3600.0), (1774746000.0, 7200.0), (1792890000.0, 3600.0))
>>> berlin.local_s(1774746000.0) - 1774746000.0
7200.0
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, date, datetime
from difflib import get_close_matches
from functools import lru_cache
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema, model_validator

from dynamo_planner.core.values import Frozen

FIRST_YEAR, LAST_YEAR = 2020, 2045
"""The years that a zone covers unless told otherwise."""

DAY_S = 86_400.0

EPOCH = date(1970, 1, 1)


class Zone(Frozen):
    """A time zone: its UTC offsets between two years.

    A zone given by its name is resolved from the system's time zone database, or that of the extra ``tzdata``, when it
    is built. Written as data it carries its offsets, and needs no database when it is read.

    Args:
        name: Its IANA name.
        offsets: Pairs of a time in Unix seconds and the offset from UTC in seconds from then on, in order.
        until_s: The end of the last year that is covered, in Unix seconds.
    """

    name: str
    offsets: tuple[tuple[float, float], ...]
    until_s: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        times = [at_s for at_s, _ in self.offsets]
        if not times or times != sorted(times):
            raise ValueError("offsets: give at least one pair of time and offset, in the order of time")
        return self

    @classmethod
    def of(cls, name: str, first_year: int = FIRST_YEAR, last_year: int = LAST_YEAR) -> Zone:
        """The zone of an IANA name.

        Raises ``ValueError`` for a name that the database does not have, and where there is no database.
        """
        return _resolved(name, first_year, last_year)

    def covers(self, at_s: float) -> bool:
        """Whether the offset at this time is known."""
        return self.offsets[0][0] <= at_s < self.until_s

    def local_s(self, at_s: float) -> float:
        """Seconds of the wall clock since 1970-01-01 00:00 local time; outside the years, by the nearest offset."""
        index = bisect_right(self.offsets, at_s, key=lambda pair: pair[0]) - 1
        return at_s + self.offsets[max(index, 0)][1]


@lru_cache(maxsize=64)
def _resolved(name: str, first_year: int, last_year: int) -> Zone:
    known = available_timezones()
    if not known:
        raise ValueError("there is no time zone database on this machine: pip install 'dynamo-planner[tzdata]'")
    if name not in known:
        near = get_close_matches(name, known, n=1)
        mend = f"did you mean {near[0]!r}?" if near else "give an IANA name, such as Europe/Berlin"
        raise ValueError(f"{name!r} is no time zone: {mend}")
    zone = ZoneInfo(name)

    def offset_s(at_s: float) -> float:
        offset = datetime.fromtimestamp(at_s, zone).utcoffset()
        return 0.0 if offset is None else offset.total_seconds()

    begin_s = datetime(first_year, 1, 1, tzinfo=zone).timestamp()
    end_s = datetime(last_year + 1, 1, 1, tzinfo=zone).timestamp()
    offsets = [(begin_s, offset_s(begin_s))]
    at_s = begin_s
    while at_s < end_s:
        low, high = at_s, min(at_s + DAY_S, end_s)
        at_s = high
        if offset_s(high) == offsets[-1][1]:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if offset_s(middle) == offsets[-1][1] else (low, middle)
        offsets.append((high, offset_s(high)))
    return Zone(name=name, offsets=tuple(offsets), until_s=end_s)


def _named(value: Any) -> Any:
    return Zone.of(value) if isinstance(value, str) else value


NamedZone = Annotated[Zone, BeforeValidator(_named)]
"""A field that holds a zone: one that is built, its data, or its IANA name."""

UTC_ZONE = Zone(name="UTC", offsets=((0.0, 0.0),), until_s=datetime(9999, 1, 1, tzinfo=UTC).timestamp())


def _day(text: Any) -> str:
    try:
        day = text if isinstance(text, date) else date.fromisoformat(text)
    except (TypeError, ValueError):
        raise ValueError(f"{text!r} is no date: write 2026-12-25") from None
    return date(day.year, day.month, day.day).isoformat()


Day = Annotated[str, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
"""A date, ``2026-12-25``. YAML has it as a date, JSON as text."""


def day_number(day: str) -> int:
    """Days from 1970-01-01 to a date.

    >>> day_number("1970-01-05")
    4
    """
    return (date.fromisoformat(day) - EPOCH).days


def _clock(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):  # YAML 1.1 reads 18:30 as 18 * 60 + 30
        value = f"{value // 60:02d}:{value % 60:02d}"
    return value


def _checked(value: str) -> str:
    hours, colon, minutes = value.partition(":")
    if not (colon and hours.isdigit() and minutes.isdigit() and len(minutes) == 2):
        raise ValueError(f"{value!r} is no time of day: write 08:30, up to 24:00")
    if int(minutes) > 59 or clock_s(value) > DAY_S:
        raise ValueError(f"{value!r} is no time of day: write 08:30, up to 24:00")
    return value


Clock = Annotated[str, BeforeValidator(_clock), AfterValidator(_checked)]
"""A time of day, ``08:30``, up to ``24:00``."""


def clock_s(clock: str) -> float:
    """Seconds from midnight to a time of day.

    >>> clock_s("08:30")
    30600.0
    """
    hours, _, minutes = clock.partition(":")
    return 3600.0 * int(hours) + 60.0 * int(minutes)
