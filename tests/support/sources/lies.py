"""What the sources make of situations in which metrics lie.

    python -m tests.support.sources.lies [--situations 10000] [--from 0]

prints how often each quantity is known, unknown and wrong in each kind of situation, by scraping and through
Prometheus, and fails where one is wrong. A star marks quantities that the fault touches; the others have to be known.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from tests.support.sources.judging import judged
from tests.support.sources.situations import KINDS, THROUGH_PROMETHEUS, Situation
from tests.support.sources.views import View, by_scraping, through_prometheus

Table = Counter[tuple[str, str, str, str]]
"""How often, by way, kind of situation, quantity and outcome: ``known``, ``unknown`` or ``wrong``."""

Draw = Callable[[random.Random], Situation]

WAYS: Mapping[str, tuple[Mapping[str, Draw], Callable[[Situation, random.Random], Iterator[View]]]] = {
    "scraping": (KINDS, by_scraping),
    "Prometheus": (THROUGH_PROMETHEUS, through_prometheus),
}
EVERY_KIND = [(way, kind) for way, (kinds, _) in WAYS.items() for kind in kinds]


def judge(way: str, kind: str, seed: int) -> Table:
    """Draw one situation, observe it, and judge each quantity each time."""
    draw = random.Random(f"{kind} {seed}")
    kinds, views = WAYS[way]
    situation = kinds[kind](draw)
    table: Table = Counter()
    for view in views(situation, draw):
        for quantity, outcome in judged(situation, view).items():
            table[way, kind, quantity + "*" * (quantity in situation.touches), outcome] += 1
    return table


def show(table: Table) -> str:
    """The table as text."""
    lines = [f"{'way':12}{'situation':17}{'quantity':17}{'known':>9}{'unknown':>9}{'wrong':>9}"]
    for way, kind, quantity in sorted({key[:3] for key in table}):
        counts = [table[way, kind, quantity, outcome] for outcome in ("known", "unknown", "wrong")]
        lines.append(f"{way:12}{kind:17}{quantity:17}" + "".join(f"{count:9}" for count in counts))
    return "\n".join(lines)


def main() -> None:
    """Judge as many situations as asked for, evenly of all kinds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--situations", type=int, default=10_000)
    parser.add_argument(
        "--from", type=int, default=0, dest="first", help="the number of the first, to go on from there"
    )
    options = parser.parse_args()
    table: Table = Counter()
    for number in range(options.first, options.first + options.situations):
        way, kind = EVERY_KIND[number % len(EVERY_KIND)]
        found = judge(way, kind, number)
        if any(outcome == "wrong" for *_, outcome in found):
            sys.stdout.write(f"wrong: judge({way!r}, {kind!r}, {number})\n")
        table += found
    sys.stdout.write(f"{show(table)}\n")
    sys.exit(any(outcome == "wrong" for *_, outcome in table))


if __name__ == "__main__":
    main()
