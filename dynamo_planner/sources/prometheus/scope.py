"""The scope of a pool: label matchers, and the PromQL selectors that they make.

>>> Scope(labels={"job": "mine", "pod": "=~mine-.*"}, window_s=60).selector("mine:running", {"lane": ("fast", "slow")})
'mine:running{job="mine",pod=~"mine-.*",lane=~"fast|slow"}'
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_OPERATOR = re.compile(r"(=~|!~|!=|=)?(.*)", re.DOTALL)


def _label(name: str) -> str:
    if not _LABEL.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a label")
    return name


LabelName = Annotated[str, AfterValidator(_label)]

LabelMatchers = ReadOnly[LabelName, str]
"""The values that labels must have. A value may begin with an operator of PromQL: ``=~`` and ``!~`` for a regular
expression that matches all of the label, ``!=`` for another value, and ``=``, which may be left out."""


class Scope(Frozen):
    """The series of one pool, and how they are read.

    Args:
        labels: of its scrape targets, which ``up`` has too (namespace, job, pod); none by default.
        metric_labels: that only the engine's own metrics have, such as the model; none by default.
        worker_label: the label that distinguishes workers.
        copies: labels in which several series of the same process differ; none by default.
        window_s: seconds over which rates and means are.
    """

    labels: LabelMatchers = Field(default_factory=FrozenMap)
    metric_labels: LabelMatchers = Field(default_factory=FrozenMap)
    worker_label: LabelName = "instance"
    copies: tuple[LabelName, ...] = ()
    window_s: float = Field(gt=0)

    def selector(self, name: str, where: Mapping[str, Iterable[str]] | None = None, having: Iterable[str] = ()) -> str:
        """The pool's series of a metric, of those with these values of labels, and with any value of others."""
        own = (*_matchers(self.labels), *_matchers(self.metric_labels))
        return _selector(name, [*own, *_where(where or {}), *(f'{label}!=""' for label in having)])

    def of_every_model(self) -> Scope:
        """The same targets, whatever the labels of the engine's own metrics."""
        return self.replace(metric_labels=FrozenMap())

    def any_of(self, names: Iterable[str]) -> str:
        """The pool's series of any of these metrics."""
        return self.named(_one_of(names))

    def named(self, pattern: str) -> str:
        """The pool's series of the metrics whose names match a regular expression."""
        every = [f"__name__=~{_quoted(pattern)}", *_matchers(self.labels), *_matchers(self.metric_labels)]
        return f"{{{','.join(every)}}}"

    def described(self) -> str:
        """The labels, for a message."""
        return f"{{{','.join([*_matchers(self.labels), *_matchers(self.metric_labels)])}}}"

    def up(self) -> str:
        """The series that say whether each of the pool's targets could be scraped."""
        return _selector("up", _matchers(self.labels))

    def increase(self, selector: str) -> str:
        """The increase of counters over the window."""
        return f"increase({selector}[{self.duration()}])"

    def delta(self, selector: str) -> str:
        """The change of gauges over the window."""
        return f"delta({selector}[{self.duration()}])"

    def longer(self, times: float) -> Scope:
        """The same series over this many windows."""
        return self.replace(window_s=times * self.window_s)

    def duration(self) -> str:
        """The window as a PromQL duration."""
        whole = self.window_s == int(self.window_s)
        return f"{self.window_s:.0f}s" if whole else f"{self.window_s * 1000:.0f}ms"


def _matchers(labels: Mapping[str, str]) -> Iterator[str]:
    for label, text in labels.items():
        operator, value = _OPERATOR.fullmatch(text).groups()  # type: ignore[union-attr]  # it matches everything
        yield f"{label}{operator or '='}{_quoted(value)}"


def _where(where: Mapping[str, Iterable[str]]) -> Iterator[str]:
    for label, values in where.items():
        texts = list(values)
        yield f"{label}={_quoted(texts[0])}" if len(texts) == 1 else f"{label}=~{_quoted(_one_of(texts))}"


def _one_of(texts: Iterable[str]) -> str:
    return "|".join(map(re.escape, texts))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _selector(name: str, matchers: Iterable[str]) -> str:
    every = list(matchers)
    if not _NAME.fullmatch(name):
        every.insert(0, f"__name__={_quoted(name)}")
        name = ""
    return f"{name}{{{','.join(every)}}}" if every else name
