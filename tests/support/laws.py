"""How many examples hypothesis tries of each law."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import HealthCheck, settings

ORDINARY = 100
"""Examples of a law that says nothing, in the ordinary profile; see ``tests/conftest.py``."""


def examples(count: int = ORDINARY, suppress: Iterable[HealthCheck] = (), **options: Any) -> settings:
    """So many examples in the ordinary profile; in ``fast`` a tenth of them, in ``long`` ten times as many."""
    checks = [*settings.default.suppress_health_check, *suppress] if settings.default else [*suppress]
    return settings(max_examples=max(5, scaled(count)), suppress_health_check=checks, **options)


def scaled(count: int) -> int:
    """A count that grows and shrinks with the profile, for searches that are no hypothesis test themselves."""
    return max(1, round(count * settings.default.max_examples / ORDINARY)) if settings.default else count
