"""Clients of a graph, as a stand-in: nothing is sent, since its pods are objects without processes.

In each turn one request begins at each ready pod, as a Service would send it there, and takes three turns. A pod that
is deleted gets no more and finishes those that it has, which is what its grace period is for. A request is lost where
its pod is gone before, and where no pod of its component is ready.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

TURNS = 3
EXCUSED_S = 20.0
"""Where a trouble hit the pods of a component, its requests may be lost for this long."""

COMPONENT = "nvidia.com/dynamo-component"


@dataclass
class Requests:
    """The requests at each pod by the turns that they still take, those that were lost, and what troubles hit."""

    running: dict[str, list[int]] = field(default_factory=dict)
    lost: list[tuple[str, float]] = field(default_factory=list)
    hit: list[tuple[str, float]] = field(default_factory=list)
    begun: int = 0
    _served: set[str] = field(default_factory=set)

    def turn(self, pods: Iterable[Mapping[str, Any]], dead: Collection[str]) -> None:
        """One turn: requests go on, and begin; those on ``dead`` pods do neither."""
        there = {pod["metadata"]["name"]: pod for pod in pods}
        serving = {name: pod for name, pod in there.items() if name not in dead and _takes(pod)}
        for name in [*self.running]:
            left = [turns - 1 for turns in self.running.pop(name) if turns > 1 or name in dead]
            if name in there:
                self.running[name] = left
            elif left and name not in dead:
                self.lost.append((name, time.monotonic()))
        for name in serving:
            self.running.setdefault(name, []).append(TURNS)
            self.begun += 1
        served = {pod["metadata"]["labels"][COMPONENT] for pod in serving.values()}
        self.lost += [(component, time.monotonic()) for component in self._served - served]
        self._served |= served

    def unexcused(self) -> list[str]:
        """The pods and components that lost a request although no trouble had hit them."""
        return [
            name
            for name, lost_s in self.lost
            if not any(name == hit and 0 <= lost_s - hit_s < EXCUSED_S for hit, hit_s in self.hit)
        ]


def _takes(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or ()
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
