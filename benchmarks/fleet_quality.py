"""S16: four models on one set of GPUs, by our shares and by others': ``python -m benchmarks.fleet_quality``.

Four models with public traces (Azure 2024 conversation on a Tuesday and on a Saturday, ServeGen m-large on a first day
and in a later week), each from another hour on, scaled so that each takes two to four replicas of four GPUs on average,
with ``SlaPolicy``. Of each of the 24 hours of a day the first minutes stand in a row, so that ``--hours 2`` is a day
twelve times as fast between hours, and at its own pace within them. The rules share what the policies propose:

- ``quotas``: each model has a fixed part of the GPUs, by its mean need.
- ``proportional``: in proportion to what is wanted, the rest by largest remainders.
- ``global_planner``: Dynamo 1.6.1's GlobalPlanner as published: falls are applied first, then the smallest rise, as far
  as the maximum allows; a rise that does not fit is refused, and no model is lowered for another.
- ``rescale``: llm-d's rescale (llm-d-autoscaling #1452): ``floor + (B - sum of floors) * w / sum of w`` with ``w`` the
  demand, capped at it, the excess split again, largest remainders.
- ``ours``: :class:`~dynamo_planner.fleet.Fleet`.

Every rule takes the same steps towards its goal, within the GPUs at every moment. For each size of the set, in
replicas: the share in time and GPU-hours. Then the least set with which each rule has 98 and 98.5 % in time, on
straight lines between the sizes.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.shared import SHARED
from dynamo_planner import Profile, Sla, SlaPolicy
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.evaluation.fleet_backtest import FleetRun, Service, fleet_backtest
from dynamo_planner.fleet import Budget, Claim, Fleet, Grant, Member
from dynamo_planner.fleet.capacity import amounts, limits, per_replica
from dynamo_planner.fleet.moves import towards
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.sizing import Load, PercentileSizing
from dynamo_planner.workloads.trace import Trace

Counts = list[tuple[int, ...]]
Rule = Callable[[Sequence[Claim], float], Counts]

PROFILE = "llama31-70b_h100_vllm_tp4"
SLA = Sla(ttft_ms=1800, itl_ms=55)
TRACES = {
    "conversation": ("azure2024_conv_tue_x0.2_recon", 6.0),
    "large": ("servegen_mlarge_day0_x0.03", 12.0),
    "saturday": ("azure2024_conv_week_x0.04_recon", 4 * 24 + 18.0),
    "later": ("servegen_mlarge_wk1_x0.008", 3 * 24 + 1.0),
}
"""The trace of each model, and the hour of it at which the scenario begins."""

MEAN, STARTUP_S = 1.0, 120.0
"""The mean load of each model by the sizing, in full replicas, and how long a start takes in seconds."""


def part(name: str, hours: float) -> Trace:
    """The requests of one model: the first minutes of each of the 24 hours of its day, one after the other."""
    trace, at_hour = TRACES[name]
    whole = Trace.load(SHARED / "traces" / f"{trace}.npz")
    piece_s, pieces = hours * 3600.0 / 24, []
    for hour in range(24):
        at_s = (at_hour + hour) * 3600.0 % (whole.duration_s - piece_s)
        one = whole.between(at_s, at_s + piece_s)
        pieces.append((one.arrival_s + hour * piece_s, one.isl, one.osl))
    arrival_s, isl, osl = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return Trace(arrival_s, isl, osl, None, name, 24 * piece_s)


def services(hours: float) -> dict[str, Service]:
    """The models, scaled to their mean need."""
    profile, found = Profile.load(SHARED / "profiles" / PROFILE), {}
    for n, name in enumerate(TRACES):
        trace = part(name, hours)
        load = Load.of(1.0, isl=float(trace.isl.mean()), osl=float(trace.osl.mean()))
        work_s = PercentileSizing(profile).replicas_for(load, SLA, ("aggregated",))["aggregated"].load
        trace = trace.at_rate(MEAN / work_s, 2 + n)
        cluster = ClusterSetup.aggregated(profile, replicas=2, startup_s=STARTUP_S)
        found[name] = Service(trace, cluster, SLA)
    return found


def rounded(parts: Sequence[float], most: Sequence[int], total: int) -> list[int]:
    """Whole replicas by largest remainders, at most ``most`` each and ``total`` together."""
    counts = [min(math.floor(own), limit) for own, limit in zip(parts, most, strict=True)]
    order = sorted(range(len(parts)), key=lambda n: (math.floor(parts[n]) - parts[n], n))
    while sum(counts) < total and any(own < limit for own, limit in zip(counts, most, strict=True)):
        for n in order:
            if counts[n] < most[n] and sum(counts) < total:
                counts[n] += 1
    return counts


def proportional(claims: Sequence[Claim], total: float) -> Counts:
    wanted = [claim.wanted[0] for claim in claims]
    if sum(wanted) <= total:
        return [claim.wanted for claim in claims]
    parts = [total * own / sum(wanted) for own in wanted]
    return [(own,) for own in rounded(parts, wanted, int(total))]


def rescale(claims: Sequence[Claim], total: float) -> Counts:
    """Floors of one replica, the rest by demand; what is above the demand is split again."""
    wanted = [claim.wanted[0] for claim in claims]
    least = [claim.options[0].counts[0] for claim in claims]
    parts = [float(own) for own in least]
    left, open_ = total - sum(least), set(range(len(claims)))
    while left > 1e-9 and open_:
        weight = sum(max(claims[n].pools[0].load, 1e-9) for n in open_)
        more = {n: left * max(claims[n].pools[0].load, 1e-9) / weight for n in open_}
        left = 0.0
        for n, own in more.items():
            parts[n] += own
            if parts[n] >= wanted[n]:
                left += parts[n] - wanted[n]
                parts[n] = wanted[n]
                open_.discard(n)
    return [(own,) for own in rounded(parts, wanted, int(min(total, sum(wanted))))]


def global_planner(claims: Sequence[Claim], total: float) -> Counts:
    counts = [min(claim.wanted[0], claim.pools[0].present) for claim in claims]
    for n in sorted(range(len(claims)), key=lambda n: claims[n].wanted[0] - counts[n]):
        counts[n] += min(claims[n].wanted[0] - counts[n], max(int(total) - sum(counts), 0))
    return [(own,) for own in counts]


RULES: Mapping[str, Rule] = {"proportional": proportional, "global_planner": global_planner, "rescale": rescale}


class ByRule(Fleet):
    """A fleet whose budget is shared by another rule, in our steps."""

    rule: str

    def grants(self, claims: Sequence[Claim], free: Mapping[str, Sequence[int]]) -> Mapping[str, Grant]:
        claims = sorted(claims, key=lambda claim: claim.model)
        rows = limits(self.budgets, amounts(claims))
        sizes = [per_replica(claim, rows) for claim in claims]
        goal = RULES[self.rule](claims, self.budgets["gpu"].amount)
        now, _ = towards(claims, rows, sizes, goal, free)
        return {claim.model: Grant(goal[n], now[n]) for n, claim in enumerate(claims)}


def fleet_of(rule: str, total: int) -> Fleet:
    """The four models under a rule."""
    profile = Profile.load(SHARED / "profiles" / PROFILE)
    policy = SlaPolicy(sla=SLA, profile=profile)
    if rule == "quotas":
        members = {name: Member(policy=policy, gpus={}, uses={"workers": {name: 1}}) for name in TRACES}
        quotas = rounded([total / len(TRACES)] * len(TRACES), [total] * len(TRACES), total)
        return Fleet(
            models=members, budgets={name: Budget(total=float(own)) for name, own in zip(TRACES, quotas, strict=True)}
        )
    members = {name: Member(policy=policy, gpus={}, uses={"workers": {"gpu": 1}}) for name in TRACES}
    budgets = {"gpu": Budget(total=float(total))}
    if rule == "ours":
        return Fleet(models=members, budgets=budgets)
    return ByRule(models=FrozenMap(members), budgets=FrozenMap(budgets), rule=rule)


def least_total(sizes: Sequence[int], shares: Sequence[float], target: float) -> float:
    """The least size at which a share is reached, on straight lines between those that were run."""
    best = np.maximum.accumulate(shares)
    if best[-1] < target:
        return math.inf
    place = int(np.argmax(best >= target))
    if place == 0:
        return float(sizes[0])
    part_ = (target - best[place - 1]) / max(best[place] - best[place - 1], 1e-12)
    return float(sizes[place - 1] + part_ * (sizes[place] - sizes[place - 1]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 13, 16, 20])
    parser.add_argument("--rules", nargs="+", default=["quotas", "proportional", "global_planner", "rescale", "ours"])
    parser.add_argument("--out", type=Path, help="a file to which results are appended, as lines of JSON")
    options = parser.parse_args()
    models = services(options.hours)
    shares: dict[str, list[float]] = {rule: [] for rule in options.rules}
    print(f"{'rule':16}{'size':>6}{'in time':>10}{'worst model':>13}{'GPU-hours':>11}")
    for rule in options.rules:
        for total in options.sizes:
            run: FleetRun = fleet_backtest(fleet_of(rule, total), models)
            shares[rule].append(run.attainment)
            worst = min(own.score.attainment for own in run.runs.values())
            print(f"{rule:16}{total:6}{run.attainment:10.2%}{worst:13.2%}{run.gpu_hours:11.1f}", flush=True)
            if options.out is not None:
                row = {
                    "rule": rule,
                    "gpus": total,
                    "attainment": run.attainment,
                    "worst": worst,
                    "hours": run.gpu_hours,
                }
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    for target in (0.98, 0.985):
        needed = {rule: least_total(options.sizes, own, target) for rule, own in shares.items()}
        print(f"replicas for {target:.1%} in time: " + ", ".join(f"{rule} {own:.1f}" for rule, own in needed.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
