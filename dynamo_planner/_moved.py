"""Module paths of 0.1 that still work in 0.2, each with a warning that names the new one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType
from typing import cast

from dynamo_planner.core.deprecation import warn_deprecated

REMOVED_IN = "0.3.0"

MOVED = {
    "actions": "core.decision",
    "combine": "core.combinators",
    "executors.circus.grants": "executors.circus.gpu_leases",
    "executors.circus.roller": "executors.circus.rolling_restart",
    "executors.circus.fleet": "executors.circus.supervisor",
    "executors.circus.ledger": "executors.circus.store",
    "executors.circus.status": "executors.circus.records",
    "executors.kubernetes.arguments": "executors.kubernetes.container_args",
    "executors.kubernetes.claims": "executors.kubernetes.ownership",
    "executors.kubernetes.containers": "executors.kubernetes.container_args",
    "executors.kubernetes.counting": "executors.kubernetes.replica_status",
    "executors.kubernetes.owners": "executors.kubernetes.ownership",
    "executors.kubernetes.subjects": "executors.kubernetes.targets",
    "executors.kubernetes.turning": "executors.kubernetes.knob_rollout",
    "executors.kubernetes.writing": "executors.kubernetes.scale_writer",
    "frozen": "core.values",
    "knobs": "engines",
    "knobs.catalogue": "engines.registry",
    "knobs.knob": "engines.knob",
    "limits": "core.invariants",
    "loading": "config.policies",
    "merging": "runtime.snapshot_builder",
    "planner": "runtime.planner",
    "policies.hpa": "policies.laws.hpa",
    "policies.keda_slo": "policies.laws.keda_slo",
    "policies.kpa": "policies.laws.kpa",
    "policies.load": "policies.reactive",
    "policies.ray_serve": "policies.laws.ray_serve",
    "policies.static": "policies.schedule",
    "policies.wva": "policies.laws.wva",
    "policy": "core.policy",
    "records": "runtime.decision_log",
    "simulation": "simulator",
    "simulation.backtest": "evaluation.backtest",
    "simulation.cluster": "simulator.cluster",
    "simulation.cluster_setup": "simulator.setup",
    "simulation.courses": "workloads.rate_curves",
    "simulation.engine": "simulator.engine.engine",
    "simulation.environment": "evaluation.gym_env",
    "simulation.generate": "workloads.generators",
    "simulation.llamacpp_worker": "mock_workers.llamacpp",
    "simulation.oracle": "evaluation.oracle",
    "simulation.past": "workloads.from_history",
    "simulation.report": "evaluation.report",
    "simulation.score": "evaluation.score",
    "simulation.timing": "simulator.engine.step_time",
    "simulation.traces": "workloads.trace",
    "simulation.worker": "mock_workers.main",
    "snapshot": "core.snapshot",
    "sources.access": "sources.prometheus.access",
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
}
"""Old module, and the module that has its names now; both below ``dynamo_planner``."""


class MovedModules(MetaPathFinder):
    """Finds the modules of :data:`MOVED` where nothing else has."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, old = fullname.partition(".")
        if package != __package__ or old not in MOVED:
            return None
        is_package = any(other.startswith(f"{old}.") for other in MOVED)
        return ModuleSpec(fullname, _MovedLoader(f"{__package__}.{MOVED[old]}"), is_package=is_package)


class _MovedLoader(InspectLoader):
    """Makes a module that has every name of another one."""

    def __init__(self, new: str) -> None:
        self._new = new

    def exec_module(self, module: ModuleType) -> None:
        warn_deprecated(module.__name__, self._new, removed_in=REMOVED_IN, stacklevel=2)
        new = import_module(self._new)
        module.__dict__["__getattr__"] = lambda name: getattr(new, name)

    def get_code(self, fullname: str) -> CodeType | None:
        """The code that ``python -m`` runs under the old name."""
        spec = find_spec(self._new)
        return cast(InspectLoader, spec.loader).get_code(self._new) if spec else None

    def get_source(self, fullname: str) -> str | None:
        return None


def install() -> None:
    """Make the old paths importable. Once is enough."""
    sys.meta_path.append(MovedModules())
