"""Whose number of replicas it is: the planner's, or that of somebody who changed it meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

logger = logging.getLogger(__name__)

WhenChanged = Literal["yield", "retake"]


class Claim:
    """The planner's claim on the replicas of one pool.

    What others change is noticed by comparing with what was last seen and written. With ``yield`` the planner then
    keeps its hands off the pool for ``yield_s``, or until the replicas are what it wrote itself; with ``retake`` it
    goes on from the new number at once. It is kept in memory: a planner that starts claims nothing it has not seen.
    """

    def __init__(self, pool: str, when_changed: WhenChanged, yield_s: float) -> None:
        self._pool, self._when_changed, self._yield_s = pool, when_changed, yield_s
        self._seen: int | None = None
        self._tried: int | None = None
        self._own: int | None = None
        self._uid: str | None = None
        self._yields_until_s = 0.0
        self._why = ""
        self.target_since_s = 0.0
        """When the present target was first seen."""

    def forget(self) -> None:
        """Whoever changes the replicas now has every right to: nothing is compared with what was seen before."""
        self._seen = self._tried = self._own = self._uid = None
        self._yields_until_s = 0.0

    def saw(self, replicas: int, uid: str, at_s: float, by: Callable[[], str | None]) -> None:
        """Take note of the target that was read, and of whether somebody else changed it; ``by`` says who."""
        if uid != self._uid:
            self.forget()
        if replicas != self._seen:
            self.target_since_s = at_s
        if replicas == self._tried:
            self._own = replicas
        elif self._seen not in {None, replicas}:
            self._changed(replicas, at_s, by() or "somebody else")
        if replicas == self._own:
            self._yields_until_s = 0.0
        self._seen, self._tried, self._uid = replicas, None, uid

    def _changed(self, replicas: int, at_s: float, by: str) -> None:
        self._why = f"{by} changed the replicas from {self._seen} to {replicas}"
        if self._when_changed == "yield":
            self._yields_until_s = at_s + self._yield_s
        then = f"left alone for {self._yield_s:g} s" if self._when_changed == "yield" else "taken back if need be"
        logger.warning("%s: %s: %s", self._pool, self._why, then)

    def is_same(self, uid: str) -> bool:
        """Whether this is the object that was looked at."""
        return self._uid in {None, uid}

    def is_tried(self, replicas: int) -> bool:
        """Whether a write of this number began whose answer never came."""
        return self._tried == replicas

    def trying(self, replicas: int) -> None:
        """A write of this number begins; where its answer is lost, the number is the planner's all the same."""
        self._tried = replicas

    def wrote(self, replicas: int, at_s: float) -> None:
        """The server took this number."""
        self._seen, self._own, self._tried, self.target_since_s = replicas, replicas, None, at_s

    def yields(self, at_s: float) -> str | None:
        """Why the pool is left alone now, or ``None``."""
        left_s = self._yields_until_s - at_s
        return f"{self._why}: left alone for another {left_s:.0f} s (when_changed: yield)" if left_s > 0 else None
