"""A farm of workers for each test."""

from __future__ import annotations

from tests.support.sources.farm import farm

__all__ = ["farm"]
