"""What a trace needs by the hour: replicas and GPUs for its load, sized for the SLA."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.notebook import html_table
from dynamo_planner.core.snapshot import Role, Sla
from dynamo_planner.profiles.profile import Profile
from dynamo_planner.sizing import Arrivals, Load, PercentileSizing
from dynamo_planner.workloads.tables import moment_at

if TYPE_CHECKING:
    from pandas import DataFrame

HOUR_S, MINUTE_S, SLOT_S = 3600.0, 60.0, 1.0


@dataclass(frozen=True)
class Hour:
    """One hour of a trace.

    Args:
        hour: When it begins: a datetime where the trace has one, else seconds of the trace.
        requests_per_s: Mean arrivals per second.
        busiest_per_s: Arrivals per second in its busiest minute, which it is sized for.
        isl: Mean prompt tokens.
        osl: Mean output tokens.
        replicas: Replicas by role; none in an hour without requests.
        gpus: GPUs of all of them.
    """

    hour: datetime | float
    requests_per_s: float
    busiest_per_s: float
    isl: float
    osl: float
    replicas: dict[Role, int]
    gpus: int


@dataclass(frozen=True, repr=False)
class Hours:
    """The hours of a trace, with what each needs. A notebook shows it as a table."""

    rows: tuple[Hour, ...]

    def __iter__(self) -> Iterator[Hour]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Hour:
        return self.rows[number]

    @property
    def gpu_hours(self) -> float:
        """GPU-hours of all hours together."""
        return float(sum(row.gpus for row in self.rows))

    def __repr__(self) -> str:
        most = max((row.gpus for row in self.rows), default=0)
        return f"Hours({len(self.rows)} hours, {self.gpu_hours:.0f} GPU-hours, at most {most} GPUs)"

    def _repr_html_(self) -> str:
        roles = sorted({role for row in self.rows for role in row.replicas})
        header = ["hour", "requests/s", "busiest minute", "ISL", "OSL", *roles, "GPUs"]
        return html_table(header, [[*map(_text, _cells(row, roles))] for row in self.rows])

    def to_frame(self) -> DataFrame:
        """A pandas DataFrame, a row for each hour (pandas is yours to install)."""
        from pandas import DataFrame  # noqa: PLC0415

        roles = sorted({role for row in self.rows for role in row.replicas})
        columns = ["hour", "requests_per_s", "busiest_per_s", "isl", "osl", *roles, "gpus"]
        return DataFrame([_cells(row, roles) for row in self.rows], columns=columns).set_index("hour")


def hours_of(
    arrival_s: np.ndarray,
    isl: np.ndarray,
    osl: np.ndarray,
    duration_s: float,
    start: datetime | None,
    profile: Profile,
    sla: Sla,
    roles: tuple[Role, ...],
) -> Hours:
    """Each hour of these requests, sized for its busiest minute. With a start, hours are those of its clock."""
    ahead_s = 0.0 if start is None else 60.0 * start.minute + start.second + start.microsecond / 1e6
    sizing = PercentileSizing(profile)
    gpus = {role: (profile.prefill_points if role == "prefill" else profile.decode_points).gpus for role in roles}
    rows = []
    for number in range(max(int(np.ceil((duration_s + ahead_s) / HOUR_S)), 1)):
        from_s = number * HOUR_S - ahead_s
        own = (arrival_s >= from_s) & (arrival_s < from_s + HOUR_S)
        lasts_s = min(from_s + HOUR_S, max(duration_s, SLOT_S)) - max(from_s, 0.0)
        hour = from_s if start is None else moment_at(start, from_s)
        if not own.any():
            rows.append(Hour(hour, 0.0, 0.0, 0.0, 0.0, {}, 0))
            continue
        since_s = arrival_s[own] - max(from_s, 0.0)
        busiest = np.bincount((since_s // MINUTE_S).astype(int)).max() / min(MINUTE_S, lasts_s)
        counts = np.bincount(since_s.astype(int), minlength=int(np.ceil(lasts_s)))
        spread = Arrivals.observed(counts, SLOT_S).dispersion
        load = Load.of(Arrivals(float(busiest), max(spread, 1.0)), _lengths(isl[own]), _lengths(osl[own]))
        found = sizing.replicas_for(load, sla, roles)
        replicas = {role: found[role].replicas for role in roles}
        total = sum(gpus[role] * count for role, count in replicas.items())
        mean = float(own.sum()) / lasts_s
        rows.append(Hour(hour, mean, float(busiest), float(isl[own].mean()), float(osl[own].mean()), replicas, total))
    return Hours(tuple(rows))


def _lengths(tokens: np.ndarray) -> Dist:
    mean = float(tokens.mean())
    return Dist(mean=mean, cv2=float(tokens.var()) / mean**2, count=len(tokens))


def _cells(row: Hour, roles: list[Role]) -> list[Any]:
    needs = [row.replicas.get(role, 0) for role in roles]
    return [row.hour, row.requests_per_s, row.busiest_per_s, row.isl, row.osl, *needs, row.gpus]


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M %Z}"
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
