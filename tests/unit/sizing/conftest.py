"""Profiles to size with."""

from __future__ import annotations

import pytest

from dynamo_planner import Profile
from tests.support.profiles import each_profile

__all__ = ["each_profile"]


@pytest.fixture(scope="session")
def h100() -> Profile:
    return Profile.bundled("llama31-8b_h100_vllm_tp1")
