"""Where no series is picked: what there is instead."""

from __future__ import annotations

from collections.abc import Sequence

from dynamo_planner.core.values import FrozenMap
from dynamo_planner.engines.registry import worker_vocabularies
from dynamo_planner.engines.vocabulary import Vocabulary, describe_engines
from dynamo_planner.sources.aggregation.models import MAX_NAMES, no_such_model
from dynamo_planner.sources.prometheus.api import PrometheusApi, Vector
from dynamo_planner.sources.prometheus.query_keys import presence_names
from dynamo_planner.sources.prometheus.scope import Scope
from dynamo_planner.sources.source import SourceError


def what_is_there(
    api: PrometheusApi,
    scope: Scope,
    vocabularies: Sequence[Vocabulary],
    model: str | None,
    at_s: float,
    *,
    scraped: bool,
) -> str:
    """Why no series is picked, with the models or the values of labels that there are; empty where it is not known.

    Args:
        api: the server.
        scope: which series would be picked.
        vocabularies: of the engines that they may be of.
        model: the model, where only its series are picked.
        at_s: the moment, in Unix seconds.
        scraped: whether there are targets with these labels, so that it is not for the labels.
    """
    names = sorted(frozenset().union(*map(presence_names, vocabularies)))
    labels = f" with {scope.described()}" if scope.labels or scope.metric_labels else ""
    nothing = f"Prometheus has no metric{labels} of {describe_engines(vocabularies)}"
    label = vocabularies[0].model_label if model is not None else None
    everywhere = scope.replace(labels=FrozenMap(), metric_labels=FrozenMap()).any_of(names)
    queries = {each: f"count by ({each}) ({everywhere})" for each in scope.labels}
    if label is not None:
        queries[f"model {label}"] = f"count by ({label}) ({scope.of_every_model().any_of(names)})"
    queries["__name__"] = f"count by (__name__) ({scope.of_every_model().named(f'(?i).*({_engine_words()}).*')})"
    try:
        answers = api.instant(queries, at_s)
    except SourceError:
        answers = {}
    found = {each: answer for each, answer in answers.items() if isinstance(answer, dict)}
    if label is not None and model is not None and (models := _values(found.get(f"model {label}", {}), label)):
        return no_such_model(label, model, models)
    if scraped:
        return ""
    values = {each: _values(found.get(each, {}), each) for each in scope.labels}
    there = "; ".join(f"{each} is {_listed(of)}" for each, of in values.items() if of)
    if there:
        return f"{nothing}; in those that it has, {there}"
    others = _values(found.get("__name__", {}), "__name__")
    return f"{nothing}; there is {_listed(others)} (prefix)" if others else nothing


def _engine_words() -> str:
    """A regular expression of the words by which the names of known engines are found.

    >>> _engine_words()
    'dynamo|inference|llamacpp|llm_d|ray_serve|sglang|trtllm|vllm'
    """
    return "|".join(sorted({*worker_vocabularies(), "dynamo", "inference", "llm_d", "ray_serve"}))


def _values(vector: Vector, label: str) -> list[str]:
    return sorted({dict(labels).get(label, "") for labels in vector} - {""})


def _listed(values: Sequence[str]) -> str:
    more = f" and {len(values) - MAX_NAMES} others" if len(values) > MAX_NAMES else ""
    return " or ".join(map(repr, values[:MAX_NAMES])) + more
