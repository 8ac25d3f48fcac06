"""What a gateway that holds deferrable requests back says of them in Prometheus.

Each engine's metrics have names; a gateway's have those that its author gave them. So the queries are the user's own:

>>> batch = DeferredQueries(waiting='sum by (due_s) (gateway_waiting{class="batch"})', isl=1500, osl=300)
>>> batch.queries()
{'waiting': 'sum by (due_s) (gateway_waiting{class="batch"})'}
>>> found, unknown = batch.read({"waiting": {(("due_s", "7200"),): 200.0}}, at_s=3600.0)
>>> dict(found.due), found.isl.mean, unknown
({7200.0: 200.0}, 1500.0, {'running': 'no query of it is configured'})
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from annotated_types import Gt, MinLen

from dynamo_planner.core.metrics import Deferred, Dist
from dynamo_planner.core.values import Frozen
from dynamo_planner.sources.prometheus.query_keys import QueryKey
from dynamo_planner.sources.prometheus.scope import LabelName
from dynamo_planner.sources.series import Series

Query = Annotated[str, MinLen(1)]
"""A query in PromQL, of an instant vector."""

Answer = Series | Exception
"""A value for each set of labels, or why there is no answer."""

NOT_THERE = (
    "Prometheus has no series of it; let the query end in `or vector(0)` where that is to mean that nothing waits"
)


class DeferredQueries(Frozen):
    """The queries of one deferrable class.

    Args:
        waiting: the requests that wait, with one series for each deadline.
        due_label: the label whose value is the deadline, in Unix seconds. Default ``due_s``.
        within_s: the seconds from now on within which requests without that label are to be done. Default ``None``:
            such requests make the class unknown.
        running: the requests that were released and are not finished. Default ``None``, unknown.
        isl: the mean prompt length in tokens, a number or a query. Default ``None``, unknown.
        osl: the mean output length in tokens, a number or a query. Default ``None``, unknown.
    """

    waiting: Query
    due_label: LabelName = "due_s"
    within_s: Annotated[float, Gt(0)] | None = None
    running: Query | None = None
    isl: Annotated[float, Gt(0)] | Query | None = None
    osl: Annotated[float, Gt(0)] | Query | None = None

    def queries(self) -> dict[str, str]:
        """The queries by what they give."""
        parts = {"waiting": self.waiting, "running": self.running, "isl": self.isl, "osl": self.osl}
        return {part: query for part, query in parts.items() if isinstance(query, str)}

    def read(self, answers: Mapping[str, Answer], at_s: float) -> tuple[Deferred | None, dict[str, str]]:
        """What is known of the class at ``at_s``, and why the rest is not, by field; the class itself is ``""``.

        Args:
            answers: by what the queries give.
            at_s: the moment of the queries, in Unix seconds.
        """
        due = self._due(answers.get("waiting", {}), at_s)
        if isinstance(due, str):
            return None, {"": due}
        missing: dict[str, str] = {}
        values: dict[str, float | None] = {}
        for part in ("running", "isl", "osl"):
            value = self._value(part, answers)
            values[part] = value if isinstance(value, float) else None
            if isinstance(value, str):
                missing[part] = value
        isl, osl = (None if (mean := values[part]) is None else Dist(mean=mean) for part in ("isl", "osl"))
        return Deferred(due=due, running=values["running"], isl=isl, osl=osl, observed_at_s=at_s), missing

    def _value(self, part: str, answers: Mapping[str, Answer]) -> float | str:
        """A number beside what waits, or why it is unknown."""
        given = getattr(self, part)
        if given is None:
            return "no query of it is configured"
        return given if isinstance(given, float) else _single(answers.get(part, {}))

    def _due(self, waiting: Answer, at_s: float) -> dict[float, float] | str:
        """The requests that wait by their deadlines, or why they are unknown."""
        if isinstance(waiting, Exception):
            return str(waiting)
        if not waiting:
            return NOT_THERE
        due: dict[float, float] = {}
        for labels, count in waiting.items():
            if not 0 <= count < math.inf:
                return f"{count:g} requests wait, which is no number of requests"
            if not count:
                continue
            deadline = dict(labels).get(self.due_label)
            try:
                due_s = at_s + self.within_s if deadline is None and self.within_s else float(deadline or "")
            except ValueError:
                due_s = math.nan
            if not math.isfinite(due_s):
                label = f"{self.due_label}={deadline or ''!r}"
                return f"{count:g} requests wait with {label}, which is no time in Unix seconds"
            due[due_s] = due.get(due_s, 0.0) + count
        return due


def _single(answer: Answer) -> float | str:
    """The value of the only series, or why there is none."""
    if isinstance(answer, Exception):
        return str(answer)
    if len(answer) != 1:
        return f"its query gives {len(answer)} series, and one is needed"
    (value,) = answer.values()
    return value if 0 <= value < math.inf else f"its query gives {value:g}"


def deferred_queries(classes: Mapping[str, DeferredQueries]) -> dict[QueryKey, str]:
    """The queries of all classes."""
    return {QueryKey(name, part): query for name, own in classes.items() for part, query in own.queries().items()}


def read_deferred(
    classes: Mapping[str, DeferredQueries], answers: Mapping[QueryKey, Answer], at_s: float
) -> tuple[dict[str, Deferred], dict[str, str]]:
    """What is known of each class, and why what is not known is not, by path.

    Args:
        classes: the queries of each class.
        answers: those of :func:`deferred_queries`.
        at_s: the moment of the queries, in Unix seconds.
    """
    found: dict[str, Deferred] = {}
    missing: dict[str, str] = {}
    for name, queries in classes.items():
        own, unknown = queries.read({key.part: each for key, each in answers.items() if key.quantity == name}, at_s)
        if own is not None:
            found[name] = own
        missing |= {f"deferred.{name}{'.' if part else ''}{part}": why for part, why in unknown.items()}
    return found, missing
