"""The configuration of the executor that runs local processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from dynamo_planner.core.snapshot import PoolSpec
from dynamo_planner.executors.circus.pool import CircusPool
from dynamo_planner.executors.circus.state_dir import VARIABLE, default_state_dir
from dynamo_planner.executors.config import ExecutorConfig

if TYPE_CHECKING:
    from dynamo_planner.executors.circus.executor import CircusExecutor


class CircusConfig(ExecutorConfig, kind="circus"):
    """Run workers as local processes under a Circus arbiter (extra ``circus``).

    Args:
        namespace: The prefix of its watchers' names; two services of one user need different ones. Default ``dynamo``.
        pools: The pools by name, each with its command.
        endpoint: The endpoint of an arbiter that runs already. Default none: the planner starts one of its own.
        state_dir: Where its files lie. Default: by ``DYNAMO_PLANNER_STATE_DIR``, else in the user's state directory.
        gpus: The indices of the GPUs that workers may use. Default: all that NVML reports.
    """

    namespace: str = Field(default="dynamo", pattern=r"^[a-z0-9][a-z0-9_-]*$")
    pools: dict[str, CircusPool] = Field(min_length=1)
    endpoint: str | None = None
    state_dir: Path | None = None
    gpus: list[int] | None = None

    @property
    def specs(self) -> Mapping[str, PoolSpec]:
        return {name: pool.spec for name, pool in self.pools.items()}

    def build(self) -> CircusExecutor:
        from dynamo_planner.executors.circus.executor import CircusExecutor  # noqa: PLC0415  # needs the extra

        return CircusExecutor(
            self.namespace, self.pools, endpoint=self.endpoint, state_dir=self.state_dir, gpus=self.gpus
        )

    def from_environment(self) -> Mapping[str, tuple[str, str]]:
        origin = VARIABLE if os.environ.get(VARIABLE) else "default"
        return {"state_dir": (str(default_state_dir()), origin)}

    def running(self) -> Mapping[str, Mapping[str, str]]:
        from dynamo_planner.executors.circus.inspection import inspect  # noqa: PLC0415  # needs the extra

        urls: dict[str, dict[str, str]] = {pool: {} for pool in self.pools}
        for worker in inspect(self.namespace, self.state_dir).workers:
            if worker.port is not None:
                urls.setdefault(worker.pool, {})[worker.name] = f"http://127.0.0.1:{worker.port}"
        return urls
