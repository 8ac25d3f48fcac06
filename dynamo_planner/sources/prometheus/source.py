"""``PrometheusSource``: a served model as a Prometheus server knows it, now or in the past (extra ``prometheus``)."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from dynamo_planner.core.snapshot import Observation, PoolSpec, Role, Snapshot
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.engines.prefixed import with_prefix
from dynamo_planner.engines.registry import frontend_vocabularies, worker_vocabularies
from dynamo_planner.engines.vocabulary import NO_MODEL, Vocabulary
from dynamo_planner.sources.access import Access
from dynamo_planner.sources.aggregation.pools import WorkerNotes, notes_of
from dynamo_planner.sources.prometheus.answers import read_answers
from dynamo_planner.sources.prometheus.api import PartialError, PrometheusApi, QueryError, Vector
from dynamo_planner.sources.prometheus.clock import clock_remark, future_doubt
from dynamo_planner.sources.prometheus.copies import (
    ADDRESS,
    POD,
    copy_labels,
    every_series,
    one_process_each,
    shared_targets,
    unclear_addresses,
)
from dynamo_planner.sources.prometheus.deferred import DeferredQueries, deferred_queries, read_deferred
from dynamo_planner.sources.prometheus.detection import detection_pattern, vocabulary_of
from dynamo_planner.sources.prometheus.instead import what_is_there
from dynamo_planner.sources.prometheus.model_answers import DEFERRED, FRONTEND, ModelAnswers
from dynamo_planner.sources.prometheus.pool_answers import PoolAnswers, UnreadableError
from dynamo_planner.sources.prometheus.promql import queries_of
from dynamo_planner.sources.prometheus.query_keys import ADDRESSES, OBSERVED_AT, STARTS, TARGETS, UP, QueryKey
from dynamo_planner.sources.prometheus.scope import LabelMatchers, Scope

MAX_STEPS_PER_QUERY = 500
"""Moments of the past in one range query; a server refuses more than 11,000."""


@dataclass(frozen=True)
class _TargetGroup:
    """The scrape targets of one pool, or of the frontends.

    Args:
        name: of the pool, or ``FRONTEND``.
        scope: which series are theirs.
        vocabulary: of their engine; ``None`` until it is detected.
        among: the vocabularies that it may be.
        model: the model, where only its series are read.
        unread: why its engine is unknown, or none of its series is read; empty where neither is so.
    """

    name: str
    scope: Scope
    vocabulary: Vocabulary | None
    among: Mapping[str, Vocabulary]
    model: str | None = None
    unread: str = ""


GroupAnswers = Mapping[tuple[str, QueryKey], Vector | QueryError]
"""By the name of a group, and by what was queried of it."""


class PrometheusSource:
    """A served model as a Prometheus server knows it.

    A worker is observed if Prometheus has a sample of it from within the window; ``coverage`` is the share of those
    that are scrape targets and had a sample within ten minutes. A query that fails, or whose answer may be partial,
    makes its own quantity unknown. Counters show nothing from before their first sample, nor the requests that a
    crashed worker had: arrivals are good to what comes in one scrape interval.

    Args:
        url: the base URL of the server, with the path before ``/api/v1`` if there is one.
        roles: the role of each pool.
        labels: what all scrape targets of the model have in common (``{"namespace": "llm"}``).
        pools: what those of each pool have besides (``{"decode": {"pod": "=~llama-d-.*"}}``; see
            :data:`LabelMatchers`).
        model: the model this is about, where targets serve several.
        vocabulary: what the workers' engine calls its metrics; by default it is detected for each pool.
        frontend: the labels of the frontends, whose traffic is what clients saw; none by default.
        worker_label: the label that distinguishes workers.
        prefix: what stands before the engine's own names of metrics (``ray_``); nothing by default.
        window_s: seconds over which rates and means are. It must hold two scrapes of a worker; four scrape intervals
            are usual.
        timeout_s: seconds for all queries of a turn together.
        deferred: the queries of each deferrable class, where a gateway reports what waits; none by default.
        access: credentials, certificates and parameters; none by default.
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
        prefix: str = "",
        window_s: float = 60.0,
        timeout_s: float = 10.0,
        deferred: Mapping[str, DeferredQueries] | None = None,
        access: Access | None = None,
    ) -> None:
        if not (math.isfinite(window_s) and window_s > 0):
            raise ValueError(f"window_s must be a positive number, got {window_s}")
        own = pools or {}
        unknown = sorted(own.keys() - roles.keys())
        if unknown:
            raise ValueError(f"pools: {unknown[0]!r} is in no role; roles has {', '.join(roles) or 'none'}")
        pool_of: dict[LabelMatchers, str] = {}
        for name in roles:
            other = pool_of.setdefault(FrozenMap(own.get(name, {})), name)
            if other != name:
                raise ValueError(f"pools: {other!r} and {name!r} have the same labels, and so the same workers")
        self._roles = dict(roles)
        self._model = model
        self._deferred = dict(deferred or {})
        self._api = PrometheusApi(url, access, timeout_s=timeout_s)
        self._groups = []
        for name in roles:
            scope = Scope(labels={**(labels or {}), **own.get(name, {})}, worker_label=worker_label, window_s=window_s)
            among = {engine: with_prefix(each, prefix) for engine, each in worker_vocabularies().items()}
            known = None if vocabulary is None else with_prefix(vocabulary, prefix)
            self._groups.append(self._with_vocabulary(_TargetGroup(name, scope, None, among), known))
        if frontend is not None:
            scope = Scope(labels={**(labels or {}), **frontend}, worker_label=worker_label, window_s=window_s)
            self._groups.append(_TargetGroup(FRONTEND, scope, None, frontend_vocabularies()))
        self._detecting = threading.Lock()
        self._last: dict[str, PoolAnswers] = {}

    def observe(self, at_s: float) -> Observation:
        """Observe the model as it was at ``at_s``. Raises :class:`SourceError` where no query is answered."""
        groups = self._detected(at_s)
        answers = self._api.instant(self._queries(groups), at_s)
        copied = self._with_copies(groups, answers)
        if copied:
            answers |= self._api.instant(_queries(copied), at_s)
        unread = self._why_unread(answers, at_s)
        model = self._read(answers, at_s, unread)
        self._last = {name: model.by_name[name] for name in self._roles if name in model.by_name}
        return model.observation(self._roles, at_s)

    def history(self, pools: Mapping[str, PoolSpec], start_s: float, step_s: float, length: int) -> Iterator[Snapshot]:
        """Snapshots of ``length`` moments from ``start_s`` on, ``step_s`` apart; see :class:`HistorySource`."""
        moments = [round(start_s + number * step_s, 3) for number in range(length)]
        groups = self._detected(moments[-1], moments[0], moments[length // 2])
        for first in range(0, length, MAX_STEPS_PER_QUERY):
            chunk = moments[first : first + MAX_STEPS_PER_QUERY]
            answers = self._api.range(self._queries(groups), chunk[0], chunk[-1], step_s)
            copied = self._with_copies(groups, {key: every_series(answer) for key, answer in answers.items()})
            if copied:
                answers |= self._api.range(_queries(copied), chunk[0], chunk[-1], step_s)
                groups = self._detected()
            unread = self._why_unread({key: every_series(answer) for key, answer in answers.items()}, chunk[-1])
            for at_s in chunk:
                then = {
                    key: answer if isinstance(answer, QueryError) else answer.get(at_s, {})
                    for key, answer in answers.items()
                }
                yield self._read(then, at_s, unread).snapshot(self._roles, pools, at_s)

    def notes(self) -> dict[str, dict[str, WorkerNotes]]:
        """The engine of each worker of the last turn, and why it does not report what it does not, by pool and name."""
        engines = {group.name: group.vocabulary.engine for group in self._groups if group.vocabulary is not None}
        return {
            name: {worker.name: notes_of(worker, engines.get(name)) for worker in pool.workers if worker.listed}
            for name, pool in self._last.items()
        }

    def queries(self, at_s: float | None = None) -> dict[str, dict[QueryKey, str]]:
        """All queries, in PromQL, by pool, or ``frontend``, and by what they give.

        An engine that was not given is detected from the metrics at ``at_s``, which may raise :class:`SourceError`.
        """
        groups = self._groups if at_s is None else self._detected(at_s)
        known = ((group.name, group.scope, group.vocabulary) for group in groups)
        found = {name: queries_of(vocabulary, scope) for name, scope, vocabulary in known if vocabulary is not None}
        return found | ({"deferred": queries} if (queries := deferred_queries(self._deferred)) else {})

    def _detected(self, *moments_s: float) -> list[_TargetGroup]:
        """The groups, with the vocabulary of each as far as it can be detected; one that was is remembered."""
        with self._detecting:
            for at_s in moments_s:
                unknown = [group for group in self._groups if group.vocabulary is None]
                if unknown:
                    self._detect(unknown, at_s)
            return list(self._groups)

    def _detect(self, groups: Iterable[_TargetGroup], at_s: float) -> None:
        queries = {}
        for group in groups:
            queries[group.name] = f"count by (__name__) ({group.scope.named(detection_pattern(group.among.values()))})"
        for name, present in self._api.instant(queries, at_s).items():
            group = next(group for group in self._groups if group.name == name)
            seen = present.answer if isinstance(present, PartialError) else present
            if isinstance(seen, QueryError):
                changed = replace(group, unread=f"which engine it is of is unknown: {seen}")
            else:
                found = vocabulary_of({dict(labels).get("__name__", "") for labels in seen}, group.among.values())
                changed = self._with_vocabulary(replace(group, unread=""), found)
            self._groups[self._groups.index(group)] = changed

    def _queries(self, groups: Iterable[_TargetGroup]) -> dict[tuple[str, QueryKey], str]:
        """The queries of a turn."""
        of_classes = {(DEFERRED, key): query for key, query in deferred_queries(self._deferred).items()}
        return _queries(groups) | of_classes

    def _with_vocabulary(self, group: _TargetGroup, vocabulary: Vocabulary | None) -> _TargetGroup:
        """The group with its vocabulary, for its role, and with the model among its labels."""
        if vocabulary is None:
            return group
        role = self._roles.get(group.name)
        scope = group.scope
        if self._model is not None and vocabulary.model_label is not None:
            # A series without the label is of all models, as in scraping.
            own = {vocabulary.model_label: f"=~(?i){'|'.join((re.escape(self._model), *NO_MODEL))}|"}
            scope = scope.replace(metric_labels=FrozenMap(own))
            group = replace(group, model=self._model)
        return replace(group, vocabulary=vocabulary.for_role(role) if role else vocabulary, scope=scope)

    def _with_copies(self, groups: Iterable[_TargetGroup], answers: GroupAnswers) -> list[_TargetGroup]:
        """Remember in which labels copies differ, and that pods are workers where they have several addresses.

        Returns the groups for which that is news.
        """
        changed = []
        with self._detecting:
            for group in groups:
                targets = answers.get((group.name, QueryKey(TARGETS)))
                if targets is None or isinstance(targets, QueryError):
                    continue
                engines, began = self._beside_targets(group, answers)
                scope = group.scope
                if scope.worker_label == ADDRESS and one_process_each(engines, began, POD, by_port=False):
                    scope = scope.replace(worker_label=POD)
                scope = scope.replace(copies=copy_labels(targets, engines, began, scope.worker_label))
                if scope != group.scope:
                    changed.append(replace(group, scope=scope))
                    self._groups[[each.name for each in self._groups].index(group.name)] = changed[-1]
        return changed

    @staticmethod
    def _beside_targets(group: _TargetGroup, answers: GroupAnswers) -> tuple[Vector, Vector]:
        """At which addresses the engine is, and when its processes began, as far as that is known."""
        engines, began = (answers.get((group.name, QueryKey(each)), {}) for each in (ADDRESSES, STARTS))
        return {} if isinstance(engines, QueryError) else engines, {} if isinstance(began, QueryError) else began

    def _why_unread(self, answers: GroupAnswers, at_s: float) -> dict[str, str]:
        """For each group of which there is no series, why, and what there is instead; by the name of the group."""
        unread = {group.name: group.unread for group in self._groups if group.unread}
        unread |= shared_targets({name: answers.get((name, QueryKey(TARGETS)), {}) for name in self._roles})
        for group in self._groups:
            engines, began = self._beside_targets(group, answers)
            if why := unclear_addresses(engines, began, group.scope.worker_label):
                unread.setdefault(group.name, why)
            if group.name in unread or answers.get((group.name, QueryKey(OBSERVED_AT))):  # an error is told as such
                continue
            scraped = bool(answers.get((group.name, QueryKey(UP))))
            vocabularies = group.among.values() if group.vocabulary is None else [group.vocabulary]
            why = what_is_there(self._api, group.scope, list(vocabularies), group.model, at_s, scraped=scraped)
            if why:
                unread[group.name] = why
        return unread

    def _read(self, answers: GroupAnswers, at_s: float, unread: Mapping[str, str]) -> ModelAnswers:
        read: dict[str, PoolAnswers] = {}
        missing: dict[str, str] = clock_remark(self._api.server_time)
        doubt = future_doubt(self._api.server_time, at_s)
        if doubt is not None:
            missing["clock"] = doubt
        for group in self._groups:
            field = "traffic" if group.name == FRONTEND else f"pools.{group.name}"
            if group.vocabulary is None or group.name in unread:
                missing[field] = unread.get(group.name, "")
                continue
            try:
                own = {key: answer for (name, key), answer in answers.items() if name == group.name}
                read[group.name] = read_answers(own, group.vocabulary, group.scope, at_s, doubt)
            except UnreadableError as error:
                missing[field] = str(error)
        of_classes = {key: answer for (name, key), answer in answers.items() if name == DEFERRED}
        deferred, unknown = read_deferred(self._deferred, of_classes, at_s)
        return ModelAnswers(read, missing | unknown, deferred)


def _queries(groups: Iterable[_TargetGroup]) -> dict[tuple[str, QueryKey], str]:
    return {
        (group.name, key): query
        for group in groups
        if group.vocabulary is not None
        for key, query in queries_of(group.vocabulary, group.scope).items()
    }
