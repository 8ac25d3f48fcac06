"""Reading the Prometheus text format, fast: only the samples that are asked for.

Lines are picked by name with one regular expression. A series (a name with its labels) is then read by the parser of
``prometheus_client``, once: the same series stands on every page of a worker, and mostly on those of its siblings.

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
from collections.abc import Set
from functools import lru_cache

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.sources.series import Labels, Page

with needs_extra("scrape"):
    from prometheus_client.parser import text_string_to_metric_families

MOST_SERIES = 20_000
"""A worker has about a hundred; more than this is no page of a worker."""

LONGEST_LINE = 4096
"""In characters; a longer line does not read."""

_SAMPLE = re.compile(
    r"""[a-zA-Z_:][a-zA-Z0-9_:]*+[ \t]*+         # the name
        (\{(?:[^"}]|"(?:[^"\\]|\\.)*+")*+\})?+  # the labels: a brace within quotes does not end them
        [ \t]*+([^\s{}]++)                      # the value; a timestamp or an exemplar may follow
    """,
    re.VERBOSE,
)
_BLANK = re.compile(r"\s")
_PLAIN_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"\\]*)"'
_PLAIN_LABELS = re.compile(rf"\{{{_PLAIN_LABEL}(?:,{_PLAIN_LABEL})*\}}")
_EACH_LABEL = re.compile(_PLAIN_LABEL)
_DECLARED = re.compile(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*)")
_SUFFIXES = ("", "_total", "_count", "_sum", "_bucket")


def parse_page(text: str, names: Set[str]) -> Page:
    """The samples of these names on a page. What does not read is NaN, and so unknown.

    Timestamps and exemplars are ignored. Of two samples of the same series the first counts, as in Prometheus. Raises
    :class:`ValueError` where there are more than ``MOST_SERIES``, and nothing else, whatever the text is.
    """
    page: Page = {}
    count = 0
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
        count += 1
        if count > MOST_SERIES:
            raise ValueError(f"it has more than {MOST_SERIES} samples of the metrics looked for")
        series = page.get(name)
        if series is None:
            series = page[name] = {}
        head, _, value = line.rpartition(" ")
        labels = plain_labels(head[len(name) :]) if head else None
        if labels is None:
            labels, value = _odd_line(line)
        if labels not in series:
            series[labels] = _value(value)
    return page


def _odd_line(line: str) -> tuple[Labels, str]:
    """The labels and the value of a line that has more than them, or not in the usual way."""
    found = _SAMPLE.match(line) if len(line) <= LONGEST_LINE else None
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
    """A number of the text format; Python's digit separators and the like are none.

    >>> _value("1.5e3"), _value("+Inf"), _value("1_000"), _value("much")
    (1500.0, inf, nan, nan)
    """
    try:
        return math.nan if "_" in text else float(text)
    except ValueError:
        return math.nan


@lru_cache(maxsize=2**16)
def plain_labels(text: str) -> Labels | None:
    """The labels in braces where nothing in them is escaped, each is there once, and nothing else is; else ``None``.

    >>> plain_labels('{le="1",engine="0"}'), plain_labels(""), plain_labels('{a="1"} 2')
    ((('engine', '0'), ('le', '1')), (), None)
    """
    if not text:
        return ()
    if len(text) > LONGEST_LINE or _PLAIN_LABELS.fullmatch(text) is None:
        return None
    labels = _EACH_LABEL.findall(text)
    return tuple(sorted(labels)) if len({name for name, _ in labels}) == len(labels) else None


@lru_cache(maxsize=2**12)
def _labels(text: str) -> Labels | None:
    """The labels in braces, or ``None`` where they do not read."""
    if not text:
        return ()
    try:
        (family,) = text_string_to_metric_families(f"sample{text} 0\n")
        (sample,) = family.samples
    except Exception:  # a parser meant for well-formed pages fails in many ways on others
        return None
    return tuple(sorted(sample.labels.items())) if sample.name == "sample" else None
