"""Profiles to look at."""

from __future__ import annotations

from tests.support.profiles import each_profile, law, own

__all__ = ["each_profile", "law", "own"]
