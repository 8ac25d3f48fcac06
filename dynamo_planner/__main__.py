"""``python -m dynamo_planner``: the command line."""

from __future__ import annotations

from dynamo_planner.cli import main

if __name__ == "__main__":
    main()
