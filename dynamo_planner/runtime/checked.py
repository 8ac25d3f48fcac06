"""Checks of what an executor and a policy return, which may be anybody's code."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from dynamo_planner.core.decision import Decision, Outcome, Reason
from dynamo_planner.executors import ReportsTroubles

logger = logging.getLogger(__name__)


def checked_mapping(what: str, value: Any, *types: type) -> Any:
    """A mapping that an executor returned, checked to be from names to values of these types."""
    for name, entry in value.items():
        if not isinstance(name, str) or not isinstance(entry, types):
            raise TypeError(f"{what} of the executor has {name!r}: {entry!r}, which is no {types[0].__name__}")
    return value


def checked_outcomes(value: Iterable[Any]) -> tuple[Outcome, ...]:
    """The outcomes that an executor returned."""
    outcomes = tuple(value)
    for outcome in outcomes:
        if not isinstance(outcome, Outcome):
            raise TypeError(f"apply returned {outcome!r}, which is no Outcome")
    return outcomes


def checked_troubles(executor: ReportsTroubles) -> tuple[Reason, ...]:
    """What an executor reports to last, also where it could not be read; nothing where even that fails."""
    try:
        troubles = tuple(executor.troubles)
    except Exception:
        logger.exception("the executor could not report its troubles")
        return ()
    return tuple(trouble for trouble in troubles if isinstance(trouble, Reason))


def checked_decision(value: Any) -> Decision:
    """The decision that a policy returned."""
    if not isinstance(value, Decision):
        raise TypeError(f"decide returned {value!r}, which is no Decision")
    return value
