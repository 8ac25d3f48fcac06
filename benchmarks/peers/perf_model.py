"""Stands in for ``aisimulate_core``, which Dynamo 1.6.1's planner needs for its SLA mode and PyPI does not have.

What the planner wants of it is a regression over forward passes. ``aiconfigurator-core``, from which that package grew
and which PyPI has, holds the same one; only its factory takes the options by themselves. Estimates from a database of
GPUs are not offered: the benchmark gives every planner the measured profile.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from aiconfigurator_core.sdk import RustForwardPassPerfModel

OPTIONS = "regression_options"


@dataclass
class Config:
    """The fields that the planner fills in."""

    model: str = ""
    system: str = ""
    backend: str = ""
    worker_type: str = ""
    estimation_mode: str = "fpm_regression"
    tp: int = 1
    pp: int = 1
    attention_dp: int = 1
    moe_tp: int = 1
    moe_ep: int = 1
    nextn: int = 0
    kv_block_size: int | None = None
    speculation: dict[str, Any] | None = None
    estimator_config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_legacy_engine_config(cls, engine: dict[str, Any], worker_type: str, options: dict[str, Any]) -> Config:
        """The planner asks for this only to learn in what form the options are passed on."""
        return cls(model=engine["model_name"], worker_type=worker_type, estimator_config={OPTIONS: dict(options)})


class PerfModel(RustForwardPassPerfModel):
    """The regression, made from the options in the configuration."""

    @classmethod
    def best_available(cls, config: dict[str, Any]) -> RustForwardPassPerfModel:
        if config["estimation_mode"] != "fpm_regression":
            raise ValueError(f"estimation_mode is {config['estimation_mode']!r}, and only fpm_regression is offered")
        return RustForwardPassPerfModel.from_regression(config["estimator_config"][OPTIONS])


def install() -> None:
    """Make it importable under the name that the planner knows."""
    package, sdk = ModuleType("aisimulate_core"), ModuleType("aisimulate_core.sdk")
    sdk.ForwardPassPerfModelConfig = Config  # type: ignore[attr-defined]
    sdk.RustForwardPassPerfModel = PerfModel  # type: ignore[attr-defined]
    package.sdk = sdk  # type: ignore[attr-defined]
    sys.modules.update({"aisimulate_core": package, "aisimulate_core.sdk": sdk})
