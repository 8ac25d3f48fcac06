"""A metrics page in JSON as series by name and labels, like a page of the Prometheus text format.

>>> page = parse_json('[{"id": 0, "n_ctx": 512, "is_processing": true, "used": {"now": 3}}, {"id": 1, "n_ctx": 512}]',
...                   "/slots", frozenset({"/slots:n_ctx", "/slots:used.now"}))
>>> page["/slots:used.now"]
{(('is_processing', 'true'), ('item', '0')): 3.0}
>>> len(page["/slots:n_ctx"]), list(page["/slots:"])
(2, [(('is_processing', 'true'), ('item', '0')), (('item', '1'),)])
>>> parse_json('{"loads": [{"waiting": 7}, {"waiting": 2}]}', "/loads", frozenset({"/loads:waiting"}))["/loads:waiting"]
{(('item', '0'),): 7.0, (('item', '1'),): 2.0}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Set
from typing import Any

from dynamo_planner.sources.scraping.exposition import MAX_SERIES
from dynamo_planner.sources.series import Labels, Page

MAX_OBJECTS = 100_000
"""A page with more is refused; a thousand iterations of TensorRT-LLM have some ten thousand."""


def looks_like_json(text: str) -> bool:
    """Whether a page is JSON and not Prometheus text."""
    return text[:100].lstrip()[:1] in {"[", "{"}


def parse_json(text: str, path: str, names: Set[str], max_series: int = MAX_SERIES) -> Page:
    """Parse the values of these names on a page that is an object or a list of objects (its items).

    An object that has none of the values, but one list of objects, stands for that list.

    The label ``item`` has an item's place in the list, and each boolean of an item is a label as well. The name
    ``path:`` has a series for each item, and is not there where the items have none of the values. A value that is not
    a number is NaN, and so unknown. Raises :class:`ValueError` where the text is no such JSON or has more than
    ``max_series`` values, and nothing else.
    """
    if text.count("{") + text.count("[") > MAX_OBJECTS:
        raise ValueError(f"{path} has more than {MAX_OBJECTS} objects and lists")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {str(error)[:100]}") from None
    wanted = {name: name.removeprefix(f"{path}:").split(".") for name in names if name.startswith(f"{path}:")}
    items = data if isinstance(data, list) else _items_of(data, wanted.values())
    if len(items) * max(1, len(wanted)) > max_series:
        raise ValueError(f"{path} has {len(items)} items, which is more than is read (max_series)")
    page: Page = {f"{path}:": {}}
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            raise ValueError(f"{path} has an item that is no object")  # noqa: TRY004  # a page that cannot be parsed
        labels = _labels(item, place)
        page[f"{path}:"][labels] = 1.0
        for name, steps in wanted.items():
            value = _at(item, steps)
            if value is not None:
                page.setdefault(name, {})[labels] = value
    if items and len(page) == 1:  # none of the values: it is of something else
        return {}
    return page


def _items_of(data: Any, wanted: Iterable[list[str]]) -> list[Any]:
    """The items of a page that is no list."""
    if isinstance(data, dict) and all(_at(data, steps) is None for steps in wanted):
        lists = [value for value in data.values() if isinstance(value, list)]
        if len(lists) == 1:
            return lists[0]
    return [data]


def _labels(item: Mapping[str, Any], place: int) -> Labels:
    booleans = {name: str(value).lower() for name, value in item.items() if isinstance(value, bool)}
    return tuple(sorted({**booleans, "item": str(place)}.items()))


def _at(item: Mapping[str, Any], steps: list[str]) -> float | None:
    """The number at a path; NaN where something else is there, ``None`` where nothing is."""
    value: Any = item
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf
