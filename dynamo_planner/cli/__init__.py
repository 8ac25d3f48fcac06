"""The ``dynamo-planner`` command (extra ``cli``)."""

from __future__ import annotations

import sys

from dynamo_planner.core.extras import MissingExtraError, needs_extra


def main() -> None:
    """Run the command. Exits 0 when all went well, 1 when something failed, 2 when the input was wrong."""
    try:
        with needs_extra("cli"):
            from dynamo_planner.cli.app import app  # noqa: PLC0415
        app()
    except MissingExtraError as error:
        sys.exit(f"dynamo-planner: {error}")
