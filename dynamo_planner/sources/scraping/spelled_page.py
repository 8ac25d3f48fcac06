"""Pages in the Prometheus text format with the engine's own names, however a setup spells them."""

from __future__ import annotations

import re
from collections.abc import MutableSet, Sequence
from functools import lru_cache

from dynamo_planner.engines.spelling import spelled_names
from dynamo_planner.engines.vocabulary import Vocabulary
from dynamo_planner.sources.scraping.exposition import names_on, parse_page
from dynamo_planner.sources.series import Page

NOT_GAUGES = ("_total", "_bucket", "_count", "_sum")
"""How names end whose series count: of a page that was not read whole their sum would be too low."""


class SpelledPages:
    """Parses pages; the spelling is looked for on a page that has none of the engine's own names.

    Args:
        among: the vocabularies of the engines that a page may be of.
    """

    def __init__(self, among: Sequence[Vocabulary]) -> None:
        self._among = among
        self._names = frozenset[str]().union(*(each.names() for each in among))
        self._own_names = frozenset[str]().union(*(each.own_names() for each in among))
        self._spelled: dict[str, str] = {}

    def parse(self, text: str, max_series: int, too_many: MutableSet[str]) -> Page:
        """A page, as :func:`parse_page` does it."""
        page = self._parse(text, max_series, too_many)
        if not page.keys().isdisjoint(self._own_names):
            return page
        found = spelled_names(names_on(text), self._among)
        if not found.keys() - self._spelled.keys():
            return page
        self._spelled = {**self._spelled, **found}  # replaced as a whole: other threads read it
        return self._parse(text, max_series, too_many)

    def gauge_lines(self, lines: bytes) -> bytes:
        """The lines of the gauges."""
        names = sorted(name for name in (*self._names, *self._spelled) if not name.endswith(NOT_GAUGES))
        return b"".join(_lines_of("|".join(map(re.escape, names))).findall(lines))

    def _parse(self, text: str, max_series: int, too_many: MutableSet[str]) -> Page:
        spelled = self._spelled
        if not spelled:
            return parse_page(text, self._names, max_series, too_many)
        page: Page = {}
        for name, series in parse_page(text, self._names | spelled.keys(), max_series, too_many).items():
            canonical = spelled.get(name, name)
            page[canonical] = series | page.get(canonical, {})
        return page


@lru_cache(maxsize=16)
def _lines_of(names: str) -> re.Pattern[bytes]:
    return re.compile(rf"^(?:{names})[ \t{{].*\n?".encode(), re.MULTILINE)
