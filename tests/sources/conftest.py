"""A farm of workers for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sources.farm import Farm


@pytest.fixture
def farm() -> Iterator[Farm]:
    with Farm() as running:
        yield running
