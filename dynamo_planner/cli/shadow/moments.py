"""Moments and lengths of time as people write them.

>>> seconds("7d"), seconds("1h30m"), seconds("45")
(604800.0, 5400.0, 45.0)
>>> moment("2026-11-01T06:00", now_s=0.0), moment("2h", now_s=10_000.0), moment("now", now_s=5.0)
(1793512800.0, 2800.0, 5.0)
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LENGTH = re.compile(r"(?:\d+(?:\.\d+)?[smhdw])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def seconds(text: str) -> float:
    """A length of time: ``90``, ``45s``, ``10m``, ``1h30m``, ``7d``. Raises :class:`ValueError`."""
    if _LENGTH.fullmatch(text):
        return sum(float(number) * UNITS_S[unit] for number, unit in _PART.findall(text))
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return float(text)
    raise ValueError(f"{text!r} is no length of time, such as 45s, 10m, 1h30m or 7d")


def moment(text: str, now_s: float) -> float:
    """A moment in Unix seconds: ``now``, a length of time before it, or a date (UTC where it does not say)."""
    if text == "now":
        return now_s
    try:
        return now_s - seconds(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a length of time, such as 7d, nor a date, such as 2026-11-01") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
