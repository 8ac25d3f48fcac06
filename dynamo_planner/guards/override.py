"""Override: pins, floors and pauses that a person sets for a while, whatever the policy proposes.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> floor = Floor(pool="decode", replicas=6, until_s=1_700_003_600, reason="launch at noon")
>>> snapshot = Snapshot(at_s=1_700_000_000, pools={"decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=4)})
>>> policy = (lambda snapshot: {"decode": 3}) | Override(floors=[floor])
>>> print(policy.decide(snapshot).explain())
decode: 4 -> 6 replicas
  Floored: launch at noon, until 2023-11-14 23:13:20Z (wanted=3, replicas=6, until_s=1700003600)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.policy import Guard
from dynamo_planner.core.pool_names import PoolName
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Count, Frozen

LATEST_S = 1e11
"""Unix seconds up to the year 5138. Larger numbers are milliseconds."""


def _in_seconds(until_s: float) -> float:
    if until_s > LATEST_S:
        raise ValueError(f"{until_s:g} is not in Unix seconds; if these are milliseconds, divide by 1000")
    return until_s


def _from_date(value: Any) -> Any:
    """A moment as people write it, ``2026-11-25T18:00:00Z``, in Unix seconds. JSON has it as text, YAML as a date."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError(f"{value!r} is no date and time: write 2026-11-25T18:00:00Z, or Unix seconds") from None
    if not isinstance(moment, datetime):
        return value
    if moment.tzinfo is None:
        raise ValueError(f"{value} has no time zone: write 2026-11-25T18:00:00Z, or +01:00 in place of the Z")
    return moment.timestamp()


UNTIL_SCHEMA = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "format": "date-time"}]}

UntilS = Annotated[
    float, Field(gt=0), AfterValidator(_in_seconds), BeforeValidator(_from_date), WithJsonSchema(UNTIL_SCHEMA)
]
"""A moment in Unix seconds; a date and time with its zone will do, too."""


class _Entry(Frozen):
    until_s: UntilS
    reason: str = Field(min_length=1)

    def __str__(self) -> str:
        return f"{self.reason}, until {datetime.fromtimestamp(self.until_s, UTC):%Y-%m-%d %H:%M:%SZ}"


class Pin(_Entry):
    """An exact number of replicas for a while.

    Args:
        pool: The name of the pool.
        replicas: Its replicas.
        until_s: When it expires, in Unix seconds or as a date and time with its zone.
        reason: Why, for people.
    """

    pool: PoolName
    replicas: Count


class Floor(_Entry):
    """A minimum of replicas for a while.

    Args:
        pool: The name of the pool.
        replicas: Its fewest replicas.
        until_s: When it expires, in Unix seconds or as a date and time with its zone.
        reason: Why, for people.
    """

    pool: PoolName
    replicas: Count


class Pause(_Entry):
    """A hold on pools for a while. Their knobs are not touched either, and where all are paused nor are the service's.

    Args:
        pools: The names of the pools. Default ``None``, all.
        until_s: When it expires, in Unix seconds or as a date and time with its zone.
        reason: Why, for people.
    """

    pools: Annotated[tuple[PoolName, ...], Field(min_length=1)] | None = None

    def covers(self, pool: str | None) -> bool:
        """Whether it holds this pool, or the knobs of the service where ``pool`` is ``None``."""
        return self.pools is None or pool in self.pools


class Override(Guard, kind="override"):
    """Pins, floors and pauses that a person set, each with an expiry and a reason.

    A pause is above a pin, and a pin above a floor; of several floors the highest counts. Pins and floors also move a
    pool that the policy holds. Put it after the other soft guards, which would limit what it says; bounds and budgets
    come after it and have the last word.

    Args:
        pins: Exact numbers of replicas. Default none.
        floors: Minimums of replicas. Default none.
        pauses: Holds. Default none.
    """

    pins: tuple[Pin, ...] = ()
    floors: tuple[Floor, ...] = ()
    pauses: tuple[Pause, ...] = ()

    @model_validator(mode="after")
    def _pins_do_not_contradict(self) -> Self:
        pinned: dict[str, int] = {}
        for pin in self.pins:
            if pin.pool in pinned:
                raise ValueError(
                    f"pins: {pin.pool!r} is pinned twice, to {pinned[pin.pool]} and {pin.replicas}: drop one of the two"
                )
            pinned[pin.pool] = pin.replicas
        for floor in self.floors:
            replicas = pinned.get(floor.pool, floor.replicas)
            if replicas < floor.replicas:
                raise ValueError(
                    f"pins: {floor.pool!r} is pinned to {replicas}, below its floor of {floor.replicas}: "
                    f"pin it to at least {floor.replicas}, or drop one of the two"
                )
        return self

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
        pauses = [pause for pause in self.pauses if snapshot.at_s < pause.until_s]
        changes: dict[str, Want | Hold] = {}
        reasons = []
        for name, pool in snapshot.pools.items():
            entry, wanted = proposal.pools.get(name), proposal.wanted(snapshot, name)
            pause = _covering(pauses, name)
            demand = self._demand(snapshot.at_s, name)
            if pause is not None:
                changes.update({name: Hold(str(pause), "Paused")} if isinstance(entry, Want) else {})
            elif demand is not None and wanted is not None and pool.replicas is not None:
                replicas = demand.replicas if isinstance(demand, Pin) else max(wanted, demand.replicas)
                if replicas != wanted:
                    changes[name] = Want(replicas, entry.load if isinstance(entry, Want) else None)
                    reasons.append(_reason(demand, wanted))
        return _without_paused_knobs(proposal.with_pools(changes, reasons), pauses), state

    def _demand(self, at_s: float, name: str) -> Pin | Floor | None:
        """The pin, or else the highest floor, that is in force for a pool."""
        pins = [pin for pin in self.pins if pin.pool == name and at_s < pin.until_s]
        floors = [floor for floor in self.floors if floor.pool == name and at_s < floor.until_s]
        return pins[0] if pins else max(floors, key=lambda floor: floor.replicas, default=None)


def _covering(pauses: Sequence[Pause], pool: str | None) -> Pause | None:
    return next((pause for pause in pauses if pause.covers(pool)), None)


def _reason(demand: Pin | Floor, wanted: int) -> Reason:
    return Reason(
        code="Pinned" if isinstance(demand, Pin) else "Floored",
        pool=demand.pool,
        message=str(demand),
        values={"wanted": wanted, "replicas": demand.replicas, "until_s": round(demand.until_s)},
    )


def _without_paused_knobs(proposal: Proposal, pauses: Sequence[Pause]) -> Proposal:
    kept, reasons = [], []
    for knob in proposal.knobs:
        pause = _covering(pauses, knob.pool)
        if pause is None:
            kept.append(knob)
        else:
            message = f"knob {knob.knob!r} is left alone: {pause}"
            reasons.append(Reason(code="Paused", pool=knob.pool, message=message))
    return proposal.replace(knobs=tuple(kept)).because(*reasons)
