"""A fast parser of the Prometheus text format that reads only the samples requested.

Lines are selected by name. The labels of a series are parsed once and cached, since the same series is on every page of
a worker. Unusual ones (escapes, for example) are left to the parser of ``prometheus_client``, which takes about 20
times as long for a page of vLLM.

>>> page = parse_page('''
... # TYPE running gauge
... running{engine="0"} 3 1700000000
... running{engine="1"} NaN
... running_created{engine="0"} 1.7e9
... # TYPE done_total counter
... ''', frozenset({"running", "done_total", "waiting"}))
>>> page["running"]
{(('engine', '0'),): 3.0, (('engine', '1'),): nan}
>>> page["done_total"], "waiting" in page  # declared without a series yet; not there
({}, False)
"""

from __future__ import annotations

import math
import re
from collections.abc import MutableSet, Set
from functools import lru_cache

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.sources.series import Labels, Page

with needs_extra("scrape"):
    from prometheus_client.parser import text_string_to_metric_families

MAX_SERIES = 100_000
"""Series of one name on a page. Labels of a user's own (a customer, an adapter) make some ten thousand."""

MAX_LINE_CHARS = 4096
"""A sample on a longer line is unreadable."""

_SAMPLE = re.compile(
    r"""[a-zA-Z_:][a-zA-Z0-9_:]*+[ \t]*+         # the name
        (\{(?:[^"}]|"(?:[^"\\]|\\.)*+")*+\})?+  # the labels: a brace within quotes does not end them
        [ \t]*+([^\s{}]++)                      # the value; a timestamp or an exemplar may follow
    """,
    re.VERBOSE,
)
_NAMES = re.compile(r"^[ \t]*([a-zA-Z_:][a-zA-Z0-9_:]*)", re.MULTILINE)
_BLANK = re.compile(r"\s")
_PLAIN_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\]*)"'
_PLAIN_LABELS = re.compile(rf"\{{{_PLAIN_LABEL}(?:,{_PLAIN_LABEL})*\}}")
_EACH_LABEL = re.compile(_PLAIN_LABEL)
_DECLARED = re.compile(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*)")
_SUFFIXES = ("", "_total", "_count", "_sum", "_bucket")


def parse_page(
    text: str, names: Set[str], max_series: int = MAX_SERIES, too_many: MutableSet[str] | None = None
) -> Page:
    """Parse the samples of these names on a page. What cannot be parsed is NaN, and so unknown.

    Timestamps and exemplars are ignored. Of two samples of the same series the first counts, as in Prometheus. A name
    with more than ``max_series`` is NaN, and put among ``too_many``. Raises nothing, whatever the text is.
    """
    page: Page = {}
    refused = set() if too_many is None else too_many
    for line in text.split("\n"):
        brace = line.find("{")
        name = line[:brace] if brace >= 0 else line.partition(" ")[0]
        if name not in names:
            if name == "#":
                _declare(page, line, names)
            if name and " " not in name and "\t" not in name:
                continue
            line = line.strip()  # noqa: PLW2901  # blanks before or after the name
            name = _BLANK.split(line.partition("{")[0], maxsplit=1)[0]
            if name not in names:
                continue
        if name in refused:
            continue
        series = page.get(name)
        if series is None:
            series = page[name] = {}
        head, _, value = line.rpartition(" ")
        labels = plain_labels(head[len(name) :]) if head else None
        if labels is None:
            labels, value = _unusual_line(line)
        if labels not in series:
            if len(series) >= max_series:
                refused.add(name)
                page[name] = {(("unreadable", "too many"),): math.nan}
                continue
            series[labels] = _value(value)
    return page


def names_on(text: str) -> set[str]:
    """The names of all samples on a page.

    >>> sorted(names_on('# TYPE a gauge\\na 1\\nb{c="d"} 2\\n'))
    ['a', 'b']
    """
    return set(_NAMES.findall(text))


def _unusual_line(line: str) -> tuple[Labels, str]:
    """The labels and the value of a line with a timestamp, an exemplar, or labels that are not plain."""
    found = _SAMPLE.match(line) if len(line) <= MAX_LINE_CHARS else None
    labels = _labels(found[1] or "") if found else None
    if found is None or labels is None:
        return (("unreadable", line[:100]),), "NaN"
    return labels, found[2]


def _declare(page: Page, line: str, names: Set[str]) -> None:
    declared = _DECLARED.match(line)
    if declared is not None:
        for suffix in _SUFFIXES:
            if declared[1] + suffix in names:
                page.setdefault(declared[1] + suffix, {})


def _value(text: str) -> float:
    """A number of the text format, NaN for anything else, such as Python's digit separators.

    >>> _value("1.5e3"), _value("+Inf"), _value("1_000"), _value("much")
    (1500.0, inf, nan, nan)
    """
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


@lru_cache(maxsize=2**16)
def plain_labels(text: str) -> Labels | None:
    """The labels in braces, if none is escaped or repeated and nothing else is there; else ``None``.

    >>> plain_labels('{le="1",engine="0"}'), plain_labels(""), plain_labels('{a="1"} 2')
    ((('engine', '0'), ('le', '1')), (), None)
    """
    if not text:
        return ()
    if len(text) > MAX_LINE_CHARS or _PLAIN_LABELS.fullmatch(text) is None:
        return None
    labels = _EACH_LABEL.findall(text)
    return tuple(sorted(labels)) if len({name for name, _ in labels}) == len(labels) else None


@lru_cache(maxsize=2**12)
def _labels(text: str) -> Labels | None:
    """The labels in braces, or ``None`` where they cannot be parsed."""
    if not text:
        return ()
    try:
        (family,) = text_string_to_metric_families(f"sample{text} 0\n")
        (sample,) = family.samples
    except Exception:  # a parser meant for well-formed pages fails in many ways on others
        return None
    return tuple(sorted(sample.labels.items())) if sample.name == "sample" else None
