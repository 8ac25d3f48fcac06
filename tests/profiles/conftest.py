"""Measured and generated profiles beside the repository, where they are there; and points that follow a known law."""

from __future__ import annotations

from pathlib import Path

import pytest

from dynamo_planner.profiles import DecodePoints, Profile

SHARED = Path(__file__).resolve().parents[3] / "shared" / "profiles"
NAMES = sorted(path.name for path in SHARED.iterdir() if path.is_dir()) if SHARED.is_dir() else []

BATCHES = (1, 2, 8, 32, 128)
CONTEXTS = (500, 1000, 4000, 8000)
MAX_KV_TOKENS = 1_500_000
BASE_MS, REQUEST_MS, KV_MS = 6.0, 0.05, 2e-5


def law_itl(batch: float, context: float) -> float:
    """The ITL that :func:`law` follows."""
    return BASE_MS + REQUEST_MS * batch + KV_MS * batch * context


@pytest.fixture(scope="session", params=NAMES or [""])
def shared(request: pytest.FixtureRequest) -> Profile:
    """Each of the profiles beside the repository."""
    return load_shared(request.param)


def load_shared(name: str) -> Profile:
    if name not in NAMES:
        pytest.skip("the profiles in ../shared are not here")
    return Profile.load(SHARED / name)


@pytest.fixture(scope="session")
def law() -> DecodePoints:
    """Decode points that follow ``law_itl`` exactly, on two GPUs."""
    points = [(batch, context) for batch in BATCHES for context in CONTEXTS]
    return DecodePoints(
        max_kv_tokens=MAX_KV_TOKENS,
        kv_usage=[batch * context / MAX_KV_TOKENS for batch, context in points],
        context=[context for _, context in points],
        itl_ms=[law_itl(*point) for point in points],
        gpus=2,
    )


@pytest.fixture(scope="session")
def own(law: DecodePoints) -> Profile:
    """A small profile of one's own."""
    return Profile.from_points(
        name="own",
        isl=[128, 1024, 8192],
        ttft_ms=[10, 40, 400],
        max_kv_tokens=law.max_kv_tokens,
        kv_usage=law.kv_usage,
        context=law.context,
        itl_ms=law.itl_ms,
        gpus=2,
    )
