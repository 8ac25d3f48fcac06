"""Holds that last: a pool that is held for a quarter of an hour is reported, with what holds it and since when.

>>> from dynamo_planner import Decision, PoolSpec, PoolStatus, Reason
>>> unknown = Reason(code="MetricUnknown", pool="decode", message="kv_usage is unknown")
>>> watch, pools = HoldWatch("planner"), {"decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=2)}
>>> for at_s in (0, 450, 900):
...     reasons = watch.lasting(Decision(at_s=at_s, reasons=[unknown]), pools)
>>> print(*reasons)
HoldLasts: held for 900 s by MetricUnknown: kv_usage is unknown (began_at_s=0)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from dynamo_planner.core.decision import Decision, Reason
from dynamo_planner.core.snapshot import PoolStatus

logger = logging.getLogger(__name__)

HOLD_LASTS_S = 900.0
"""A pool that is held for longer, in seconds, is reported."""

INTENDED = frozenset({"Asleep", "Collecting", "Held", "NoOpinion", "NotYet", "Paused", "ScalingDisabled"})
"""Codes of holds that a policy or a person means, and that are not reported however long they last."""

NO_REASON = Reason(code="NoOpinion", message="no reason is given")


class HoldWatch:
    """Since when each pool is held; a line of the log says when one begins to last, and when it ends."""

    def __init__(self, planner: str) -> None:
        self._planner = planner
        self._since_s: dict[str, float] = {}
        self._reported: set[str] = set()

    def lasting(self, decision: Decision, pools: Mapping[str, PoolStatus]) -> tuple[Reason, ...]:
        """A reason for each pool that has been held for long, and not on purpose."""
        causes = {name: hold_reason(name, decision) for name in pools if name not in decision.targets}
        held = {name: cause for name, cause in causes.items() if cause.code not in INTENDED}
        self._since_s = {name: self._since_s.get(name, decision.at_s) for name in held}
        reasons = []
        for name, cause in held.items():
            since_s = self._since_s[name]
            if decision.at_s - since_s >= HOLD_LASTS_S:
                message = f"held for {decision.at_s - since_s:.0f} s by {cause.code}: {cause.message}"
                reasons.append(Reason(code="HoldLasts", pool=name, message=message, values={"began_at_s": since_s}))
        self._log({str(reason.pool): reason for reason in reasons})
        return tuple(reasons)

    def _log(self, lasting: Mapping[str, Reason]) -> None:
        for name in lasting.keys() - self._reported:
            logger.warning("%s: %s is %s", self._planner, name, lasting[name].message)
        for name in self._reported - lasting.keys():
            logger.info("%s: %s is held no longer", self._planner, name)
        self._reported = set(lasting)


def hold_reason(pool: str, decision: Decision) -> Reason:
    """The reason why a pool is held: the last one about it."""
    return next((reason for reason in reversed(decision.reasons) if reason.pool == pool), NO_REASON)
