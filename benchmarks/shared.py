"""Where the traces, profiles and measurements lie that benchmarks read."""

from __future__ import annotations

import os
from pathlib import Path

SHARED = Path(os.environ.get("DYNAMO_PLANNER_SHARED", Path(__file__).resolve().parents[2] / "shared"))
