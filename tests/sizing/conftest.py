"""Profiles to size with: those that are bundled, and those beside the repository."""

from __future__ import annotations

import pytest

from dynamo_planner import Profile
from tests.profiles.conftest import NAMES, load_shared


@pytest.fixture(scope="session", params=NAMES or [""])
def shared(request: pytest.FixtureRequest) -> Profile:
    """Each of the profiles beside the repository."""
    return load_shared(request.param)


@pytest.fixture(scope="session")
def h100() -> Profile:
    return Profile.bundled("llama31-8b_h100_vllm_tp1")
