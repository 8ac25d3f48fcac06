"""The parts on their own: forecasts, sizing, profiles, and what sources read off pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from dynamo_planner import Dist, Observation, Profile, Sla
from dynamo_planner.engines.registry import worker_vocabularies
from dynamo_planner.forecasting import Forecaster, ForecastState
from dynamo_planner.sizing import Arrivals, ClassicSizing, Load, PercentileSizing, Requirement
from dynamo_planner.sources.aggregation.pools import pool_metrics
from dynamo_planner.sources.aggregation.sample import read_page
from dynamo_planner.sources.aggregation.traffic import service_traffic
from dynamo_planner.sources.aggregation.window import WorkerHistory
from dynamo_planner.sources.scraping.exposition import parse_page
from dynamo_planner.sources.scraping.json_page import parse_json
from tests.golden.pages import PAGES
from tests.golden.plain import digest, plain

BUNDLED = ("llama31-8b_h100_vllm_tp1", "llama31-70b_h100_vllm_tp4", "llama31-70b-fp8_h200_trtllm_tp2")
STEP_S = 10.0


def _series() -> list[float | None]:
    """A wave with a step, a burst, gaps and a pause; no chance in it."""
    rates: list[float | None] = []
    for step in range(240):
        rate = 20 + 8 * math.sin(step / 15) + (step * 7919 % 11 - 5) * 0.4
        rates.append(None if step % 37 == 5 else rate * (2 if step > 120 else 1) * (4 if step in {60, 61} else 1))
    return [*rates, *[0.0] * 25, *[12.0] * 15]


def _forecasts() -> Iterator[Any]:
    forecaster = Forecaster()
    state: ForecastState | None = None
    for step, rate in enumerate(_series(), 1):
        at_s = step * STEP_S
        state = forecaster.update(state, at_s=at_s, rate_per_s=rate, span_s=STEP_S)
        if step % 10 == 1:
            told = [forecaster.forecast(state, at_s, horizon_s) for horizon_s in (0, 30, 90, 300, 900)]
            told.append(forecaster.forecast(state, at_s, 60, window_s=60))
            quantiles = [
                None if each is None else [plain(each.mean), *(plain(each.quantile(q)) for q in (0.1, 0.5, 0.9, 0.999))]
                for each in told
            ]
            yield {"at_s": at_s, "quantiles": quantiles, "state": digest(state.model_dump(mode="json") if state else 0)}


RECORDED = {"Unattainable": "Hopeless", "unattainable": "hopeless"}
"""Names that have changed since the recording."""


def _needed(need: Requirement) -> list[Any]:
    facts = [
        [
            RECORDED.get(fact.code, fact.code),
            plain({RECORDED.get(key, key): value for key, value in fact.values.items()}, 7),
        ]
        for fact in need.facts
    ]
    return [need.replicas, plain(need.load), plain(need.attained), plain(need.unattainable), need.limit, digest(facts)]


def _loads() -> Iterator[tuple[list[Any], Load]]:
    for rate in (0.0, 0.5, 5.0, 40.0, 300.0):
        for isl, osl in ((200.0, 50.0), (1000.0, 250.0), (6000.0, 400.0), (3000.0, 1.0)):
            yield [rate, isl, osl], Load.of(requests_per_s=rate, isl=isl, osl=osl)
    slots = Arrivals.observed([30, 50, 20, 80, 45, 10, 60, 70], slot_s=5.0)
    lengths = Dist(mean=800, quantiles={0.5: 500, 0.9: 1900, 0.99: 5000})
    yield ["slots", 800.0, 200.0], Load.of(slots, lengths, Dist(mean=200, cv2=0.6), 0.3, 25.0)


def _percentile(profile: str) -> Iterator[Any]:
    sizing = PercentileSizing(Profile.bundled(profile))
    for key, load in _loads():
        for sla in (Sla(ttft_ms=500, itl_ms=25), Sla(ttft_ms=2000, itl_ms=60, attainment=0.9)):
            told = {str(role): _needed(need) for role, need in sizing.replicas_for(load, sla).items()}
            if sizing.profile.mixed is not None:
                told["aggregated"] = _needed(sizing.replicas_for(load, sla, ("aggregated",))["aggregated"])
            told["slower"] = _needed(sizing.replicas_for(load, sla, ("decode",), {"decode": 1.3})["decode"])
            shares = sizing.attainable(load, sla, {"prefill": [1, 4, 16], "decode": 4})
            yield {"load": key, "ttft_ms": sla.ttft_ms, **told, "attainable": plain(shares)}


def _classic() -> Iterator[Any]:
    for defects in (False, True):
        sizing = ClassicSizing(Profile.bundled(BUNDLED[0]), defects=defects)
        for key, load in _loads():
            needs = sizing.replicas_for(load, Sla(ttft_ms=500, itl_ms=25), service_factor={"prefill": 1.2})
            yield {"load": key, "defects": defects, **{role: _needed(need) for role, need in needs.items()}}


def _profile(name: str) -> Iterator[Any]:
    profile = Profile.bundled(name)
    for isl in (1, 100, 500, 2000, 8000, 30_000, 120_000):
        curve = profile.prefill
        ms = curve.ttft_ms(isl)
        told = [ms, curve.throughput(isl), bool(curve.extrapolated(isl)), curve.max_isl(ms * 1.1)]
        yield {"isl": isl, "prefill": plain(told)}
    for context in (100, 1000, 4000, 20_000):
        for usage in (0.01, 0.2, 0.6, 0.95):
            decode = profile.decode
            told = [decode.itl_ms(usage, context), decode.throughput(usage, context), decode.step_ms(16, context)]
            yield {"context": context, "usage": usage, "decode": plain(told)}
        best = profile.decode.best([5, 12, 25, 80], context, 0.9)
        yield {"context": context, "best": plain([*best])}
    for prompts, decoding, kept in ((0, 8, 8000), (512, 0, 0), (512, 16, 20_000), (2048, 64, 90_000)):
        yield {"step": [prompts, decoding, kept], "ms": plain(profile.step_ms(prompts, decoding, kept))}
    yield {"costs": digest([*vars(profile.costs).values()] if hasattr(profile.costs, "__dict__") else [*profile.costs])}


ADDED = ("aborted_per_s",)
"""Fields of traffic that are newer than the recording."""


def _observed(engine: str) -> Iterator[Any]:
    """Two readings of a worker ten seconds apart, and what they tell: the parsing path of ``ScrapeSource``."""
    vocabulary = worker_vocabularies()[engine].for_role("aggregated")
    track, previous_s = WorkerHistory("w0", 30.0), None
    for at_s, turn in zip((1000.0, 1010.0), PAGES[engine], strict=True):
        page: dict[str, Any] = {}
        for path, text in turn.items():
            names = vocabulary.names()
            page |= parse_json(text, path, names) if text[0] in "[{" else parse_page(text, names)
        track.add(read_page(page, vocabulary, at_s), previous_s)
        track.observed = track.listed = True
        previous_s = at_s
        metrics, missing = pool_metrics([track], at_s)
        told = service_traffic({"workers": [track]}, {"workers": "aggregated"}, at_s)
        observation = Observation(traffic=told.as_traffic(at_s), pools={"workers": metrics}, missing=told.missing)
        seen = observation.model_dump(mode="json", exclude_none=True)
        paths = [*seen.pop("missing"), *(".".join(path) for path in missing)]
        unknown = sorted(path for path in paths if path.rpartition(".")[2] not in ADDED)
        yield {"at_s": at_s, **plain(seen), "missing": unknown}


SCENARIOS: dict[str, Callable[[], Iterator[Any]]] = {
    "forecaster": _forecasts,
    **{f"sizing percentile {name}": partial(_percentile, name) for name in BUNDLED},
    "sizing classic": _classic,
    **{f"profile {name}": partial(_profile, name) for name in BUNDLED},
    **{f"source {engine}": partial(_observed, engine) for engine in PAGES},
}
