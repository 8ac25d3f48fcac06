"""Times of a run for people: the clock of the trace in its time zone, or seconds where it has none.

>>> from datetime import datetime
>>> from zoneinfo import ZoneInfo
>>> TraceClock(datetime(2025, 3, 30, 1, 30, tzinfo=ZoneInfo("Europe/Berlin"))).text(3600)
'2025-03-30 03:30:00 CEST'
>>> TraceClock(None).text(3600)
'3600 s'
"""

from __future__ import annotations

from datetime import datetime
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.workloads.tables import moment_at

DAY_S = 86_400.0


class TraceClock(NamedTuple):
    """The clock of a trace.

    Args:
        start: When second 0 was, with its time zone; ``None`` where that is unknown.
    """

    start: datetime | None

    def text(self, at_s: float) -> str:
        """A second of the trace as a date and a time, or as itself."""
        return f"{at_s:.0f} s" if self.start is None else f"{moment_at(self.start, at_s):%Y-%m-%d %H:%M:%S %Z}"

    def axis(self, at_s: Any) -> NDArray[np.float64]:
        """Seconds of the trace as places on an axis of matplotlib (extra ``plot``)."""
        seconds = np.asarray(at_s, dtype=float)
        if self.start is None:
            return seconds
        dates: Any = import_module("matplotlib.dates")
        return np.asarray(dates.date2num(self.start) + seconds / DAY_S)

    def label(self, panel: Any) -> None:
        """Name the horizontal axis of a panel, and give it dates and times as ticks where the start is known."""
        if self.start is None:
            panel.set_xlabel("seconds of the trace")
            return
        dates: Any = import_module("matplotlib.dates")
        locator = dates.AutoDateLocator(tz=self.start.tzinfo)
        panel.xaxis.set_major_locator(locator)
        panel.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=self.start.tzinfo))
        panel.set_xlabel(f"time in {getattr(self.start.tzinfo, 'key', None) or self.start.tzname()}")


SECONDS = TraceClock(None)
