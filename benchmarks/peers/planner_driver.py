"""Run by an interpreter that has ``ai-dynamo``, never imported: times the planner of one version on a series of ticks.

The question comes as JSON on standard input, the answer goes to standard output. The planners are as they are; the
runtime, Kubernetes and Prometheus around them are replaced by what is in memory. Both are in SLA mode, forecast with
``constant``, and decide on every tick. The regression that 1.6.1 takes from NVIDIA's ``aisimulate_core``, which is not
on PyPI, is that of ``aiconfigurator_core``, its predecessor.
"""

# ruff: noqa: PLC0415 - each version has its own modules, and only one of them is there.

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import sys
import time
import types
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TICK_S = 5
GPUS = 64

Step = Callable[[float, int, float, float], Callable[[], Awaitable[Any]]]
"""From a tick to the decision of it, which is timed."""


def module(name: str, **names: Any) -> types.ModuleType:
    """A module of these names, importable from now on."""
    made = sys.modules[name] = types.ModuleType(name)
    made.__dict__.update(names)
    return made


def regression_from_its_predecessor() -> None:
    """``aisimulate_core`` by ``aiconfigurator_core``: of it the regression over a profile is all that is asked."""
    from aiconfigurator_core.sdk import RustForwardPassPerfModel

    @dataclass
    class Config:
        model: str = ""
        system: str = ""
        backend: str = ""
        worker_type: str = ""
        estimation_mode: str = ""
        tp: int = 1
        pp: int = 1
        estimator_config: dict[str, Any] = field(default_factory=dict)

        @classmethod
        def from_legacy_engine_config(cls, engine: Any, worker_type: str, options: Any) -> Config:
            return cls(estimator_config={"options": dict(options)})

    class Model(RustForwardPassPerfModel):  # type: ignore[misc]
        @classmethod
        def best_available(cls, config: Any) -> Any:
            return RustForwardPassPerfModel.from_regression(dict(config["estimator_config"]["options"]))

    class Native:
        normalize_config = staticmethod(lambda config: config)

    module("aisimulate_core", RustForwardPassPerfModel=Native).__path__ = []
    module("aisimulate_core._native", RustForwardPassPerfModel=Native)
    module("aisimulate_core.sdk", RustForwardPassPerfModel=Model, ForwardPassPerfModelConfig=Config)


def of_161(asked: dict[str, Any]) -> Step:
    """The planner of 1.6.1 in its own virtual time."""
    regression_from_its_predecessor()
    from dynamo.planner.config.defaults import SubComponentType
    from dynamo.planner.config.planner_config import PlannerConfig
    from dynamo.planner.core.types import (
        EngineCapabilities,
        TickInput,
        TrafficObservation,
        WorkerCapabilities,
        WorkerCounts,
    )
    from dynamo.planner.monitoring.perf_metrics import _convert_profiling_data_to_fpms as passes
    from dynamo.planner.plugins.clock import VirtualClock
    from dynamo.planner.plugins.orchestrator.engine_adapter import OrchestratorEngineAdapter

    config = PlannerConfig(
        environment="virtual",
        backend="mocker",
        model_name="model",
        mode="disagg",
        optimization_target="sla",
        enable_throughput_scaling=True,
        enable_load_scaling=False,
        throughput_adjustment_interval_seconds=TICK_S,
        load_adjustment_interval_seconds=TICK_S,
        load_predictor="constant",
        ttft_ms=asked["ttft_ms"],
        itl_ms=asked["itl_ms"],
        max_gpu_budget=GPUS,
        prefill_engine_num_gpu=1,
        decode_engine_num_gpu=1,
        pre_deployment_sweeping_mode="none",
        report_interval_hours=None,
        live_dashboard_port=0,
        control_api_port=0,
    )
    with np.load(f"{asked['profile']}/selected_decode_interpolation/raw_data.npz") as data:
        room = int(data["max_kv_tokens"][0])
    engine = EngineCapabilities(
        num_gpu=1, max_num_batched_tokens=16384, max_num_seqs=1024, context_length=16384, max_kv_tokens=room
    )
    planner = OrchestratorEngineAdapter(config, WorkerCapabilities(prefill=engine, decode=engine), clock=VirtualClock())
    planner.install_regressions_from_fpms(
        prefill_fpms=passes(asked["profile"], SubComponentType.PREFILL),
        decode_fpms=passes(asked["profile"], SubComponentType.DECODE),
    )
    asyncio.get_event_loop().run_until_complete(planner.bootstrap_plugins())
    due, workers = planner.initial_tick(0.0), [2, 2]

    def step(at_s: float, requests: int, isl: float, osl: float) -> Callable[[], Awaitable[Any]]:
        async def decide() -> None:
            nonlocal due
            counts = WorkerCounts(
                ready_num_prefill=workers[0],
                ready_num_decode=workers[1],
                expected_num_prefill=workers[0],
                expected_num_decode=workers[1],
            )
            traffic = TrafficObservation(TICK_S, requests, isl, osl, None) if due.need_traffic_metrics else None
            answer = await planner.tick(due, TickInput(now_s=due.at_s, traffic=traffic, worker_counts=counts))
            due = answer.next_tick
            if answer.scale_to is not None:
                workers[0] = answer.scale_to.num_prefill or workers[0]
                workers[1] = answer.scale_to.num_decode or workers[1]

        return decide

    return step


def of_051(asked: dict[str, Any]) -> Step:
    """The SLA planner of 0.5.1, from a folder with its wheel."""
    now, workers = dict[str, float](), [2, 2]

    class Connector:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        async def set_component_replicas(self, targets: dict[str, int], blocking: bool = True) -> None:
            workers[:] = targets.values()

    class Metrics:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __getattr__(self, name: str) -> Callable[..., float]:
            return lambda *_: now[name]

    class Gauge(Connector):
        def set(self, *_: Any) -> None:
            pass

    root = f"{asked['folder']}/dynamo"
    module("dynamo").__path__ = []
    module("dynamo.planner", KubernetesConnector=Connector, VirtualConnector=Connector).__path__ = [f"{root}/planner"]
    module("dynamo.planner.kube", get_current_k8s_namespace=lambda: "default")
    module("dynamo.runtime", DistributedRuntime=object, dynamo_worker=lambda *_, **__: lambda main: main).__path__ = []
    module("dynamo.runtime.logging", configure_dynamo_logging=lambda *_, **__: None)
    core = importlib.import_module("dynamo.planner.utils.planner_core")
    core.PrometheusAPIClient, core.Gauge = Metrics, Gauge
    planner = core.Planner(
        object(),
        argparse.Namespace(
            namespace="dynamo",
            environment="kubernetes",
            backend="vllm",
            no_operation=False,
            log_dir=None,
            adjustment_interval=TICK_S,
            max_gpu_budget=GPUS,
            min_endpoint=1,
            prefill_engine_num_gpu=1,
            decode_engine_num_gpu=1,
            profile_results_dir=asked["profile"],
            ttft=asked["ttft_ms"] / 1000,
            itl=asked["itl_ms"] / 1000,
            load_predictor="constant",
            load_prediction_window_size=50,
            prometheus_port=0,
            no_correction=False,
        ),
    )

    async def there() -> tuple[list[int], list[int]]:
        return [*range(workers[0])], [*range(workers[1])]

    planner.get_workers_info = there

    def step(at_s: float, requests: int, isl: float, osl: float) -> Callable[[], Awaitable[Any]]:
        now.update(
            get_avg_request_count=requests,
            get_avg_input_sequence_tokens=isl,
            get_avg_output_sequence_tokens=osl,
            get_avg_time_to_first_token=0.3,
            get_avg_inter_token_latency=0.03,
            get_avg_request_duration=0.3 + 0.03 * osl,
        )

        async def decide() -> None:
            await planner.observe_metrics()
            await planner.make_adjustments()

        return decide

    return step


def main() -> None:
    asked = json.load(sys.stdin)
    logging.disable(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    step, took_ms = (of_161 if asked["version"] == "1.6.1" else of_051)(asked), []
    for tick in asked["ticks"]:
        decide = step(*tick)
        began_ns = time.process_time_ns()
        loop.run_until_complete(decide())
        took_ms.append((time.process_time_ns() - began_ns) / 1e6)
    median, p99 = np.percentile(took_ms[1:], [50, 99])
    print(json.dumps({"median_ms": median, "p99_ms": p99}))


main()
