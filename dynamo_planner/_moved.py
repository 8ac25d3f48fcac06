"""Module paths of 0.1 that still work in 0.2, each with a warning that names the new one."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType
from typing import Any, cast

from dynamo_planner.core.deprecation import warn_deprecated
from dynamo_planner.core.registry import import_object

REMOVED_IN = "0.3.0"

MOVED = {
    "actions": "core.decision",
    "cli.config": "config.run",
    "cli.overrides": "config.overrides",
    "cli.reload": "config.reload",
    "cli.service": "config.assemble",
    "cli.where": "cli.target",
    "combine": "core.combinators",
    "executors.circus.fleet": "executors.circus.supervisor",
    "executors.circus.grants": "executors.circus.gpu_leases",
    "executors.circus.ledger": "executors.circus.store",
    "executors.circus.roller": "executors.circus.rolling_restart",
    "executors.circus.status": "executors.circus.records",
    "executors.kubernetes.arguments": "executors.kubernetes.container_args",
    "executors.kubernetes.claims": "executors.kubernetes.ownership",
    "executors.kubernetes.containers": "executors.kubernetes.container_args",
    "executors.kubernetes.counting": "executors.kubernetes.replica_status",
    "executors.kubernetes.owners": "executors.kubernetes.ownership",
    "executors.kubernetes.subjects": "executors.kubernetes.targets",
    "executors.kubernetes.turning": "executors.kubernetes.knob_rollout",
    "executors.kubernetes.writing": "executors.kubernetes.scale_writer",
    "extras": "core.extras",
    "forecasting.arima": "forecasting.experts.arima",
    "forecasting.constant": "forecasting.experts.constant",
    "forecasting.expert": "forecasting.experts.base",
    "forecasting.prophet": "forecasting.experts.prophet",
    "forecasting.refit": "forecasting.experts.refit",
    "forecasting.seasonal": "forecasting.experts.seasonal",
    "forecasting.step": "forecasting.experts.step",
    "forecasting.track": "forecasting.calibration",
    "forecasting.trend": "forecasting.experts.trend",
    "frozen": "core.values",
    "guards.reading": "guards._common",
    "guards.sharing": "guards.fair_share",
    "knobs": "engines",
    "knobs.catalogue": "engines.registry",
    "knobs.knob": "engines.knob",
    "limits": "core.invariants",
    "loading": "config.policies",
    "merging": "runtime.snapshot_builder",
    "monitoring": "runtime",
    "monitoring.health": "runtime.health",
    "monitoring.metrics": "runtime.metrics",
    "monitoring.monitor": "runtime.status_page",
    "monitoring.page": "runtime.status_page",
    "planner": "runtime.planner",
    "plotting": "core.plot_style",
    "policies.each_pool": "policies.laws.per_pool",
    "policies.hpa": "policies.laws.hpa",
    "policies.keda_slo": "policies.laws.keda_slo",
    "policies.knobs.looking": "policies.knobs.trial",
    "policies.knobs.measuring": "policies.knobs.trial",
    "policies.knobs.memory": "policies.knobs.trial",
    "policies.knobs.saying": "policies.knobs.trial",
    "policies.kpa": "policies.laws.kpa",
    "policies.load": "policies.reactive",
    "policies.load_samples": "policies.reactive_samples",
    "policies.moving_mean": "policies.laws.per_pool",
    "policies.ray_serve": "policies.laws.ray_serve",
    "policies.reading": "policies.laws._common",
    "policies.sla.correcting": "policies.sla.correction",
    "policies.sla.holding": "policies.sla.sliding_maximum",
    "policies.sla.memory": "policies.sla.state",
    "policies.sla.observing": "policies.sla.state",
    "policies.sla.outlook": "policies.sla.demand",
    "policies.sla.planning": "policies.sla.plan",
    "policies.static": "policies.schedule",
    "policies.wva": "policies.laws.wva",
    "policy": "core.policy",
    "profiles.checks": "profiles.validation",
    "profiles.decode": "profiles.decode_surface",
    "profiles.fit": "profiles.kriging",
    "profiles.mixed": "profiles.mixed_surface",
    "profiles.prefill": "profiles.prefill_curve",
    "profiles.query": "profiles.vectorize",
    "profiles.region": "profiles.convex_hull",
    "records": "runtime.decision_log",
    "simulation": "simulator",
    "simulation.backtest": "evaluation.backtest",
    "simulation.batching": "simulator.engine.scheduler",
    "simulation.bound": "evaluation.lower_bound",
    "simulation.cluster": "simulator.cluster",
    "simulation.cluster_setup": "simulator.setup",
    "simulation.compiled": "simulator.compiled",
    "simulation.courses": "workloads.rate_curves",
    "simulation.decode_heap": "simulator.engine.queues",
    "simulation.engine": "simulator.engine.engine",
    "simulation.environment": "evaluation.gym_env",
    "simulation.fleet": "simulator.workers",
    "simulation.generate": "workloads.generators",
    "simulation.happening": "simulator.engine.event_log",
    "simulation.leaving": "simulator.engine.queues",
    "simulation.llamacpp_model": "mock_workers.random_gguf",
    "simulation.llamacpp_worker": "mock_workers.llamacpp",
    "simulation.looking": "simulator.gauges",
    "simulation.observing": "simulator.metrics",
    "simulation.oracle": "evaluation.oracle",
    "simulation.past": "workloads.from_history",
    "simulation.report": "evaluation.report",
    "simulation.report_html": "evaluation.report_html",
    "simulation.report_plot": "evaluation.report_plot",
    "simulation.request": "simulator.engine.request",
    "simulation.results": "simulator.results",
    "simulation.routing": "simulator.routing",
    "simulation.runs": "simulator.engine.step_runs",
    "simulation.score": "evaluation.score",
    "simulation.search": "evaluation.schedule_search",
    "simulation.serving": "simulator.cluster_events",
    "simulation.state": "simulator.state",
    "simulation.step_table": "simulator.engine.step_time_table",
    "simulation.timing": "simulator.engine.step_time",
    "simulation.trace_files": "workloads.formats.registry",
    "simulation.traces": "workloads.trace",
    "simulation.transfers": "simulator.transfer_queue",
    "simulation.waiting": "simulator.engine.queues",
    "simulation.work": "evaluation.work_floor",
    "simulation.worker": "mock_workers.main",
    "simulation.worker_api": "mock_workers.openai_api",
    "simulation.worker_http": "mock_workers.app",
    "simulation.worker_metrics": "mock_workers.vllm_metrics",
    "simulation.worker_stream": "mock_workers.realtime_engine",
    "simulation.world": "simulator.backends",
    "sizing.curves": "sizing.step_curves",
    "sizing.lives": "sizing.concurrency",
    "sizing.mixed": "sizing.aggregated",
    "sizing.need": "sizing.result",
    "sizing.prompts": "sizing.prefill",
    "sizing.search": "sizing.queueing",
    "snapshot": "core.snapshot",
    "sources.answers": "sources.prometheus.answers",
    "sources.deltas": "sources.aggregation.increase",
    "sources.dynamo": "engines.dynamo",
    "sources.engines": "engines.registry",
    "sources.exposition": "sources.scraping.exposition",
    "sources.frontend": "sources.scraping.frontend",
    "sources.json_page": "sources.scraping.json_page",
    "sources.llamacpp": "engines.llamacpp",
    "sources.metrics": "engines.metric_kinds",
    "sources.picking": "sources.aggregation.selection",
    "sources.pools": "sources.aggregation.pools",
    "sources.prometheus_api": "sources.prometheus.api",
    "sources.promql": "sources.prometheus.promql",
    "sources.reading": "sources.aggregation.sample",
    "sources.scrape": "sources.scraping.source",
    "sources.scraper": "sources.scraping.scraper",
    "sources.sglang": "engines.sglang",
    "sources.traffic": "sources.aggregation.traffic",
    "sources.trtllm": "engines.trtllm",
    "sources.vllm": "engines.vllm",
    "sources.vocabulary": "engines.vocabulary",
    "sources.windows": "sources.aggregation.window",
    "state_file": "runtime.state_file",
    "ticking": "runtime.ticker",
}
"""Each module of 0.1 that moved, and the one that has its names now; both below ``dynamo_planner``."""

RENAMED = {
    "cli.config": {
        "CircusConfig": "executors.circus.config:CircusConfig",
        "DryRunConfig": "executors.dry_run:DryRunConfig",
        "FrontendConfig": "sources.scraping.config:FrontendConfig",
        "GaugeConfig": "executors.gauge_config:GaugeConfig",
        "KubernetesConfig": "executors.kubernetes.config:KubernetesConfig",
        "LeaseConfig": "executors.kubernetes.config:LeaseConfig",
        "PrometheusConfig": "sources.prometheus.config:PrometheusConfig",
        "RouterConfig": "executors.etcd.config:RouterConfig",
        "ScrapeConfig": "sources.scraping.config:ScrapeConfig",
    },
    "simulation.generate": {"Lengths": "workloads.generators:LogNormalLengths"},
    "snapshot": {name: f"core.metrics:{name}" for name in ("Dist", "KnownDist", "WorkerStatus")},
    "sources.engines": {
        "ENGINES": "engines.registry:worker_vocabularies()",
        "FRONTENDS": "engines.registry:frontend_vocabularies()",
    },
    "sources.windows": {"Track": "sources.aggregation.window:WorkerHistory"},
}
"""Names of those modules that are elsewhere, or named otherwise; with parentheses, the function that returns them."""


class MovedModules(MetaPathFinder):
    """Finds the modules of :data:`MOVED` where nothing else has."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, old = fullname.partition(".")
        if package != __package__ or old not in MOVED:
            return None
        is_package = any(other.startswith(f"{old}.") for other in MOVED)
        loader = _MovedLoader(f"{__package__}.{MOVED[old]}", RENAMED.get(old, {}))
        return ModuleSpec(fullname, loader, is_package=is_package)


class _MovedLoader(InspectLoader):
    """Makes a module that has every name of another one."""

    def __init__(self, new: str, renamed: Mapping[str, str]) -> None:
        self._new, self._renamed = new, renamed

    def exec_module(self, module: ModuleType) -> None:
        warn_deprecated(module.__name__, self._new, removed_in=REMOVED_IN, stacklevel=2)
        new = import_module(self._new)

        def get(name: str) -> Any:
            if name not in self._renamed:
                return getattr(new, name)
            now = self._renamed[name]
            value = import_object(f"{__package__}.{now.removesuffix('()')}")
            return value() if now.endswith("()") else value

        module.__dict__["__getattr__"] = get

    def get_code(self, fullname: str) -> CodeType | None:
        """The code that ``python -m`` runs under the old name."""
        spec = find_spec(self._new)
        return cast(InspectLoader, spec.loader).get_code(self._new) if spec else None

    def get_source(self, fullname: str) -> str | None:
        return None


def install() -> None:
    """Make the old paths importable. Once is enough."""
    sys.meta_path.append(MovedModules())
