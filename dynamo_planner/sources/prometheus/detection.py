"""Which engine the targets of a pool are of, by the names of their metrics, however these are spelled."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from dynamo_planner.engines.prefixed import with_prefix
from dynamo_planner.engines.registry import detect
from dynamo_planner.engines.spelling import spelled_names, spelling_of
from dynamo_planner.engines.vocabulary import Vocabulary
from dynamo_planner.sources.prometheus.query_keys import presence_names


def detection_pattern(among: Iterable[Vocabulary]) -> str:
    """A regular expression of the names by which the engine of targets is detected, in any spelling."""
    spellable = frozenset[str]().union(*(presence_names(each) & each.spellable_names() for each in among))
    plain = frozenset[str]().union(*(presence_names(each) for each in among)) - spellable
    spelled = "|".join(re.escape(name).replace(":", "[:_]") for name in sorted(spellable))
    return "|".join((f"(?:.*[:_])?(?:{spelled})", *map(re.escape, sorted(plain))))


def vocabulary_of(names: Collection[str], among: Collection[Vocabulary]) -> Vocabulary | None:
    """The vocabulary that names are of, spelled as they are."""
    found = detect(names, among)
    if found is not None:
        return found
    spelled = spelled_names(names, among)
    found = detect(spelled.values(), among)
    if found is None:
        return None
    name = next(name for name, canonical in spelled.items() if canonical in found.own_names())
    return with_prefix(found, *spelling_of(name, spelled[name]))
