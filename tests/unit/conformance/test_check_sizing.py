"""check_sizing: ours keep the laws, and each law is broken by something that is wrong."""

from __future__ import annotations

import math

import pytest

from dynamo_planner.conformance import ConformanceError, check_sizing
from dynamo_planner.policies.sla.sizing import CannotSizeError, Classic, Percentile, Sizing, SizingRequest
from dynamo_planner.sizing import Requirement
from tests.support.profiles import load_sample


class Tokens(Sizing):
    """Replicas of so many tokens per second; each test changes the count or what leads to it."""

    def tokens_per_s(self, request: SizingRequest) -> float:
        load = request.load
        return load.arrivals.requests_per_s * (load.isl.mean + load.osl.mean) * request.slowness

    def count(self, busy: float, request: SizingRequest) -> int:
        return math.ceil(busy)

    def required(self, request: SizingRequest) -> Requirement:
        if request.role == "aggregated":
            raise CannotSizeError("it knows no aggregated replicas")
        busy = self.tokens_per_s(request) / 5000
        return Requirement(request.role, busy, self.count(busy, request))


class AtLeastOne(Tokens):
    def count(self, busy: float, request: SizingRequest) -> int:
        return max(1, math.ceil(busy))


class Fewer(Tokens):
    def count(self, busy: float, request: SizingRequest) -> int:
        return math.floor(busy)


class FasterUnderLoad(Tokens):
    def tokens_per_s(self, request: SizingRequest) -> float:
        return super().tokens_per_s(request) / max(request.load.arrivals.requests_per_s / 20, 1) ** 2


class FasterWhenSlow(Tokens):
    def tokens_per_s(self, request: SizingRequest) -> float:
        return super().tokens_per_s(request) / request.slowness**2


class LooseIsDear(Tokens):
    def count(self, busy: float, request: SizingRequest) -> int:
        return math.ceil(busy * (1 + request.sla.ttft_ms / 1000))


class Cliff(Tokens):
    def count(self, busy: float, request: SizingRequest) -> int:
        return math.ceil(busy * (1 if request.load.isl.mean < 9000 else 6))


class EndOfSearch(Tokens):
    def count(self, busy: float, request: SizingRequest) -> int:
        return 100_000 if request.sla.attainment > 0.995 else math.ceil(busy)


class FromNear(Tokens):
    def count(self, busy: float, request: SizingRequest) -> int:
        return max(math.ceil(busy), request.near if busy else 0)


@pytest.mark.slow
def test_both_sizings_keep_the_laws() -> None:
    check_sizing(Percentile())
    check_sizing(Percentile(), load_sample("MEASURED_llama31-8b-fp8_h200_dynamo_tp1"))
    check_sizing(Classic())
    check_sizing(Tokens())


@pytest.mark.parametrize(
    ("law", "sizing"),
    [
        ("idle", AtLeastOne()),
        ("keeps-up", Fewer()),
        ("rate", FasterUnderLoad()),
        ("slowness", FasterWhenSlow()),
        ("targets", LooseIsDear()),
        ("no-cliff", Cliff()),
        ("bounded", EndOfSearch()),
        ("same-input", FromNear()),
    ],
)
def test_a_wrong_sizing_is_found_out(law: str, sizing: Sizing) -> None:
    with pytest.raises(ConformanceError) as broken:
        check_sizing(sizing)
    assert broken.value.law == law
