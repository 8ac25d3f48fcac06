"""The part of PromQL that the queries of the sources are made of, over series in memory: a Prometheus without a server.

Held to a real one by ``tests/integration/sources/test_small_prometheus.py``, and faster by far, so that thousands of
situations can be asked about. A range has both of its ends, as in Prometheus 2; in 3 it is without its beginning.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, cast

LOOKBACK_S = 300.0

Labels = tuple[tuple[str, str], ...]
Vector = dict[Labels, float]

STALE = math.nan
"""The value of a series that was not in a scrape any more."""


class Store:
    """Series by name: times and values, oldest first."""

    def __init__(self) -> None:
        self.by_name: dict[str, dict[Labels, tuple[list[float], list[float]]]] = {}

    def add(self, name: str, labels: Mapping[str, str], at_s: float, value: float) -> None:
        key = tuple(sorted((label, text) for label, text in labels.items() if text))
        times, values = self.by_name.setdefault(name, {}).setdefault(key, ([], []))
        times.append(at_s)
        values.append(value)

    def query(self, text: str, at_s: float) -> Vector:
        """The answer to an instant query."""
        return dict(_parsed(text)(self, at_s))


Node = Callable[[Store, float], Vector]


class Range(NamedTuple):
    """A selector with a range, which only functions take."""

    select: Callable[[Store], Iterable[tuple[Labels, tuple[list[float], list[float]]]]]
    range_s: float
    offset_s: float


_TOKEN = re.compile(
    r'\s*("(?:[^"\\]|\\.)*"|\d+(?:\.\d+)?(?:ms|[smh])?|[a-zA-Z_:][a-zA-Z0-9_:]*|!=|!~|=~|[-+*/=(){}\[\],])'
)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Node:
    tokens = _TOKEN.findall(text)
    assert "".join(tokens) == re.sub(r'\s+(?=(?:[^"]*"[^"]*")*[^"]*$)', "", text), text
    parser = _Parser(tokens)
    node = parser.set_operation()
    assert not parser.rest(), parser.rest()
    return cast(Node, node)


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._place = 0

    def rest(self) -> list[str]:
        return self._tokens[self._place :]

    def _next(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def _take(self, *wanted: str) -> str:
        if self._next() in wanted or not wanted:
            self._place += 1
            return self._tokens[self._place - 1]
        return ""

    def _expect(self, wanted: str) -> None:
        assert self._take(wanted), (wanted, self.rest()[:8])

    def set_operation(self, levels: tuple[tuple[str, ...], ...] = (("or",), ("and", "unless"))) -> Any:
        if not levels:
            return self._arithmetic()
        left = self.set_operation(levels[1:])
        while word := self._take(*levels[0]):
            on = self._labels() if self._take("on") else None
            left = _set(word, left, self.set_operation(levels[1:]), on)
        return left

    def _arithmetic(self, signs: tuple[tuple[str, ...], ...] = (("+", "-"), ("*", "/"))) -> Any:
        if not signs:
            return self._operand()
        left = self._arithmetic(signs[1:])
        while sign := self._take(*signs[0]):
            left = _binary(sign, left, self._arithmetic(signs[1:]))
        return left

    def _operand(self) -> Any:
        token = self._next()
        if self._take("("):
            inside = self.set_operation()
            self._expect(")")
            return inside
        if token[0].isdigit():
            return float(self._take())
        if token in AGGREGATES:
            self._take()
            how = self._take("by", "without")
            labels = self._labels() if how else ()
            self._expect("(")
            inside = self.set_operation()
            self._expect(")")
            return _aggregate(token, how, labels, inside)
        if token in FUNCTIONS or token == "timestamp":
            self._take()
            self._expect("(")
            inside = self.set_operation()
            self._expect(")")
            return _function(token, inside)
        return self._selector()

    def _labels(self) -> tuple[str, ...]:
        self._expect("(")
        labels = []
        while not self._take(")"):
            labels.append(self._take())
            self._take(",")
        return tuple(labels)

    def _selector(self) -> Any:
        name = "" if self._next() == "{" else self._take()
        matchers: list[tuple[str, str, str]] = [("__name__", "=", name)] if name else []
        if self._take("{"):
            while not self._take("}"):
                label, operator, value = self._take(), self._take("=", "=~", "!=", "!~"), self._take()
                matchers.append((label, operator, value[1:-1].replace("\\\\", "\\").replace('\\"', '"')))
                self._take(",")
        range_s = self._seconds() if self._take("[") else 0.0
        if range_s:
            self._expect("]")
        offset_s = self._seconds() if self._take("offset") else 0.0
        return Range(_matching(matchers), range_s, offset_s) if range_s else _instant(_matching(matchers), offset_s)

    def _seconds(self) -> float:
        token = self._take()
        unit = token.lstrip("0123456789.")
        return float(token.removesuffix(unit)) * _UNITS[unit]


def _matching(matchers: list[tuple[str, str, str]]) -> Any:
    tests = [_test(*matcher) for matcher in matchers]
    exact = next((value for label, operator, value in matchers if (label, operator) == ("__name__", "=")), None)

    def select(store: Store) -> Iterable[tuple[Labels, tuple[list[float], list[float]]]]:
        for name in store.by_name if exact is None else (exact,):
            for labels, samples in store.by_name.get(name, {}).items():
                given = {**dict(labels), "__name__": name}
                if all(test(given) for test in tests):
                    yield (("__name__", name), *labels), samples

    return select


def _test(label: str, operator: str, value: str) -> Callable[[Mapping[str, str]], bool]:
    if operator in {"=", "!="}:
        return lambda labels: (labels.get(label, "") == value) is (operator == "=")
    pattern = re.compile(value)
    return lambda labels: (pattern.fullmatch(labels.get(label, "")) is not None) is (operator == "=~")


def _instant(select: Any, offset_s: float) -> Node:
    def node(store: Store, at_s: float) -> Vector:
        return {labels: values[1] for labels, values in _latest(select(store), at_s - offset_s)}

    node.select, node.offset_s = select, offset_s  # type: ignore[attr-defined]
    return node


def _latest(series: Any, at_s: float) -> Iterable[tuple[Labels, tuple[float, float]]]:
    for labels, (times, values) in series:
        place = bisect_right(times, at_s) - 1
        if place >= 0 and times[place] > at_s - LOOKBACK_S and not math.isnan(values[place]):
            yield labels, (times[place], values[place])


def _function(name: str, inside: Any) -> Node:
    if name == "timestamp":
        return lambda store, at_s: {
            _nameless(labels): sample[0] for labels, sample in _latest(inside.select(store), at_s - inside.offset_s)
        }
    function = FUNCTIONS[name]

    def node(store: Store, at_s: float) -> Vector:
        found = {}
        at_s -= inside.offset_s
        for labels, (times, values) in inside.select(store):
            first, last = bisect_left(times, at_s - inside.range_s), bisect_right(times, at_s)
            points = [(t, v) for t, v in zip(times[first:last], values[first:last], strict=True) if not math.isnan(v)]
            value = function(points, at_s - inside.range_s, at_s) if points else None
            if value is not None:
                found[labels if name == "last_over_time" else _nameless(labels)] = value
        return found

    return node


Points = list[tuple[float, float]]


def _increase(points: Points, start_s: float, end_s: float, counter: bool = True) -> float | None:
    """As Prometheus extrapolates it to the bounds of the window."""
    if len(points) < 2:
        return None
    grown = points[-1][1] - points[0][1]
    if counter:
        grown += sum(then for (_, then), (_, now) in pairwise(points) if now < then)
    sampled_s = points[-1][0] - points[0][0]
    apart_s = sampled_s / (len(points) - 1)
    before_s, after_s = points[0][0] - start_s, end_s - points[-1][0]
    if counter and grown > 0 and points[0][1] >= 0:
        before_s = min(before_s, sampled_s * points[0][1] / grown)
    if before_s >= 1.1 * apart_s:
        before_s = apart_s / 2
    if after_s >= 1.1 * apart_s:
        after_s = apart_s / 2
    return grown * (sampled_s + before_s + after_s) / sampled_s


def _resets(points: Points, _: float, __: float) -> float:
    return float(sum(now < then for (_, then), (_, now) in pairwise(points)))


FUNCTIONS: dict[str, Callable[[Points, float, float], float | None]] = {
    "increase": _increase,
    "delta": lambda points, start_s, end_s: _increase(points, start_s, end_s, counter=False),
    "resets": _resets,
    "max_over_time": lambda points, _, __: max(value for _, value in points),
    "min_over_time": lambda points, _, __: min(value for _, value in points),
    "avg_over_time": lambda points, _, __: math.fsum(value for _, value in points) / len(points),
    "last_over_time": lambda points, _, __: points[-1][1],
}
AGGREGATES: dict[str, Callable[[list[float]], float]] = {
    "sum": math.fsum,
    "avg": lambda values: math.fsum(values) / len(values),
    "max": max,
    "min": min,
    "count": lambda values: float(len(values)),
}


def _aggregate(name: str, how: str, labels: tuple[str, ...], inside: Node) -> Node:
    def node(store: Store, at_s: float) -> Vector:
        groups: dict[Labels, list[float]] = {}
        for given, value in inside(store, at_s).items():
            kept = tuple(
                pair
                for pair in given
                if (pair[0] in labels if how != "without" else pair[0] not in (*labels, "__name__"))
            )
            groups.setdefault(kept, []).append(value)
        return {given: AGGREGATES[name](values) for given, values in groups.items()}

    return node


def _nameless(labels: Labels) -> Labels:
    return tuple(pair for pair in labels if pair[0] != "__name__")


def _binary(sign: str, left: Any, right: Any) -> Any:
    def compute(one: float, other: float) -> float:
        if sign == "/":
            return one / other if other else math.nan
        return one + other if sign == "+" else one - other if sign == "-" else one * other

    if not callable(right):
        return lambda store, at_s: {_nameless(key): compute(v, right) for key, v in left(store, at_s).items()}

    def node(store: Store, at_s: float) -> Vector:
        others = {_nameless(key): value for key, value in right(store, at_s).items()}
        own = {_nameless(key): value for key, value in left(store, at_s).items()}
        return {key: compute(value, others[key]) for key, value in own.items() if key in others}

    return node


def _set(word: str, left: Node, right: Node, on: tuple[str, ...] | None) -> Node:
    def signature(labels: Labels) -> Labels:
        return _nameless(labels) if on is None else tuple(pair for pair in labels if pair[0] in on)

    def node(store: Store, at_s: float) -> Vector:
        own, others = left(store, at_s), right(store, at_s)
        if word == "or":
            there = {signature(labels) for labels in own}
            return own | {labels: value for labels, value in others.items() if signature(labels) not in there}
        there = {signature(labels) for labels in others}
        return {labels: value for labels, value in own.items() if (signature(labels) in there) is (word == "and")}

    return node
