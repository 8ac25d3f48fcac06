"""Names of workers: ``{namespace}_{component}``, then ``{namespace}_{component}_1``, ``_2``, ...

Circus ignores upper and lower case in the names of watchers, and so do these functions.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import combinations, count

NAMESPACE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
COMPONENT = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"


def check_namespace(namespace: str) -> str:
    """The namespace itself; raises :class:`ValueError` where it cannot name a file and a watcher."""
    if not NAMESPACE.fullmatch(namespace):
        raise ValueError(
            f"namespace {namespace!r} must be 1 to 63 of a-z, 0-9, _ and -, and start with a letter or digit"
        )
    return namespace


def free_name(namespace: str, component: str, taken: Collection[str]) -> str:
    """The free name with the lowest number.

    >>> free_name("dynamo", "decode", {"dynamo_decode", "dynamo_decode_2"})
    'dynamo_decode_1'
    """
    lowered = {name.lower() for name in taken}
    base = f"{namespace}_{component}"
    names = (base if number == 0 else f"{base}_{number}" for number in count())
    return next(name for name in names if name.lower() not in lowered)


def check_components(components: Iterable[str]) -> None:
    """Raise :class:`ValueError` where workers of two components could get the same name.

    >>> check_components(["decode", "decode_1"])
    Traceback (most recent call last):
    ...
    ValueError: components 'decode' and 'decode_1' would name their workers alike: rename one of them
    """
    for first, second in combinations(components, 2):
        short, long = sorted((first.lower(), second.lower()), key=len)
        if re.fullmatch(re.escape(short) + r"(_\d+)?", long):
            raise ValueError(f"components {first!r} and {second!r} would name their workers alike: rename one of them")
