"""The directory of the state files, where none is given."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "DYN_LOCAL_STATE_DIR"


def default_state_dir() -> Path:
    """``DYN_LOCAL_STATE_DIR``, or ``~/.dynamo/state``."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else Path.home() / ".dynamo" / "state"
