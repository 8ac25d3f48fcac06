"""What a Prometheus server knows of a served model, now or at any time it still remembers (extra ``prometheus``)."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dynamo_planner.core.snapshot import (
    Observation,
    PoolMetrics,
    PoolSpec,
    PoolStatus,
    Replicas,
    Role,
    Snapshot,
    Traffic,
)
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.engines.registry import detect, frontend_vocabularies, worker_vocabularies
from dynamo_planner.engines.vocabulary import Vocabulary, describe_engines
from dynamo_planner.sources.aggregation.pools import WorkerNotes, notes_of, pool_metrics
from dynamo_planner.sources.aggregation.traffic import frontend_traffic, service_traffic
from dynamo_planner.sources.prometheus.access import Access
from dynamo_planner.sources.prometheus.answers import PoolAnswers, UnlabelledError, read_answers
from dynamo_planner.sources.prometheus.api import PrometheusApi, QueryError, Vector
from dynamo_planner.sources.prometheus.promql import Ask, LabelMatchers, Scope, presence_names, queries_of

FRONTEND = "frontend"

STEPS_AT_ONCE = 500
"""Moments of the past that are asked for in one query; a server refuses more than 11,000."""


@dataclass(frozen=True)
class _Part:
    """A pool, or what stands before the pools: which series are its, and in which words."""

    name: str
    scope: Scope
    vocabulary: Vocabulary | None
    among: Mapping[str, Vocabulary]


Answers = Mapping[tuple[str, Ask], Vector | QueryError]
"""By the name of a part, and what was asked of it."""


class PrometheusSource:
    """Sees a served model by what a Prometheus server has scraped of its workers.

    ``roles`` says what the workers of each pool do. ``labels`` are what all scrape targets of the model have in common
    (``{"namespace": "llm"}``), ``pools`` what those of each pool have besides (``{"decode": {"pod": "=~llama-d-.*"}}``;
    see :data:`LabelMatchers`), and ``model`` is the name of the model, where targets serve several. ``worker_label``
    tells workers from each other. ``vocabulary`` says what their engine calls things; left out, it is found out for
    each pool. ``frontend`` are the labels of what stands before the pools, whose traffic is then what clients saw.

    Rates and means are over ``window_s``, which must hold two scrapes of a worker: four times the scrape interval is
    what one takes. A worker is seen if Prometheus has a sample of it from within the window; ``coverage`` is the share
    of those that are scrape targets and were seen within ten minutes. All queries of a turn together take at most
    ``timeout_s``. One that fails, or whose answer may be partial, makes its own quantity unknown.

    Counters say nothing of what came before their first sample, and of requests that a crashed worker had: arrivals
    are good to what comes in one scrape interval.
    """

    def __init__(
        self,
        url: str,
        roles: Mapping[str, Role],
        *,
        labels: LabelMatchers | None = None,
        pools: Mapping[str, LabelMatchers] | None = None,
        model: str | None = None,
        vocabulary: Vocabulary | None = None,
        frontend: LabelMatchers | None = None,
        worker_label: str = "instance",
        window_s: float = 60.0,
        timeout_s: float = 10.0,
        access: Access | None = None,
    ) -> None:
        if not (math.isfinite(window_s) and window_s > 0):
            raise ValueError(f"window_s must be a positive number, got {window_s}")
        own = pools or {}
        strangers = sorted(own.keys() - roles.keys())
        if strangers:
            raise ValueError(f"pools: {strangers[0]!r} is in no role; roles has {', '.join(roles) or 'none'}")
        seen: dict[LabelMatchers, str] = {}
        for name in roles:
            other = seen.setdefault(FrozenMap(own.get(name, {})), name)
            if other != name:
                raise ValueError(f"pools: {other!r} and {name!r} have the same labels, and so the same workers")
        self._roles = dict(roles)
        self._model = model
        self._api = PrometheusApi(url, access, timeout_s=timeout_s)
        self._parts = []
        for name in roles:
            scope = Scope(labels={**(labels or {}), **own.get(name, {})}, worker_label=worker_label, window_s=window_s)
            self._parts.append(self._spoken(_Part(name, scope, None, worker_vocabularies()), vocabulary))
        if frontend is not None:
            scope = Scope(labels={**(labels or {}), **frontend}, worker_label=worker_label, window_s=window_s)
            self._parts.append(_Part(FRONTEND, scope, None, frontend_vocabularies()))
        self._detecting = threading.Lock()
        self._last: dict[str, PoolAnswers] = {}

    def observe(self, at_s: float) -> Observation:
        """What Prometheus knows of ``at_s``. Raises :class:`SourceError` where it answers no query."""
        parts = self._known(at_s)
        answers = self._api.instant(_asked(parts), at_s)
        seen = self._seen(parts, answers, at_s)
        self._last = {name: seen.found[name] for name in self._roles if name in seen.found}
        return seen.observation(self._roles, at_s)

    def history(self, pools: Mapping[str, PoolSpec], start_s: float, step_s: float, length: int) -> Iterator[Snapshot]:
        """What it knows of ``length`` moments from ``start_s`` on, ``step_s`` apart; see :class:`HistorySource`."""
        moments = [round(start_s + number * step_s, 3) for number in range(length)]
        parts = self._known(moments[-1], moments[0], moments[length // 2])
        for first in range(0, length, STEPS_AT_ONCE):
            chunk = moments[first : first + STEPS_AT_ONCE]
            answers = self._api.over(_asked(parts), chunk[0], chunk[-1], step_s)
            for at_s in chunk:
                then = {
                    key: answer if isinstance(answer, QueryError) else answer.get(at_s, {})
                    for key, answer in answers.items()
                }
                seen = self._seen(parts, then, at_s)
                yield _snapshot(seen, seen.observation(self._roles, at_s), pools, at_s)

    def notes(self) -> dict[str, dict[str, WorkerNotes]]:
        """What is to be said of the workers of the last turn, by pool and name."""
        engines = {part.name: part.vocabulary.engine for part in self._parts if part.vocabulary is not None}
        return {
            name: {track.name: notes_of(track, engines.get(name)) for track in found.tracks if track.listed}
            for name, found in self._last.items()
        }

    def queries(self, at_s: float | None = None) -> dict[str, dict[Ask, str]]:
        """All that it asks, in PromQL: by pool, or ``frontend``, and by what it tells.

        Where the engine was not given it is found out from what there is at ``at_s``; raises :class:`SourceError`.
        """
        parts = self._parts if at_s is None else self._known(at_s)
        return {part.name: queries_of(part.vocabulary, part.scope) for part in parts if part.vocabulary is not None}

    def _known(self, *moments_s: float) -> list[_Part]:
        """The parts, with the vocabulary of each as far as it is known; one that is found out is remembered."""
        with self._detecting:
            for at_s in moments_s:
                unknown = [part for part in self._parts if part.vocabulary is None]
                if unknown:
                    self._detect(unknown, at_s)
            return list(self._parts)

    def _detect(self, parts: Iterable[_Part], at_s: float) -> None:
        asked = {}
        for part in parts:
            names = frozenset().union(*(presence_names(each) for each in part.among.values()))
            asked[part.name] = f"count by (__name__) ({part.scope.any_of(sorted(names))})"
        for name, there in self._api.instant(asked, at_s).items():
            if not isinstance(there, QueryError):
                part = next(part for part in self._parts if part.name == name)
                found = detect((dict(labels).get("__name__", "") for labels in there), part.among.values())
                self._parts[self._parts.index(part)] = self._spoken(part, found)

    def _spoken(self, part: _Part, vocabulary: Vocabulary | None) -> _Part:
        """The part with its vocabulary, for its role, and with the model among its labels."""
        if vocabulary is None:
            return part
        role = self._roles.get(part.name)
        scope = part.scope
        if self._model is not None and vocabulary.model_label is not None:
            # A series without the label is of all models, as in scraping.
            own = {vocabulary.model_label: f"=~(?i){re.escape(self._model)}|"}
            scope = scope.replace(metric_labels=FrozenMap(own))
        return replace(part, vocabulary=vocabulary.for_role(role) if role else vocabulary, scope=scope)

    def _seen(self, parts: Iterable[_Part], answers: Answers, at_s: float) -> _Seen:
        found: dict[str, PoolAnswers] = {}
        missing: dict[str, str] = {}
        for part in parts:
            where = "traffic" if part.name == FRONTEND else f"pools.{part.name}"
            if part.vocabulary is None:
                engines = describe_engines(part.among.values())
                missing[where] = f"Prometheus has no metric with {part.scope.described()} of {engines}"
                continue
            try:
                own = {ask: answer for (name, ask), answer in answers.items() if name == part.name}
                found[part.name] = read_answers(own, part.vocabulary, part.scope, at_s)
            except UnlabelledError as error:
                missing[where] = str(error)
        return _Seen(found, missing)


@dataclass(frozen=True)
class _Seen:
    """What was found of each part that could be read, and why the others could not."""

    found: Mapping[str, PoolAnswers]
    missing: Mapping[str, str]

    def observation(self, roles: Mapping[str, Role], at_s: float) -> Observation:
        """It all as what a source sees."""
        pools: dict[str, PoolMetrics] = {}
        missing = dict(self.missing)
        for name in roles:
            pools[name], unknown = self._pool(name, at_s)
            missing.update({".".join(("pools", name, *path)): why for path, why in unknown.items()})
        traffic, unknown_traffic = self._traffic(roles, at_s)
        missing.update({f"traffic.{field}": why for field, why in unknown_traffic.items()})
        return Observation(traffic=traffic, pools=pools, missing=missing)

    def _pool(self, name: str, at_s: float) -> tuple[PoolMetrics, dict[tuple[str, ...], str]]:
        if name not in self.found:
            return PoolMetrics(observed_at_s=None), {}
        found = self.found[name]
        metrics, missing = pool_metrics(found.tracks, at_s)
        seen: dict[str, Any] = {"observed_at_s": found.observed_at_s}
        if metrics.traffic is not None:
            seen["traffic"] = metrics.traffic.replace(**seen)
        if not found.has_up:
            seen["coverage"] = None
            missing[("coverage",)] = "Prometheus has no series 'up' with these labels"
        missing.update({("workers", worker): why for worker, why in found.causes.items()})
        return metrics.replace(**seen), missing

    def _traffic(self, roles: Mapping[str, Role], at_s: float) -> tuple[Traffic, dict[str, str]]:
        """What clients saw: as the frontend tells it, and what it does not tell, as the workers do."""
        tracks = {name: self.found[name].tracks if name in self.found else [] for name in roles}
        told = service_traffic(tracks, roles, at_s)
        missing = dict(told.missing)
        times = [self.found[name].observed_at_s for name in roles if name in self.found]
        traffic = told.as_traffic(min((time for time in times if time is not None), default=None))
        frontend = self.found.get(FRONTEND)
        if frontend is None or not frontend.seen:
            return traffic, missing
        at_front = frontend_traffic(frontend.tracks, at_s)
        known = {**at_front.known, "window_s": at_front.window_s, "observed_at_s": frontend.observed_at_s}
        traffic, missing = traffic.replace(**known), {**missing, **at_front.missing}
        return traffic, {field: why for field, why in missing.items() if getattr(traffic, field) is None}


def _asked(parts: Iterable[_Part]) -> dict[tuple[str, Ask], str]:
    return {
        (part.name, ask): query
        for part in parts
        if part.vocabulary is not None
        for ask, query in queries_of(part.vocabulary, part.scope).items()
    }


def _snapshot(seen: _Seen, observation: Observation, specs: Mapping[str, PoolSpec], at_s: float) -> Snapshot:
    """The snapshot of a moment in the past; the workers that were seen are its ready replicas."""
    pools = {}
    for name, spec in specs.items():
        metrics = observation.pools.get(name, PoolMetrics(observed_at_s=None))
        replicas = Replicas(ready=len(seen.found[name].seen)) if name in seen.found else None
        told = {field: getattr(metrics, field) for field in PoolMetrics.model_fields}
        pools[name] = PoolStatus(spec=spec, replicas=replicas, **told)
    return Snapshot(at_s=at_s, traffic=observation.traffic, pools=pools, missing=observation.missing)
