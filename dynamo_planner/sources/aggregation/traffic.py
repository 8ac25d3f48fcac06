"""Traffic out of what workers did: of one pool, and of a service that has no frontend to ask.

Every field that is unknown comes with a cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dynamo_planner.core.snapshot import Role, Traffic
from dynamo_planner.sources.aggregation.window import Track, Window, dist_of, window_of

NOTHING_FINISHED = "no request finished in the window"
FIRST_SCRAPE = "rates and means need two scrapes of a worker, and there was one"
NO_WORKERS = "there are no workers to scrape"

ARRIVALS_NEED: tuple[str, ...] = ("completions", "running", "waiting")
PREFIX_HITS_NEED: tuple[str, ...] = ("prefix_hits", "prefix_queries")

RATES = {
    "requests_per_s": ("arrivals", ARRIVALS_NEED),
    "rejected_per_s": ("rejections", ("rejections",)),
    "preemptions_per_s": ("preemptions", ("preemptions",)),
}
"""Which rate of a window each field is, and what it takes."""

OF_PROMPTS = ("requests_per_s", "rejected_per_s", "isl", "ttft_ms", "prefix_hit_rate")
"""What workers tell that take in prompts: prefill and aggregated ones."""

OF_TOKENS = ("osl", "itl_ms", "preemptions_per_s")
"""What workers tell that give out tokens: decode and aggregated ones."""

OF_REQUESTS = ("request_duration_s",)
"""What workers tell that see a request from its arrival to its end: aggregated ones."""


@dataclass(frozen=True)
class Told:
    """The fields of a :class:`Traffic` as far as they are known, and of the others why they are not."""

    window_s: float | None = None
    known: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def as_traffic(self, observed_at_s: float | None) -> Traffic:
        """What a policy sees of it."""
        return Traffic(window_s=self.window_s, observed_at_s=observed_at_s, **self.known)


def traffic_of(tracks: Sequence[Track], at_s: float) -> Told:
    """What these workers saw of the traffic, over the window that ends at ``at_s``."""
    fields = (*OF_PROMPTS, *OF_TOKENS, *OF_REQUESTS)
    window = window_of(tracks, at_s)
    seen = [track for track in tracks if track.seen]
    if not seen or window is None:
        return Told(missing=dict.fromkeys(fields, FIRST_SCRAPE if seen else why_unseen(tracks)))
    told = Told(window_s=window.span_s)
    for name in fields:
        value, why = _value_of(name, window, seen)
        if value is None:
            told.missing[name] = why
        else:
            told.known[name] = value
    return told


def why_unseen(tracks: Sequence[Track]) -> str:
    """Why nothing is known where no worker was seen."""
    listed = sum(track.listed for track in tracks)
    return f"none of the {listed} workers could be scraped" if listed else NO_WORKERS


def _value_of(name: str, window: Window, seen: Sequence[Track]) -> tuple[Any, str]:
    """The value of a field, or ``None`` and why."""
    if name in RATES:
        rate, needed = RATES[name]
        return window.rates.get(rate), _why(needed, seen)
    if name == "prefix_hit_rate":
        return _prefix_hit_rate(window, seen)
    observed = window.histograms.get(name)
    if observed is None:
        return None, _why((name,), seen)
    return dist_of(observed), NOTHING_FINISHED


def _prefix_hit_rate(window: Window, seen: Sequence[Track]) -> tuple[float | None, str]:
    """Hits over queries; or else the mean share as it was observed, or as it is now."""
    hits, queries = (window.counters.get(quantity) for quantity in PREFIX_HITS_NEED)
    if hits is not None and queries is not None:
        return (min(1.0, hits / queries), "") if queries > 0 else (None, NOTHING_FINISHED)
    observed = window.histograms.get("prefix_hit_rate")
    if observed is not None:
        share = dist_of(observed)
        return (min(1.0, share.mean), "") if share else (None, NOTHING_FINISHED)
    now = [
        track.last.gauges["prefix_hit_rate"] for track in seen if track.last and "prefix_hit_rate" in track.last.gauges
    ]
    return (sum(now) / len(now), "") if now else (None, _why(PREFIX_HITS_NEED, seen))


def _why(needed: Sequence[str], seen: Sequence[Track]) -> str:
    """Why one of these quantities is not known, in the words of the workers."""
    for quantity in needed:
        why = unknown_at(quantity, seen)
        if why is not None:
            return why
    return FIRST_SCRAPE


def unknown_at(quantity: str, seen: Sequence[Track]) -> str | None:
    """Which workers do not tell a quantity, and why; ``None`` where all that were seen do."""
    silent = [
        (track.name, track.last.unknown[quantity]) for track in seen if track.last and quantity in track.last.unknown
    ]
    if not silent:
        return None
    name, why = silent[0]
    return f"{why} ({name}{f' and {len(silent) - 1} more' if len(silent) > 1 else ''})"


def service_traffic(pools: Mapping[str, Sequence[Track]], roles: Mapping[str, Role], at_s: float) -> Told:
    """What clients saw, without a frontend to ask.

    Arrivals, ISL, TTFT and prefix hits are those of prefill and aggregated pools, OSL and ITL those of decode and
    aggregated ones, so that a request that goes through two pools counts once. Its duration is seen as a whole only
    by aggregated workers, and so is unknown where there are others.
    """
    prompts = traffic_of(_with_roles(pools, roles, "prefill", "aggregated"), at_s)
    tokens = traffic_of(_with_roles(pools, roles, "decode", "aggregated"), at_s)
    told = Told(window_s=prompts.window_s if prompts.window_s is not None else tokens.window_s)
    for fields, side in ((OF_PROMPTS, prompts), (OF_TOKENS, tokens), (OF_REQUESTS, prompts)):
        told.known.update({name: side.known[name] for name in fields if name in side.known})
        told.missing.update({name: side.missing[name] for name in fields if name in side.missing})
    if set(roles.values()) - {"aggregated"}:
        told.known.pop("request_duration_s", None)
        told.missing["request_duration_s"] = "where prefill and decode are apart, no worker sees a whole request"
    told.missing["queued"] = "only a frontend knows of requests that are in no pool yet"
    told.missing["arrival_dispersion"] = "counters do not tell when in the window requests came"
    return told


def _with_roles(pools: Mapping[str, Sequence[Track]], roles: Mapping[str, Role], *wanted: Role) -> list[Track]:
    return [track for name, tracks in pools.items() if roles[name] in wanted for track in tracks]


def frontend_traffic(tracks: Sequence[Track], at_s: float) -> Told:
    """What these frontends saw of the traffic, all together, over the window that ends at ``at_s``."""
    told = traffic_of(tracks, at_s)
    seen = [track for track in tracks if track.seen and track.last]
    queued = [track.last.gauges.get("queued") for track in seen if track.last]
    if queued and None not in queued:
        told.known["queued"] = sum(value for value in queued if value is not None)
    else:
        told.missing["queued"] = unknown_at("queued", seen) or ""
    told.missing["preemptions_per_s"] = "a frontend does not see them"
    told.missing["arrival_dispersion"] = "counters do not tell when in the window requests came"
    return told
