"""How good forecasts are: is the 0.9 quantile one, and is it sharper than that of a constant forecast?

Target: the requests of the 5 s interval that starts one horizon ahead, for horizons of 30, 120 and 300 s. On each trace
of a day or more, the share of outcomes at or under the forecast 0.9 quantile (after an hour of warm-up) must be 0.88 to
0.92, in each tenth of the time 0.85 to 0.95, and the pinball loss lower than that of two constant forecasters under the
same calibration: the last value, and the mean of the last minutes (half-life 60 s). On hour-long traces the share is
shown with the 90 % interval of a block bootstrap.

Ablations: each expert of the default alone, and the default without each; an expert earns its place where the loss is
higher without it. Made-up series are among them because the traces hold few steps, ramps and rushes. Then forecasts
over windows, the extras where they are installed, and time and size.

Exits with 1 where a target is missed. ``--quick`` takes parts of two traces and leaves the ablations out.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.shared import SHARED
from dynamo_planner.core.extras import MissingExtraError
from dynamo_planner.forecasting import DEFAULT_EXPERTS, Arima, Constant, Expert, Forecaster, Prophet, Seasonal

Array = npt.NDArray[np.float64]

TRACES = SHARED / "traces"
STEP_S, LEVEL = 5.0, 0.9
HOUR, DAY = 720, 17_280
"""In steps."""
HORIZONS_S = (30.0, 120.0, 300.0)
WINDOWS_S = ((30.0, 60.0), (120.0, 60.0), (120.0, 300.0), (300.0, 300.0))
OVERALL, TENTH = (0.88, 0.92), (0.85, 0.95)
MOST_US, MOST_BYTES = 160.0, 12 * 1024
"""For an update and three forecasts 80 us are aimed at; twice that fails, because machines differ."""

DEFAULT = Forecaster()
CONSTANTS = {
    "last value": Forecaster(experts=(Constant(half_life_s=0),)),
    "mean 60 s": Forecaster(experts=(Constant(half_life_s=60),)),
}


class Score(NamedTuple):
    """How the 0.9 quantile did: pinball loss (requests), share at or under it, and that share in each tenth."""

    loss: float
    share: float
    tenths: tuple[float, ...]

    def misses(self) -> bool:
        within = TENTH[0] <= min(self.tenths) <= max(self.tenths) <= TENTH[1]
        return not (within and OVERALL[0] <= self.share <= OVERALL[1])


def counts_of(path: Path) -> Array:
    """Requests in each full interval of 5 s."""
    with np.load(path) as data:
        arrival_s = data["arrival_s_spread" if "arrival_s_spread" in data else "arrival_s"]
    steps = int(arrival_s[-1] // STEP_S)
    return np.bincount((arrival_s // STEP_S).astype(int), minlength=steps)[:steps].astype(float)


def made_up() -> dict[str, Array]:
    """Poisson counts under rates that are easy to say and hard to foretell."""
    draw = np.random.default_rng(7)
    at_s = np.arange(DAY // 3) * STEP_S
    days_s = np.arange(5 * DAY // 2) * STEP_S
    phase_s = at_s % 7200
    rates = {
        "made: steady": np.full(at_s.size, 5.0),
        "made: step x2, 2 h": np.where(at_s // 7200 % 2 == 1, 8.0, 4.0),
        "made: ramp x4, 20 min": 2 + 6 * (np.clip(phase_s / 1200, 0, 1) - np.clip((phase_s - 3600) / 1200, 0, 1)),
        "made: on/off, 10 min": np.where(at_s // 600 % 2 == 1, 8.0, 1.0),
        "made: flash x5, 5 min": np.where(at_s % 5400 < 300, 15.0, 3.0),
        "made: daily rush": 2 + 6 * np.exp(-(((days_s % 86_400 - 43_200) / 1800) ** 2) / 2),
    }
    return {name: draw.poisson(rate * STEP_S).astype(float) for name, rate in rates.items()}


def quantiles(forecaster: Forecaster, counts: Array, every: int = 1) -> Array:
    """The 0.9 quantile of the count, made after each step for each horizon; NaN between where ``every`` is not 1."""
    made = np.full((len(HORIZONS_S), counts.size), math.nan)
    state = None
    for step, count in enumerate(counts.tolist()):
        at_s = (step + 1) * STEP_S
        state = forecaster.update(state, at_s, count / STEP_S, STEP_S)
        if step % every == 0:
            for number, horizon_s in enumerate(HORIZONS_S):
                forecast = forecaster.forecast(state, at_s, horizon_s)
                made[number, step] = forecast.quantile(LEVEL) * STEP_S if forecast else math.nan
    return made


def paired(made: Array, counts: Array, horizon_s: float, warm_up: int) -> tuple[Array, Array]:
    """Forecasts, and the counts that they were for."""
    lead = round(horizon_s / STEP_S) + 1
    forecast, outcome = made[warm_up:-lead], counts[warm_up + lead :]
    known = ~np.isnan(forecast)
    return forecast[known], outcome[known]


def score(made: Array, counts: Array, horizon_s: float, warm_up: int) -> Score:
    forecast, outcome = paired(made, counts, horizon_s, warm_up)
    miss = outcome - forecast
    under = outcome <= forecast
    tenths = tuple(float(part.mean()) for part in np.array_split(under, 10))
    return Score(float(np.maximum(LEVEL * miss, (LEVEL - 1) * miss).mean()), float(under.mean()), tenths)


def scores(job: tuple[Forecaster, Array, int, int]) -> list[Score]:
    """One for each horizon."""
    forecaster, counts, warm_up, every = job
    made = quantiles(forecaster, counts, every)
    return [score(row, counts, horizon_s, warm_up) for row, horizon_s in zip(made, HORIZONS_S, strict=True)]


Run = Callable[[Iterable[tuple[Forecaster, Array, int, int]]], Iterable[list[Score]]]


def targets(run: Run, traces: Mapping[str, Array]) -> int:
    """The table of targets; how many were missed."""
    rivals = {"default": DEFAULT, **CONSTANTS}
    jobs = [(forecaster, counts, HOUR, 1) for counts in traces.values() for forecaster in rivals.values()]
    results = iter(run(jobs))
    missed = 0
    print(
        "\n0.9 quantile of the 5 s count           share   tenths         pinball loss   against "
        + ", ".join(CONSTANTS)
    )
    for name in traces:
        default, *others = [next(results) for _ in rivals]
        for number, horizon_s in enumerate(HORIZONS_S):
            own = default[number]
            ratios = [own.loss / other[number].loss for other in others]
            failed = own.misses() or max(ratios) >= 1
            missed += failed
            print(
                f"{name[:32]:32s} {horizon_s:4.0f} s  {own.share:.3f}   {min(own.tenths):.3f}-{max(own.tenths):.3f}"
                f"    {own.loss:8.3f}       " + "  ".join(f"{ratio:.3f}" for ratio in ratios) + "  MISSED" * failed
            )
    return missed


def hours(traces: Mapping[str, Array]) -> None:
    """Traces of about an hour: too short for a target, so the share comes with an interval (blocks of 5 min)."""
    draw = np.random.default_rng(1)
    print(
        "\nhour-long traces (10 min warm-up)       share   90 % interval  pinball loss   against "
        + ", ".join(CONSTANTS)
    )
    for name, counts in traces.items():
        made = quantiles(DEFAULT, counts)
        others = [quantiles(forecaster, counts) for forecaster in CONSTANTS.values()]
        for number, horizon_s in enumerate(HORIZONS_S):
            forecast, outcome = paired(made[number], counts, horizon_s, HOUR // 6)
            if forecast.size < HOUR // 6:
                print(f"{name[:32]:32s} {horizon_s:4.0f} s  too short: {forecast.size} outcomes")
                continue
            under, block = outcome <= forecast, HOUR // 12
            starts = draw.integers(0, under.size - block + 1, size=(2000, math.ceil(under.size / block)))
            shares = under[(starts[..., None] + np.arange(block)).reshape(2000, -1)[:, : under.size]].mean(axis=1)
            low, high = np.quantile(shares, [0.05, 0.95])
            own, *losses = [score(row[number], counts, horizon_s, HOUR // 6).loss for row in (made, *others)]
            print(
                f"{name[:32]:32s} {horizon_s:4.0f} s  {under.mean():.3f}   {low:.3f}-{high:.3f}    {own:8.3f}       "
                + "  ".join(f"{own / loss:.3f}" for loss in losses)
            )


def named(expert: Expert) -> str:
    fields = expert.model_dump(exclude={"kind"}, exclude_defaults=True)
    return f"{expert.kind}" + "".join(f" {value:g}" for value in fields.values())  # type: ignore[attr-defined]


def ablations(run: Run, traces: Mapping[str, Array]) -> None:
    """The loss of each variant relative to the default's, by group of series."""
    groups = {"traces": {name: counts[: 2 * DAY] for name, counts in traces.items()}}
    groups |= {name: {name: counts} for name, counts in made_up().items()}
    series = [(group, counts) for group, members in groups.items() for counts in members.values()]
    variants: dict[str, tuple[Expert, ...]] = {"default": DEFAULT_EXPERTS}
    for number, expert in enumerate(DEFAULT_EXPERTS):
        variants[f"only {named(expert)}"] = (expert,)
        variants[f"without {named(expert)}"] = DEFAULT_EXPERTS[:number] + DEFAULT_EXPERTS[number + 1 :]
    variants["with a seasonal week"] = (*DEFAULT_EXPERTS, Seasonal(period_s=604_800, slots=168))
    variants["equal weights"] = DEFAULT_EXPERTS
    forecasters = [
        Forecaster(experts=experts, weight_rate=0 if name == "equal weights" else DEFAULT.weight_rate)
        for name, experts in variants.items()
    ]
    results = iter(run([(forecaster, counts, HOUR, 6) for forecaster, (_, counts) in product(forecasters, series)]))
    print("\npinball loss relative to the default, geometric mean over horizons")
    print(f"{'':28s}" + "".join(f"{group.removeprefix('made: '):>16s}" for group in groups))
    losses: dict[str, list[list[float]]] = {}
    for name in variants:
        losses[name] = [[one.loss for one in next(results)] for _ in series]
        cells = []
        for group in groups:
            ratios = np.log(losses[name]) - np.log(losses["default"])
            cells.append(float(np.exp(ratios[[own == group for own, _ in series]].mean())))
        print(f"{name:28s}" + "".join(f"{cell:16.3f}" for cell in cells))


def windows(traces: Mapping[str, Array]) -> None:
    """How well forecasts over windows, which are approximations, are calibrated."""
    print("\nshare at or under the 0.9 quantile of the mean over a window (an approximation, no target)")
    print(f"{'':36s}" + "".join(f"{f'{lead:.0f} s + {length:.0f} s':>18s}" for lead, length in WINDOWS_S))
    for name, counts in traces.items():
        under: dict[tuple[float, float], list[bool]] = {window: [] for window in WINDOWS_S}
        state = None
        rates = counts / STEP_S
        for step, rate in enumerate(rates.tolist()[: DAY - 2 * HOUR]):
            at_s = (step + 1) * STEP_S
            state = DEFAULT.update(state, at_s, rate, STEP_S)
            if step < HOUR or step % 10:
                continue
            for lead_s, length_s in WINDOWS_S:
                first = step + 1 + round(lead_s / STEP_S)
                part = rates[first : first + round(length_s / STEP_S)]
                mean = DEFAULT.forecast(state, at_s, lead_s, length_s)
                if mean and part.size:
                    under[lead_s, length_s].append(bool(part.mean() <= mean.quantile(LEVEL)))
        print(f"{name[:36]:36s}" + "".join(f"{np.mean(outcomes):18.3f}" for outcomes in under.values()))


def extras(counts: Array) -> None:
    """ARIMA and Prophet as they would be used, alone, on an hour."""
    print("\nextras, alone, on one hour of a trace    pinball loss relative to the default   ms per refit and update")
    own = [one.loss for one in scores((DEFAULT, counts, HOUR // 6, 1))]
    for kind in (Arima, Prophet):
        try:
            forecaster = Forecaster(experts=(kind(),))
        except MissingExtraError as error:
            print(f"{kind.__name__:40s} {error}")
            continue
        start = time.perf_counter()
        losses = [one.loss for one in scores((forecaster, counts, HOUR // 6, 1))]
        took_ms = 1e3 * (time.perf_counter() - start) / (counts.size * STEP_S / 60)
        ratios = "  ".join(f"{loss / best:.3f}" for loss, best in zip(losses, own, strict=True))
        print(f"{kind.__name__:40s} {ratios:40s} {took_ms:.0f}")


def costs(counts: Array) -> int:
    """Time of an update and of forecasts at three horizons, and size of the state after 14 days; how many are over."""
    took_us, state = [], None
    for step, count in enumerate(counts.tolist()[:DAY]):
        at_s = (step + 1) * STEP_S
        start = time.perf_counter()
        state = DEFAULT.update(state, at_s, count / STEP_S, STEP_S)
        for horizon_s in HORIZONS_S:
            forecast = DEFAULT.forecast(state, at_s, horizon_s)
            if forecast:
                forecast.quantile(LEVEL)
        took_us.append(1e6 * (time.perf_counter() - start))
    median, p99 = statistics.median(took_us), statistics.quantiles(took_us, n=100)[98]
    for step in range(DAY, 14 * DAY):
        state = DEFAULT.update(state, (step + 1) * STEP_S, float(counts[step % counts.size]) / STEP_S, STEP_S)
    size = len(state.model_dump_json()) if state else 0
    print(
        f"\nupdate and three forecasts: {median:.0f} us median, {p99:.0f} us p99 (aimed at 80, at most {MOST_US:.0f})"
    )
    print(f"state after 14 days: {size} bytes of JSON (at most {MOST_BYTES})")
    return int(median > MOST_US) + int(size > MOST_BYTES)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="parts of two traces, no ablations")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes for the large tables")
    parser.add_argument("--traces", type=Path, default=TRACES, help="folder of .npz files with arrival_s")
    options = parser.parse_args(arguments)
    traces = {path.stem: counts_of(path) for path in sorted(options.traces.glob("*.npz"))}
    if not traces:
        print(f"no .npz traces in {options.traces}", file=sys.stderr)
        return 2
    long = {name: counts for name, counts in traces.items() if counts.size > DAY - HOUR}
    if options.quick:
        long = {name: long[name][: DAY // 2] for name in list(long)[:2]}
    with ProcessPoolExecutor(options.jobs) as pool:
        run: Run = map_in(pool) if options.jobs > 1 else lambda jobs: map(scores, jobs)
        missed = targets(run, long)
        hours({name: counts for name, counts in traces.items() if counts.size <= DAY - HOUR})
        if not options.quick:
            ablations(run, long)
            windows(long)
            extras(next(iter(long.values()))[:HOUR])
            missed += costs(next(iter(long.values())))
    print(f"\n{missed or 'no'} target{'s' * (missed != 1)} missed")
    return int(missed > 0)


def map_in(pool: ProcessPoolExecutor) -> Run:
    return lambda jobs: pool.map(scores, jobs)


if __name__ == "__main__":
    sys.exit(main())
