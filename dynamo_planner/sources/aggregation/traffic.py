"""The traffic of a pool, of a frontend, and of a service without a frontend, from the histories of workers.

Every field that is unknown comes with a cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dynamo_planner.core.metrics import Dist, Traffic
from dynamo_planner.core.snapshot import Role
from dynamo_planner.engines.vocabulary import NOT_OF_WORKERS, Quantity
from dynamo_planner.sources.aggregation.window import WindowTotals, WorkerHistory, to_dist, window_totals
from dynamo_planner.sources.aggregation.witnesses import Witness, excess, witness

NOTHING_FINISHED = "no request finished in the window"
FIRST_SCRAPE = "rates and means need two scrapes of a worker, and there was one"
NO_WORKERS = "there are no workers to scrape"
NO_DISPERSION = "counters do not show when in the window requests came"

AT_LEAST = "requests_per_s.at_least"
"""The field of what is said where arrivals are known and there may have been more."""

ARRIVALS_NEED: tuple[str, ...] = ("completions", "running", "waiting")
PREFIX_HITS_NEED: tuple[str, ...] = ("prefix_hits", "prefix_queries")

RATES = {
    "requests_per_s": ("arrivals", ARRIVALS_NEED),
    "rejected_per_s": ("rejections", ("rejections",)),
    "aborted_per_s": ("aborts", ("aborts",)),
    "preemptions_per_s": ("preemptions", ("preemptions",)),
}
"""For each field that is a rate, the rate of a window, and the quantities that it takes."""

FROM_PREFILL = ("requests_per_s", "rejected_per_s", "aborted_per_s", "isl", "ttft_ms", "prefix_hit_rate")
"""The fields that workers know which take in prompts: prefill and aggregated ones."""

FROM_DECODE = ("osl", "itl_ms", "token_gap_ms", "preemptions_per_s")
"""The fields that workers know which generate tokens: decode and aggregated ones."""

OF_FRONTENDS: tuple[Quantity, ...] = ("queued", "queued_tokens", "prefill_tokens")
"""The gauges of frontends, which are fields of the same name."""

LATENCIES = ("ttft_ms", "itl_ms")
"""The fields that an SLA has targets for, whose buckets are kept."""

FROM_AGGREGATED = ("request_duration_s",)
"""The fields that workers know which have a request from its arrival to its end: aggregated ones."""


@dataclass(frozen=True)
class PartialTraffic:
    """A :class:`Traffic` as far as it is known.

    Args:
        window_s: the length of the window, in seconds.
        known: the values of the known fields.
        missing: for each of the others, why it is unknown.
        choices: how many answers a request asks for in the mean, each of which counts as one; 1 where it is not told.
    """

    window_s: float | None = None
    known: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    choices: float = 1.0

    def as_traffic(self, observed_at_s: float | None) -> Traffic:
        """The traffic as a policy sees it."""
        return Traffic(window_s=self.window_s, observed_at_s=observed_at_s, **self.known)

    def as_requests(self, observed_at_s: float | None) -> Traffic:
        """The traffic beside a frontend: of requests, where the workers count the answers that each asks for."""
        traffic = self.as_traffic(observed_at_s)
        if self.choices <= 1:
            return traffic
        rate, osl = traffic.requests_per_s, traffic.osl
        return traffic.replace(
            requests_per_s=None if rate is None else rate / self.choices,
            osl=None if osl is None else Dist(mean=osl.mean * self.choices, count=osl.count),
        )


def pool_traffic(workers: Sequence[WorkerHistory], at_s: float) -> PartialTraffic:
    """The traffic that these workers observed, over the window that ends at ``at_s``."""
    return traffic_in(window_totals(workers, at_s), workers)


def traffic_in(window: WindowTotals | None, workers: Sequence[WorkerHistory]) -> PartialTraffic:
    """As :func:`pool_traffic`, of a window that is known already."""
    fields = (*FROM_PREFILL, *FROM_DECODE, *FROM_AGGREGATED)
    observed = [worker for worker in workers if worker.observed]
    if not observed or window is None:
        why = FIRST_SCRAPE if observed else why_unobserved(workers)
        return PartialTraffic(missing=dict.fromkeys(fields, why))
    choices = to_dist(window.histograms["choices"]) if "choices" in window.histograms else None
    traffic = PartialTraffic(window_s=window.span_s, choices=choices.mean if choices else 1.0)
    for name in fields:
        value, why = _value_of(name, window, observed)
        if value is None:
            traffic.missing[name] = why
        else:
            traffic.known[name] = value
    if window.at_least and "requests_per_s" in traffic.known:
        traffic.missing[AT_LEAST] = window.at_least
    return traffic


def frontend_traffic(frontends: Sequence[WorkerHistory], at_s: float) -> PartialTraffic:
    """The traffic that these frontends observed together, over the window that ends at ``at_s``."""
    traffic = pool_traffic(frontends, at_s)
    observed = [frontend for frontend in frontends if frontend.observed and frontend.last]
    for quantity in OF_FRONTENDS:
        values = [frontend.last.gauges.get(quantity) for frontend in observed if frontend.last]
        if not values or None in values:
            traffic.missing[quantity] = why_unknown(quantity, observed) or ""
        elif quantity == "prefill_tokens" and len(values) > 1:
            traffic.missing[quantity] = "several routers may count the same tokens"
        else:
            traffic.known[quantity] = sum(value for value in values if value is not None)
    traffic.missing["preemptions_per_s"] = "a frontend does not see them"
    traffic.missing["arrival_dispersion"] = NO_DISPERSION
    return traffic


def service_traffic(
    pools: Mapping[str, Sequence[WorkerHistory]], roles: Mapping[str, Role], at_s: float
) -> PartialTraffic:
    """The traffic that clients saw, without a frontend to ask.

    Arrivals, ISL, TTFT and prefix hits are those of prefill and aggregated pools, OSL and ITL those of decode and
    aggregated ones, so that a request that goes through two pools counts once. Where decode counts more arrivals than
    prefill, requests skip prefill: then arrivals and ISL are decode's, and TTFT and prefix hits are in neither pool.
    Only aggregated workers see the duration of a request as a whole, so that it is unknown where there are others.
    """
    taking, generating = (_with_roles(pools, roles, role, "aggregated") for role in ("prefill", "decode"))
    prompts = pool_traffic(taking, at_s)
    tokens = prompts if generating == taking else pool_traffic(generating, at_s)
    window_s = prompts.window_s if prompts.window_s is not None else tokens.window_s
    traffic = PartialTraffic(window_s=window_s, choices=tokens.choices)
    for fields, side in ((FROM_PREFILL, prompts), (FROM_DECODE, tokens), (FROM_AGGREGATED, prompts)):
        traffic.known.update({name: side.known[name] for name in fields if name in side.known})
        traffic.missing.update({name: side.missing[name] for name in (*fields, AT_LEAST) if name in side.missing})
    if set(roles.values()) - {"aggregated"}:
        _forget(traffic, "request_duration_s", "where prefill and decode are apart, no worker sees a whole request")
        _compare_pools(traffic, tokens, pools, roles, at_s)
    traffic.missing.update({quantity: NOT_OF_WORKERS[quantity] for quantity in OF_FRONTENDS})
    traffic.missing["arrival_dispersion"] = NO_DISPERSION
    return traffic


def _compare_pools(
    traffic: PartialTraffic,
    tokens: PartialTraffic,
    pools: Mapping[str, Sequence[WorkerHistory]],
    roles: Mapping[str, Role],
    at_s: float,
) -> None:
    """Take arrivals from decode where requests skip prefill; forget them where not both pools can be right.

    Where they agree within the noise the higher count is taken, unless decode only catches up with prefill.
    """
    before, after = (witness(_with_roles(pools, roles, role), at_s) for role in ("prefill", "decode"))
    if after is None:
        return
    if before is None:
        if any(worker.listed for worker in _with_roles(pools, roles, "prefill")):
            return
        before = Witness(arrivals=0.0, ended=0.0, span_s=after.span_s, sampled_s=())
    if after.arrivals is None:
        why = tokens.missing.get("requests_per_s", FIRST_SCRAPE)
        _forget(
            traffic, "requests_per_s", f"not every request need pass prefill, and those of decode are unknown: {why}"
        )
        return
    more = excess(before, after)
    if before.arrivals is None:
        return
    if more == 0:
        told = traffic.known.keys() & tokens.known.keys()
        if after.arrivals > max(before.arrivals, before.ended or 0.0) and "requests_per_s" in told:
            traffic.known["requests_per_s"] = max(traffic.known["requests_per_s"], tokens.known["requests_per_s"])
        return
    rates = (before.arrivals / before.span_s, after.arrivals / after.span_s)
    counts = "prefill counts {:.3g} requests/s and decode {:.3g}".format(*rates)
    if more < 0:
        _forget(traffic, "requests_per_s", f"{counts}: some end between the two, or decode does not count all")
        return
    for name in ("requests_per_s", "isl"):
        traffic.known.pop(name, None)
        traffic.missing.pop(name, None)
        traffic.known.update({name: tokens.known[name]} if name in tokens.known else {})
        traffic.missing.update({name: tokens.missing[name]} if name in tokens.missing else {})
    for name in ("ttft_ms", "prefix_hit_rate"):
        _forget(traffic, name, f"{counts}: requests skip prefill, and neither pool sees all of them")


def _forget(traffic: PartialTraffic, name: str, why: str) -> None:
    traffic.known.pop(name, None)
    traffic.missing[name] = why


def why_unobserved(workers: Sequence[WorkerHistory]) -> str:
    """Why nothing is known where no worker answered."""
    listed = sum(worker.listed for worker in workers)
    return f"none of the {listed} workers could be scraped" if listed else NO_WORKERS


def why_unknown(quantity: str, observed: Sequence[WorkerHistory]) -> str | None:
    """Which workers do not report a quantity, and why; ``None`` where all that answered do."""
    silent = [
        (worker.name, worker.doubt or worker.last.unknown[quantity])
        for worker in observed
        if worker.last and (worker.doubt or quantity in worker.last.unknown)
    ]
    if not silent:
        return None
    name, why = silent[0]
    return f"{why} ({name}{f' and {len(silent) - 1} more' if len(silent) > 1 else ''})"


def _value_of(name: str, window: WindowTotals, observed: Sequence[WorkerHistory]) -> tuple[Any, str]:
    """The value of a field, or ``None`` and why."""
    if name in RATES:
        rate, needed = RATES[name]
        if name == "aborted_per_s":
            rate = next((each for each in ("aborts", "cancellations") if each in window.rates), rate)
        doubt = window.doubt or (window.uncounted if rate == "arrivals" else "")
        return window.rates.get(rate), doubt or _why(needed, observed)
    if name == "prefix_hit_rate":
        return _prefix_hit_rate(window, observed)
    data = window.histograms.get(name)
    if data is None:
        return None, window.doubt or _why((name,), observed)
    return to_dist(data, with_buckets=name in LATENCIES), window.doubt or NOTHING_FINISHED


def _prefix_hit_rate(window: WindowTotals, observed: Sequence[WorkerHistory]) -> tuple[float | None, str]:
    """Hits over queries; or else the mean share that was observed, or the mean of the present shares."""
    hits, queries = (window.counters.get(quantity) for quantity in PREFIX_HITS_NEED)
    if hits is not None and queries is not None:
        return (min(1.0, hits / queries), "") if queries > 0 else (None, NOTHING_FINISHED)
    data = window.histograms.get("prefix_hit_rate")
    if data is not None:
        share = to_dist(data)
        return (min(1.0, share.mean), "") if share else (None, NOTHING_FINISHED)
    present = [
        worker.last.gauges["prefix_hit_rate"]
        for worker in observed
        if worker.last and "prefix_hit_rate" in worker.last.gauges
    ]
    return (sum(present) / len(present), "") if present else (None, window.doubt or _why(PREFIX_HITS_NEED, observed))


def _why(needed: Sequence[str], observed: Sequence[WorkerHistory]) -> str:
    """Why one of these quantities is unknown, by the first that a worker does not report."""
    for quantity in needed:
        why = why_unknown(quantity, observed)
        if why is not None:
            return why
    return FIRST_SCRAPE


def _with_roles(
    pools: Mapping[str, Sequence[WorkerHistory]], roles: Mapping[str, Role], *wanted: Role
) -> list[WorkerHistory]:
    return [worker for name, workers in pools.items() if roles[name] in wanted for worker in workers]
