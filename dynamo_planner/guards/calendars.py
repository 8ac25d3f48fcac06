"""Calendar: floors, ceilings and pins by weekday, time of day, date and time zone.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> hours = CalendarEntry(days=("mon", "tue", "wed", "thu", "fri"), start="08:00", end="18:00", min_replicas=6,
...                       except_dates=("2026-12-25",), reason="office hours")
>>> policy = (lambda snapshot: {"decode": 3}) | Calendar(zone="Europe/Berlin", entries=[hours])
>>> pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=4)
>>> noon_s = 1_795_604_400  # Wednesday 2026-11-25, 12:00 in Berlin
>>> print(policy.decide(Snapshot(at_s=noon_s, pools={"decode": pool})).explain())
decode: 4 -> 6 replicas
  CalendarFloor: office hours (wanted=3, replicas=6, zone=Europe/Berlin)
>>> policy.decide(Snapshot(at_s=noon_s + 30 * 86400, pools={"decode": pool})).targets["decode"]  # the 25th of December
3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from dynamo_planner.core.decision import Proposal, Reason, Want
from dynamo_planner.core.policy import Guard
from dynamo_planner.core.pool_names import PoolName
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Count, Frozen
from dynamo_planner.core.zones import DAY_S, UTC_ZONE, Clock, Day, NamedZone, clock_s, day_number

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

WEEK: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

THURSDAY = WEEK.index("thu")
"""The weekday of 1970-01-01."""


class CalendarEntry(Frozen):
    """A recurring time and what pools must have then.

    It begins at ``start`` on each of its days and ends at ``end``, on the next day where that is not later than
    ``start``. Both are read from the wall clock: where clocks go forward, a start that is skipped begins after the gap,
    and where they go back, the hour that comes twice belongs to it twice.

    Args:
        days: The weekdays on which it begins. Default all.
        dates: Dates on which it begins besides. Default none.
        except_dates: Dates on which it does not begin. Default none.
        start: The time of day at which it begins. Default ``00:00``.
        end: The time of day at which it ends. Default ``24:00``.
        replicas: An exact number of replicas. Default ``None``.
        min_replicas: The fewest replicas. Default ``None``.
        max_replicas: The most replicas. Default ``None``.
        pools: The names of its pools. Default ``None``, all.
        reason: Why, for people.
    """

    days: tuple[Weekday, ...] = WEEK
    dates: tuple[Day, ...] = ()
    except_dates: tuple[Day, ...] = ()
    start: Clock = "00:00"
    end: Clock = "24:00"
    replicas: Count | None = None
    min_replicas: Count | None = None
    max_replicas: Count | None = None
    pools: tuple[PoolName, ...] | None = None
    reason: str = Field(min_length=1)

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        bounds = self.min_replicas, self.max_replicas
        if (self.replicas is None) == (bounds == (None, None)):
            raise ValueError("give either replicas, or min_replicas and max_replicas or one of them")
        if self.min_replicas is not None and self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) must be at least min_replicas ({self.min_replicas})")
        return self

    def in_force(self, local_s: float) -> bool:
        """Whether it is in force at a time of the wall clock, in seconds since 1970-01-01 00:00 local time."""
        today = int(local_s // DAY_S)
        start_s, end_s = clock_s(self.start), clock_s(self.end)
        length_s = end_s - start_s if end_s > start_s else end_s - start_s + DAY_S
        return any(
            self._begins_on(day) and 0 <= local_s - day * DAY_S - start_s < length_s for day in (today - 1, today)
        )

    def _begins_on(self, day: int) -> bool:
        if any(day_number(date) == day for date in self.except_dates):
            return False
        return WEEK[(day + THURSDAY) % 7] in self.days or any(day_number(date) == day for date in self.dates)


class Calendar(Guard, kind="calendar"):
    """Floors, ceilings and pins that recur, in a time zone.

    Of several entries in force for a pool a pin counts before bounds, the largest of several pins or floors, and the
    smallest of several ceilings; a floor above a ceiling wins. Entries also move a pool that the policy holds.
    Put it after the guards that limit how a policy moves, and before ``Override``, ``Bounds`` and ``GpuBudget``.

    The zone's offsets are data from when the guard is built; a decision reads no time zone database. After the last
    year that the zone covers (2045 by default), the last offset goes on and a reason says so.

    Args:
        zone: The time zone: an IANA name such as ``Europe/Berlin``. Default ``UTC``.
        entries: What is in force when.
    """

    zone: NamedZone = UTC_ZONE
    entries: tuple[CalendarEntry, ...]

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
        local_s = self.zone.local_s(snapshot.at_s)
        current = [entry for entry in self.entries if entry.in_force(local_s)]
        changes, reasons = {}, []
        if current and not self.zone.covers(snapshot.at_s):
            message = f"the offsets of {self.zone.name} are not known for this year: build the calendar anew"
            reasons.append(Reason(code="ZoneNotCovered", message=message))
        for name, pool in snapshot.pools.items():
            wanted = proposal.wanted(snapshot, name)
            own = [entry for entry in current if entry.pools is None or name in entry.pools]
            if wanted is None or pool.replicas is None or not own:
                continue
            rule = _rule(own, wanted)
            if rule is None:
                continue
            entry = proposal.pools.get(name)
            changes[name] = Want(rule.replicas, entry.load if isinstance(entry, Want) else None)
            values = {"wanted": wanted, "replicas": rule.replicas, "zone": self.zone.name}
            reasons.append(Reason(code=rule.code, pool=name, message=rule.reason, values=values))
        return proposal.with_pools(changes, reasons), state


class _Rule(NamedTuple):
    replicas: int
    code: str
    reason: str


def _rule(entries: Sequence[CalendarEntry], wanted: int) -> _Rule | None:
    """What the entries in force make of ``wanted`` replicas; ``None`` where they leave it."""
    pins = [_Rule(entry.replicas, "CalendarPin", entry.reason) for entry in entries if entry.replicas is not None]
    floors = [_Rule(e.min_replicas, "CalendarFloor", e.reason) for e in entries if e.min_replicas is not None]
    ceilings = [_Rule(e.max_replicas, "CalendarCeiling", e.reason) for e in entries if e.max_replicas is not None]
    if pins:
        pin = max(pins)
        return None if pin.replicas == wanted else pin
    floor, ceiling = max(floors, default=None), min(ceilings, default=None)
    if floor is not None and wanted < floor.replicas:
        return floor
    if ceiling is None or wanted <= ceiling.replicas:
        return None
    if floor is not None and floor.replicas > ceiling.replicas:
        return None if wanted == floor.replicas else floor
    return ceiling
