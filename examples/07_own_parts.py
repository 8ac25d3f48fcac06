"""A forecaster and a sizing of your own in SlaPolicy, held to the laws that its other parts count on.

The checks need the extra ``testing``: ``pip install 'dynamo-planner[testing]'``.
"""

import math
from statistics import NormalDist
from typing import Any, NamedTuple

from dynamo_planner import PoolSpec, PoolStatus, Sla, SlaPolicy, Snapshot, Traffic
from dynamo_planner.conformance import check_forecaster, check_sizing
from dynamo_planner.forecasting import RateForecaster
from dynamo_planner.policies.sla import Sizing, SizingRequest
from dynamo_planner.sizing import Requirement


class Level(NamedTuple):
    """A rate that stays what it is, more or less its square root."""

    mean: float

    def quantile(self, level: float) -> float:
        return max(self.mean + NormalDist().inv_cdf(level) * math.sqrt(self.mean), 0.0)


class LastWindow(RateForecaster):
    """The rate stays what it was in the last window."""

    def update(self, state: Any, at_s: float, rate_per_s: float | None, span_s: float) -> Any:
        return state if rate_per_s is None else rate_per_s

    def forecast(self, state: Any, at_s: float, horizon_s: float, window_s: float | None = None) -> Level | None:
        return None if state is None else Level(state)


class TokensPerReplica(Sizing):
    """One replica for this many tokens a second, whatever the targets."""

    tokens_per_s: float = 25_000.0

    def required(self, request: SizingRequest) -> Requirement:
        tokens = request.load.isl.mean + request.load.osl.mean
        load = request.load.arrivals.requests_per_s * tokens * request.slowness / self.tokens_per_s
        return Requirement(request.role, load, math.ceil(load))


if __name__ == "__main__":
    check_forecaster(LastWindow())
    check_sizing(TokensPerReplica())
    policy = SlaPolicy(
        sla=Sla(ttft_ms=500, itl_ms=25),
        profile="llama31-8b_h100_vllm_tp1",
        forecaster=LastWindow(),
        sizing=TokensPerReplica(),
    )
    pool = PoolStatus(spec=PoolSpec(role="aggregated", startup_s=60), replicas=4, queued=0)
    traffic = Traffic(requests_per_s=40, window_s=30, isl=3000, osl=250)
    print(policy.decide(Snapshot(at_s=0, traffic=traffic, pools={"workers": pool})).explain())
