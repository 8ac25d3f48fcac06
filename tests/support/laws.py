"""How many examples hypothesis tries of each law."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import HealthCheck, settings

ORDINARY = 100
"""Examples of a law that says nothing, in the ordinary profile; see ``tests/conftest.py``."""


def examples(count: int = ORDINARY, suppress: Iterable[HealthCheck] = (), **options: Any) -> settings:
    """So many examples in the ordinary profile; in ``fast`` a tenth of them, in ``long`` ten times as many."""
    profile = settings.default
    assert profile is not None
    return settings(
        max_examples=max(5, round(count * profile.max_examples / ORDINARY)),
        suppress_health_check=[*profile.suppress_health_check, *suppress],
        **options,
    )
