"""Fixtures of the loop's tests."""

from __future__ import annotations

import pytest

from tests.support.loop_parts import Clock, Cluster, Metrics


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()
