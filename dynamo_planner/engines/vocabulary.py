"""An engine's metrics as data: the metric for each quantity, its unit and its older names.

A vocabulary is one small file, or a mapping in a user's configuration:

>>> mine = Vocabulary.model_validate({
...     "engine": "Mine",
...     "quantities": {
...         "running": {"kind": "gauge", "names": ["mine_running"]},
...         "completions": {"kind": "counter", "names": ["mine_requests_total", "mine_requests"]},
...         "ttft_ms": {"kind": "histogram", "names": ["mine_ttft_seconds"], "scale": 1000},
...     },
... })
>>> sorted(mine.names())[:3]
['mine_requests', 'mine_requests_total', 'mine_running']
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, field_serializer, model_validator

from dynamo_planner.core.nearest import did_you_mean
from dynamo_planner.core.snapshot import Role
from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.engines.metric_kinds import Counter, Gauge, Histogram, Info, Mean, Metric, Product, Ratio

__all__ = ["Counter", "Gauge", "Histogram", "Info", "Mean", "Metric", "Product", "Quantity", "Ratio", "Vocabulary"]

QueueName = Literal["running", "waiting", "waiting_tokens", "inside", "queued", "queued_tokens", "prefill_tokens"]
GaugeName = Literal[QueueName, "kv_usage", "kv_capacity_tokens", "awake"]
LeavingName = Literal["completions", "aborts", "cancellations", "rejections", "preemptions"]
CounterName = Literal["arrivals", "first_tokens", LeavingName, "prefix_hits", "prefix_queries"]
StageName = Literal["queue_ms", "prefill_ms", "transfer_ms", "first_token_ms", "decode_ms"]
LatencyName = Literal["ttft_ms", "itl_ms", "token_gap_ms"]
LengthName = Literal["isl", "osl", "choices"]
DistributionName = Literal[LatencyName, LengthName, "request_duration_s", "prefix_hit_rate", StageName]

Quantity = GaugeName | CounterName | DistributionName
"""A quantity that a worker or a frontend may report.

========================  ==============================================================================================
``running``, ``waiting``  requests in the batch, and in the worker's own queue
``waiting_tokens``        prompt tokens of requests in the worker's own queue that are not computed yet
``inside``                both together, where an engine does not report them separately, or of a frontend
``queued``                requests that a frontend accepted and did not yet give to a worker
``queued_tokens``         prompt tokens of those
``prefill_tokens``        prompt tokens that a router gave to workers and that are not computed yet
``kv_usage``              share of the KV cache in use, 0 to 1
``kv_capacity_tokens``    size of the KV cache, in tokens
``awake``                 share of a worker's engines that take requests, 0 where it sleeps
``arrivals``              requests that were accepted
``completions``           requests that ended, however they ended
``aborts``                requests that were given up, where an engine counts those apart that waited
``cancellations``         requests that were given up, where those are among the completions
``first_tokens``          requests whose first token came, counted when it comes
``rejections``            requests that were refused because of the load
``preemptions``           how often a request lost its place in the batch
``prefix_queries``        prompt tokens that were looked up in the prefix cache
``prefix_hits``           those of them that were found
``prefix_hit_rate``       the share of them, where an engine observes the share itself
``choices``               answers that a request asks for (``n``), each of which the engine counts as a request
========================  ==============================================================================================

The others are as in :class:`dynamo_planner.Traffic`, and those of stages as in
:class:`dynamo_planner.core.metrics.StageTimes`.
"""

GAUGES: tuple[Quantity, ...] = get_args(GaugeName)
COUNTERS: tuple[Quantity, ...] = get_args(CounterName)
DISTRIBUTIONS: tuple[Quantity, ...] = get_args(DistributionName)
STAGES: tuple[StageName, ...] = get_args(StageName)
QUANTITIES: tuple[Quantity, ...] = (*GAUGES, *COUNTERS, *DISTRIBUTIONS)


NOT_OF_WORKERS: Mapping[Quantity, str] = {
    "queued": "only a frontend knows of requests that are in no pool yet",
    "queued_tokens": "only a router knows of requests that are in no pool yet",
    "prefill_tokens": "only a router counts what it gave to workers",
    "cancellations": "only a frontend counts them among those that ended",
}
"""What no engine's workers report, and why."""

EXPLAINING: frozenset[Quantity] = frozenset({"choices"})
"""Quantities that only explain others: an engine need not say why it has none."""

NO_MODEL = ("undefined", "unknown", "none", "null")
"""What engines write as the name of the model where they do not know it, in lower case."""


def _as_tuple(value: object) -> object:
    return value if isinstance(value, tuple | list) else (value,)


Metrics = Annotated[tuple[Metric, ...], BeforeValidator(_as_tuple), Field(min_length=1)]
"""The metrics that can give a quantity, best first: the first one on the page does. A single one needs no list."""


def _known(name: object) -> object:
    if name in QUANTITIES:
        return name
    hint = did_you_mean(name, QUANTITIES)
    raise ValueError(f"there is no such quantity{hint} allowed: {', '.join(QUANTITIES)}")


QuantityName = Annotated[Quantity, BeforeValidator(_known)]

Quantities = ReadOnly[QuantityName, Metrics]

PagePath = Annotated[str, Field(pattern="^/")]


class Vocabulary(Frozen):
    """The metrics of one engine.

    Args:
        engine: its name, for messages.
        quantities: the metrics for each quantity that it reports.
        by_role: those that differ for workers of a role, where prefill and decode are apart; none by default.
        cannot_tell: for quantities that it does not report, why; none by default.
        pages: the paths at which a worker serves metrics, each in Prometheus text or JSON; one of them is enough. By
            default ``/metrics``.
        started_at: the gauge with the Unix time at which the process began, which shows a restart; by default
            ``process_start_time_seconds``.
        with_first_request: quantities whose metrics appear with the first request: where none of them is on the page,
            there was no request yet. None by default.
        prefixes: what names begin with in the engine's releases; such a name is read as well where a setup writes more
            before it (``ray_vllm:``) or ``_`` for ``:``. By default names are read as they are.
        known_by: names that identify a page as the engine's and give no quantity; none by default.
        repeated_by: names that show that a page is of a router, which repeats metrics of its workers. None by default.
        transient: labels whose series may go while the process lives, and begin at zero when they come again: of one
            process among several on a page, of a user. None by default.
        model_label: the label that has the name of the model; by default there is none.
        model_parameter: the parameter of the URL by which a server of several models is asked for the page of one; by
            default there is none.
        start_with: what the engine must be started with to report its metrics; by default nothing.
        start_without: with what it reports none of them; by default nothing.
        switches: what it must be started with besides, for single quantities.
    """

    engine: str
    quantities: Quantities
    by_role: ReadOnly[Role, Quantities] = Field(default_factory=FrozenMap)
    cannot_tell: ReadOnly[QuantityName, str] = Field(default_factory=FrozenMap)
    pages: Annotated[tuple[PagePath, ...], Field(min_length=1)] = ("/metrics",)
    started_at: tuple[str, ...] = ("process_start_time_seconds",)
    with_first_request: tuple[QuantityName, ...] = ()
    prefixes: tuple[str, ...] = ()
    known_by: tuple[str, ...] = ()
    repeated_by: tuple[str, ...] = ()
    transient: tuple[str, ...] = ()
    model_label: str | None = None
    model_parameter: str | None = None
    start_with: str = ""
    start_without: str = ""
    switches: ReadOnly[QuantityName, str] = Field(default_factory=FrozenMap)

    @field_serializer("by_role")
    def _plain_by_role(
        self, by_role: Mapping[Role, Mapping[Quantity, tuple[Metric, ...]]]
    ) -> dict[str, dict[str, Any]]:
        return {role: {str(quantity): metrics for quantity, metrics in each.items()} for role, each in by_role.items()}

    @model_validator(mode="after")
    def _kinds_fit(self) -> Self:
        for where, quantities in (
            ("", self.quantities),
            *((f"by_role.{role}.", q) for role, q in self.by_role.items()),
        ):
            for quantity, metrics in quantities.items():
                allowed = _allowed_kinds(quantity)
                for metric in metrics:
                    if metric.kind not in allowed:
                        raise ValueError(
                            f"{where or 'quantities.'}{quantity}: a {metric.kind} cannot give it; "
                            f"use {' or '.join(allowed)}"
                        )
        return self

    def for_role(self, role: Role) -> Vocabulary:
        """The vocabulary of workers of this role."""
        if role not in self.by_role:
            return self
        quantities = FrozenMap({**self.quantities, **self.by_role[role]})
        return self.replace(quantities=quantities, by_role=FrozenMap())

    def names(self) -> frozenset[str]:
        """Every sample name to read on a page, whatever the role."""
        return self.own_names().union(self.started_at, self.repeated_by)

    def own_names(self) -> frozenset[str]:
        """The sample names that other engines do not have."""
        return frozenset(self.known_by).union(name for metric in self._every() for name in metric.samples())

    def spellable_names(self) -> frozenset[str]:
        """Those that begin with one of the ``prefixes``."""
        return frozenset(name for name in self.own_names() if self.prefixes and name.startswith(self.prefixes))

    def _every(self) -> Iterator[Metric]:
        for quantities in (self.quantities, *self.by_role.values()):
            for metrics in quantities.values():
                yield from metrics


def _allowed_kinds(quantity: Quantity) -> tuple[str, ...]:
    if quantity in GAUGES:
        return ("gauge", "ratio", "product", "info")
    if quantity == "prefix_hit_rate":
        return ("histogram", "mean", "gauge")
    return ("counter",) if quantity in COUNTERS else ("histogram", "mean")


def page_of_router(names: Container[str], among: Iterable[Vocabulary]) -> str:
    """Why a page with these names is not that of a worker: it is of a router, which repeats metrics. Else empty."""
    for vocabulary in among:
        for name in vocabulary.repeated_by:
            if name in names:
                return (
                    f"its page has {name}, which a router has: its {vocabulary.engine} metrics are those of its "
                    "workers once more. List it under source.frontend, and the workers here"
                )
    return ""


def describe_engines(vocabularies: Iterable[Vocabulary]) -> str:
    """Name the engines of these vocabularies for a message, with the switch that makes each report metrics.

    >>> describe_engines([Vocabulary(engine="Mine", quantities={}, start_with="--metrics")])
    'Mine (start it with --metrics)'
    """
    return " or ".join(f"{each.engine}{_how_to_start(each)}" for each in vocabularies)


def _how_to_start(vocabulary: Vocabulary) -> str:
    switches = (("with", vocabulary.start_with), ("without", vocabulary.start_without))
    how = " and ".join(f"{word} {switch}" for word, switch in switches if switch)
    return f" (start it {how})" if how else ""
