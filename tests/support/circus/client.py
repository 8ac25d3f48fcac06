"""A client of local workers that goes on sending requests, and the requests that it lost."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from itertools import cycle

EXCUSED_S = 20.0
"""Requests to a worker that a trouble has hit may be lost for this long."""


class Client(threading.Thread):
    """Sends a request every 50 ms, to each worker of each pool in turn, as the executor gives them out."""

    def __init__(self, endpoints: Callable[[], Mapping[str, Mapping[str, str]]]) -> None:
        super().__init__(daemon=True)
        self._endpoints = endpoints
        self._ended = threading.Event()
        self.sent = 0
        self.lost: list[tuple[str, float]] = []
        self.hit: list[tuple[str, float]] = []
        """Workers that a trouble has hit, and when (seconds of the monotonic clock)."""

    def run(self) -> None:
        for turn in cycle(range(60)):
            if self._ended.wait(0.05):
                return
            workers = [each for pool in self._endpoints().values() for each in pool.items()]
            if workers:
                name, url = workers[turn % len(workers)]
                self.sent += 1
                try:
                    urllib.request.urlopen(url, timeout=1.0).close()
                except OSError:
                    self.lost.append((name, time.monotonic()))

    def stop(self) -> None:
        """End it, with its last request."""
        self._ended.set()
        self.join()

    def unexcused(self) -> list[str]:
        """The workers that lost a request although no trouble had hit them."""
        return [
            name
            for name, lost_s in self.lost
            if not any(name == hit and -1.5 < lost_s - hit_s < EXCUSED_S for hit, hit_s in self.hit)
        ]
