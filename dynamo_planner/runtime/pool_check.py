"""A check of the names in a policy against the pools of the executor, whenever either changes.

>>> from dynamo_planner import Bounds, PoolSpec
>>> policy = (lambda snapshot: {}) | Bounds(pools={"decod": {"max_replicas": 3}})
>>> for reason in PoolNameCheck("planner").unknown(policy, {"decode": PoolSpec(role="decode")}):
...     print(reason)
UnknownPool: policy.guards[0].pools: 'decod' is not a pool, did you mean 'decode'? there are decode
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from dynamo_planner.core.decision import Reason
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.pool_names import no_such_pool, pool_names, shown_path

logger = logging.getLogger(__name__)


class PoolNameCheck:
    """Finds the names in a policy that are no pools; a line of the log says so when they appear."""

    def __init__(self, planner: str) -> None:
        self._planner = planner
        self._policy: Policy | None = None
        self._pools: frozenset[str] = frozenset()
        self._reasons: tuple[Reason, ...] = ()

    def unknown(self, policy: Policy, pools: Collection[str]) -> tuple[Reason, ...]:
        """A reason for each name in the policy that is none of these pools; none where no pool could be read."""
        if pools and (policy is not self._policy or self._pools != frozenset(pools)):
            self._policy, self._pools = policy, frozenset(pools)
            self._reasons = tuple(
                Reason(code="UnknownPool", message=f"{shown_path(('policy', *path))}: {no_such_pool(name, pools)}")
                for path, name in pool_names(policy)
                if name not in pools
            )
            for reason in self._reasons:
                logger.warning("%s: %s", self._planner, reason)
        return self._reasons
