"""A farm of workers, and servers with known series, for each test."""

from __future__ import annotations

from tests.support.sources.backfilled import served
from tests.support.sources.farm import farm

__all__ = ["farm", "served"]
