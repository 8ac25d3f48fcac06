"""Dynamo 1.6.1's own planner, unchanged, for its own simulator."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import perf_model
from benchmarks.peers.setups import BLOCK_TOKENS, MAX_NUM_SEQS, MAX_WORKERS, Setup

perf_model.install()

from dynamo.planner.config.planner_config import PlannerConfig  # noqa: E402
from dynamo.planner.core.types import EngineCapabilities, WorkerCapabilities  # noqa: E402
from dynamo.planner.monitoring import perf_metrics  # noqa: E402
from dynamo.planner.offline.replay_adapter import ReplayPlannerAdapter  # noqa: E402
from dynamo.planner.plugins.clock import VirtualClock  # noqa: E402
from dynamo.planner.plugins.orchestrator.engine_adapter import OrchestratorEngineAdapter  # noqa: E402


class DynamoPlanner(ReplayPlannerAdapter):
    """The planner with the targets and the profile of a set-up, decisions on load every 5 s.

    ``options`` are fields of its ``PlannerConfig``. Its budget is as many GPUs as ours may use.
    """

    def __init__(self, setup: Setup, options: dict[str, Any]) -> None:
        profile = setup.profile
        gpus = profile.decode_points.gpus
        config = PlannerConfig(
            environment="virtual",
            backend="mocker",
            model_name="model",
            mode="disagg",
            ttft_ms=setup.ttft_ms,
            itl_ms=setup.itl_ms,
            load_adjustment_interval_seconds=5,
            max_gpu_budget=MAX_WORKERS * gpus,
            prefill_engine_num_gpu=gpus,
            decode_engine_num_gpu=gpus,
            pre_deployment_sweeping_mode="none",
            report_interval_hours=None,
            live_dashboard_port=0,
            control_api_port=0,
            **options,
        )
        engine = EngineCapabilities(
            num_gpu=gpus,
            max_num_batched_tokens=setup.max_num_batched_tokens,
            max_num_seqs=MAX_NUM_SEQS,
            max_kv_tokens=int(profile.decode_points.max_kv_tokens) // BLOCK_TOKENS * BLOCK_TOKENS,
        )
        both = WorkerCapabilities(prefill=engine, decode=engine)
        planner = OrchestratorEngineAdapter(config, both, clock=VirtualClock())
        super().__init__(config, planner, both, capture_details=False)
        if config.optimization_target == "sla":
            path = str(setup.profile_path)
            self.install_benchmark_fpms(
                prefill_fpms=perf_metrics._convert_prefill_profiling(path),
                decode_fpms=perf_metrics._convert_decode_profiling(path),
            )

    def forget_targets(self) -> None:
        """What it asked for was not done; without this it would take it to be on the way."""
        self._scaling_target_prefill = self._scaling_target_decode = None
