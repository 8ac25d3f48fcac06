"""The configuration of the executor that publishes replicas as a gauge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from dynamo_planner.core.snapshot import PoolSpec
from dynamo_planner.executors.config import AnyExecutor, ExecutorConfig

if TYPE_CHECKING:
    from dynamo_planner.executors.gauge import GaugeExecutor


class GaugeConfig(ExecutorConfig, kind="gauge"):
    """Publish wanted replicas as ``dynamo_planner_desired_replicas`` on the page that ``monitoring`` serves.

    Args:
        namespace: The metric's label ``namespace``.
        target: The metric's label ``target``.
        observes: The executor that reports the present replicas; it is not acted on.
        valid_s: A number that was not confirmed for this many seconds is no longer published. Default 60.
        follow_up_s: An autoscaler that does not begin to follow a rise within this many seconds is taken to stay where
            it is, and the number is brought back to that. Default 120.
        follow_down_s: The same for a fall. Default 600.
        again_s: Seconds after which a number beyond it is published again. Default 600.
    """

    namespace: str = Field(min_length=1)
    target: str = Field(min_length=1)
    observes: AnyExecutor
    valid_s: float = Field(default=60.0, gt=0)
    follow_up_s: float = Field(default=120.0, gt=0)
    follow_down_s: float = Field(default=600.0, gt=0)
    again_s: float = Field(default=600.0, gt=0)

    @field_validator("observes")
    @classmethod
    def _has_replicas(cls, observes: ExecutorConfig) -> ExecutorConfig:
        if isinstance(observes, GaugeConfig):
            raise ValueError("a gauge has no replicas of its own: name the executor that has")  # noqa: TRY004
        return observes

    @property
    def specs(self) -> Mapping[str, PoolSpec]:
        return self.observes.specs

    def build(self) -> GaugeExecutor:
        from dynamo_planner.executors.gauge import GaugeExecutor  # noqa: PLC0415  # needs the extra prometheus

        return GaugeExecutor(
            self.namespace,
            self.target,
            self.observes.build(),
            valid_s=self.valid_s,
            follow_up_s=self.follow_up_s,
            follow_down_s=self.follow_down_s,
            again_s=self.again_s,
        )

    def check_run(self, interval_s: float, *, monitored: bool) -> None:
        if not monitored:
            raise ValueError("executor.kind gauge is read from the page of 'monitoring', which is not there: add it")
        if self.valid_s <= interval_s:
            raise ValueError(
                f"executor.valid_s ({self.valid_s:g}) must be longer than interval_s ({interval_s:g}), or the gauge "
                "comes and goes"
            )

    def running(self) -> Mapping[str, Mapping[str, str]] | None:
        return self.observes.running()
