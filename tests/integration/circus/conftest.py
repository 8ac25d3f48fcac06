"""A place of its own for each test, and somebody else's arbiter."""

from __future__ import annotations

from tests.support.circus.place import place
from tests.support.circus.theirs import theirs

__all__ = ["place", "theirs"]
