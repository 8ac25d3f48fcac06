"""The files of a measuring session: what was measured so far, and the profile of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from dynamo_planner.config.problems import ConfigError
from dynamo_planner.core.values import Frozen, KnobValue
from dynamo_planner.profiling.experiments import Domain
from dynamo_planner.profiling.measured import Measured


class SessionFile(Frozen):
    """What a session leaves for the next one.

    Args:
        url: the endpoint.
        domain: where the curves are measured.
        measured: what was measured.
    """

    url: str
    domain: Domain
    measured: Measured


def beside(output: Path) -> Path:
    """The file of the session whose profile goes to ``output``.

    >>> beside(Path("a/llama.json")).name
    'llama.measured.json'
    """
    return output.with_name(f"{output.stem}.measured.json")


def save(session: SessionFile, path: Path) -> None:
    """Write a session, all or nothing."""
    part = path.with_name(path.name + ".part")
    part.write_text(session.model_dump_json(indent=1), encoding="utf-8")
    os.replace(part, path)  # noqa: PTH105 - over what is there


def load(path: Path) -> SessionFile:
    """Read a session. Raises :class:`ConfigError`."""
    try:
        return SessionFile.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}: measure without --resume"]) from error
    except ValidationError as error:
        raise ConfigError([f"{path}: is no measuring session: measure without --resume"]) from error


def about(measured: Measured, told: Mapping[str, KnobValue | None]) -> dict[str, KnobValue | None]:
    """What a profile says about how it came to be: when, and how sure it is."""
    facts: dict[str, KnobValue | None] = {name: value for name, value in told.items() if value not in {None, ""}}
    facts["measured_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    facts["engine_s"] = round(measured.spent_s, 1)
    facts["offset_ms"] = round(measured.offset_ms, 2)
    for curve, error in measured.errors.items():
        facts[f"{curve}_error_median"], facts[f"{curve}_error_p95"] = round(error.median, 4), round(error.p95, 4)
    return facts
