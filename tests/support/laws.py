"""How many examples hypothesis tries of each law."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

ORDINARY = 100
"""Examples of a law that says nothing, in the ordinary profile; see ``tests/conftest.py``."""


def examples(count: int = ORDINARY, **options: Any) -> settings:
    """So many examples in the ordinary profile; in ``fast`` a tenth of them, in ``long`` ten times as many."""
    share = settings.default.max_examples / ORDINARY if settings.default else 1.0
    return settings(max_examples=max(5, round(count * share)), **options)
