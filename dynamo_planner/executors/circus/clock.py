"""Time for durations: Unix seconds by a clock that is never set.

The clock of the system is: by NTP after a boot or a resume, or by a person. Timeouts and backoffs by it end at once, or
an hour late. So the times of the records are those of the system's clock at the first start of the namespace in this
boot, carried on by ``CLOCK_BOOTTIME``, which only runs; with :class:`Epoch` in the state file they mean the same to the
next planner. What users and policies see is converted to the system's clock of now.

>>> steady, wall = [50.0], [1000.0]
>>> clock = SteadyClock(wall=lambda: wall[0], steady=lambda: steady[0])
>>> clock()
1000.0
>>> steady[0], wall[0] = 60.0, 4610.0  # ten seconds later, set ahead by an hour
>>> clock(), clock.to_unix(1000.0)
(1010.0, 4600.0)
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dynamo_planner.executors.circus.processes import boot_id
from dynamo_planner.executors.circus.records import Epoch, Records

NOTICED_STEP_S = 0.5
"""Smaller differences between the clocks are how long reading them takes, and are left alone: times stay the same from
one observation to the next."""


def boottime() -> float:
    """Seconds since the boot, those of a suspended machine included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """Unix seconds that are never set.

    Args:
        wall: Gives Unix seconds by the clock of the system.
        steady: Gives seconds by a clock that only runs.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = boottime) -> None:
        self._wall, self._steady = wall, steady
        self._offset_s = wall() - steady()
        self._stepped_s = 0.0

    def __call__(self) -> float:
        return self._steady() + self._offset_s

    def to_unix(self, at_s: float) -> float:
        """A time of this clock by the clock of the system, as that is set now."""
        stepped_s = self._wall() - self()
        if abs(stepped_s - self._stepped_s) > NOTICED_STEP_S:
            self._stepped_s = stepped_s
        return at_s + self._stepped_s

    def adopt(self, records: Records) -> Records:
        """Go on with the times of these records; of another boot, they are over, and none of them is waited for.

        >>> clock = SteadyClock(wall=lambda: 900.0, steady=lambda: 5.0)
        >>> old = Records(namespace="a", epoch=Epoch(boot_id="before", offset_s=7000.0))
        >>> clock.adopt(old).epoch.offset_s
        895.0
        """
        known = records.epoch
        if known is not None and known.boot_id == boot_id():
            self._offset_s = known.offset_s
            return records
        now_s = self()
        epoch = Epoch(boot_id=boot_id(), offset_s=self._offset_s)
        return (records if known is None else records.not_after(now_s)).replace(epoch=epoch)
