"""The server's clock beside the planner's.

>>> clock_remark(ServerTime(server_s=1000.0, planner_s=1090.0))
{'clock': "the planner's clock is 90 s ahead of the server's: synchronize both"}
>>> future_doubt(ServerTime(server_s=1000.0, planner_s=1000.0), at_s=1090.0)
"the window ends 90 s after the server's present: synchronize the planner's clock"
"""

from __future__ import annotations

from dynamo_planner.sources.prometheus.api import ServerTime

MAX_DIFFERENCE_S = 5.0
"""A server tells its time in whole seconds, and an answer takes a while."""


def clock_remark(time: ServerTime | None) -> dict[str, str]:
    """Where the clocks differ by more than that, by how much, under the key ``clock``."""
    ahead_s = 0.0 if time is None else time.planner_s - time.server_s
    if abs(ahead_s) <= MAX_DIFFERENCE_S:
        return {}
    how = "ahead of" if ahead_s > 0 else "behind"
    return {"clock": f"the planner's clock is {abs(ahead_s):.0f} s {how} the server's: synchronize both"}


def future_doubt(time: ServerTime | None, at_s: float) -> str | None:
    """Why what happened over a window is unknown that ends in the server's future; ``None`` where it does not."""
    ahead_s = 0.0 if time is None else at_s - time.server_s
    if ahead_s <= MAX_DIFFERENCE_S:
        return None
    return f"the window ends {ahead_s:.0f} s after the server's present: synchronize the planner's clock"
