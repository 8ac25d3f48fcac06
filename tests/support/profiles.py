"""The profiles of ``tests/data``, measured and generated; and points that follow a known law."""

from __future__ import annotations

import pytest

from dynamo_planner.profiles import DecodePoints, Profile
from tests.support.paths import DATA

PROFILES = DATA / "profiles"
NAMES = sorted(path.name for path in PROFILES.iterdir() if path.is_dir())

BATCHES = (1, 2, 8, 32, 128)
CONTEXTS = (500, 1000, 4000, 8000)
MAX_KV_TOKENS = 1_500_000
BASE_MS, REQUEST_MS, KV_MS = 6.0, 0.05, 2e-5


def law_itl(batch: float, context: float) -> float:
    """The ITL that :func:`law` follows."""
    return BASE_MS + REQUEST_MS * batch + KV_MS * batch * context


@pytest.fixture(scope="session", params=NAMES)
def each_profile(request: pytest.FixtureRequest) -> Profile:
    """Each of the profiles of ``tests/data``."""
    return load_sample(request.param)


def load_sample(name: str) -> Profile:
    """A profile of ``tests/data`` by its name."""
    return Profile.load(PROFILES / name)


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
