"""Arrivals by conservation: what came in is what went out by every door, and by how much what is inside has grown.

=======  ===============================================================================================================
``N``    requests that ended, as the engine counts them
``A``    requests that were given up. Those that ran are in ``N`` as well, those that waited are not
``dI``   the change of requests in the worker, wherever they wait
``F``    first tokens
``dW``   the change of requests that wait
``P``    preemptions: each puts a request with a first token back among those that wait
=======  ===============================================================================================================

    N + max(A - N, 0) + dI  <=  arrivals  <=  N + A + dI
    F + dW - P              <=  arrivals

The second line has its own witnesses. vLLM does not count requests that clients give up, but it counted their first
tokens: where these are more than the first line allows, beyond the noise, they are the arrivals. Where more requests
have left than came in, or it is not clear how many of ``A`` are in ``N``, arrivals are unknown rather than wrong. What
vLLM's clients give up before a first token leaves no trace but a queue that shrinks without first tokens.

>>> arrivals_of(Flow(ended=50, inside=2))
52.0
>>> arrivals_of(Flow(ended=0, inside=0, first_tokens=300, waiting=0, preemptions=0, running=80))  # all given up later
300
>>> arrivals_of(Flow(ended=10, inside=-60))  # doctest: +ELLIPSIS
Traceback (most recent call last):
    ...
dynamo_planner.sources.aggregation.arrivals.UncountedError: 60 requests fewer are inside, 10 ended: some ...
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

MAX_AMBIGUOUS = 0.1
"""The share of arrivals of which it may be unclear whether they are counted twice."""


class UncountedError(Exception):
    """Requests come or go that nothing counts; the message says by which numbers."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Requests through one worker over some time; ``None`` where unknown.

    Args:
        arrived: as the engine counts them at the door, where it does.
        ended: ``N``.
        aborted: ``A``; 0 where an engine does not count them.
        inside: ``dI``.
        first_tokens: ``F``.
        waiting: ``dW``.
        preemptions: ``P``.
        running: the most that ran at either end, of which some may have no first token yet.
        why: why arrivals are unknown, where that is known already; else empty.
    """

    arrived: float | None = None
    ended: float | None = None
    aborted: float = 0.0
    inside: float | None = None
    first_tokens: float | None = None
    waiting: float | None = None
    preemptions: float | None = None
    running: float = 0.0
    why: str = ""


def sum_flows(flows: Iterable[Flow]) -> Flow:
    """The flow of one worker over several intervals, one after the other."""
    parts = list(flows)
    return Flow(
        arrived=add_up(part.arrived for part in parts),
        ended=add_up(part.ended for part in parts),
        aborted=sum(part.aborted for part in parts),
        inside=add_up(part.inside for part in parts),
        first_tokens=add_up(part.first_tokens for part in parts),
        waiting=add_up(part.waiting for part in parts),
        preemptions=add_up(part.preemptions for part in parts),
        running=max((part.running for part in parts), default=0.0),
        why=next((part.why for part in parts if part.why), ""),
    )


def total_flow(flows: Iterable[Flow]) -> Flow:
    """The flow of several workers at the same time."""
    parts = list(flows)
    return replace(sum_flows(parts), running=sum(part.running for part in parts))


def arrivals_of(flow: Flow, *, by_first_tokens: bool = False) -> float | None:
    """How many requests came; ``None`` where no counter shows it. Raises :class:`UncountedError`.

    Args:
        flow: of one worker or of several.
        by_first_tokens: whether first tokens count wherever they are more, since those of all workers together do.
    """
    if flow.why:
        raise UncountedError(flow.why)
    if flow.arrived is not None:
        return flow.arrived
    if flow.ended is None or flow.inside is None:
        return None
    most = flow.ended + flow.aborted + flow.inside
    if by_first_tokens or needs_first_tokens(flow):
        return max(most, _proven(flow))
    if most < -_tolerance(0.0, flow.running):
        raise UncountedError(
            f"{-flow.inside:.0f} requests fewer are inside, {flow.ended + flow.aborted:.0f} ended: some are "
            "uncounted, and a frontend would count them"
        )
    if min(flow.ended, flow.aborted) > 3 + MAX_AMBIGUOUS * most:
        raise UncountedError(
            f"{flow.aborted:.0f} requests were given up, and how many of them are among the {flow.ended:.0f} "
            "that ended is not counted"
        )
    return most


def needs_first_tokens(flow: Flow) -> bool:
    """Whether more first tokens came than requests are counted, beyond the noise."""
    if flow.arrived is not None or flow.ended is None or flow.inside is None:
        return False
    most, proven = flow.ended + flow.aborted + flow.inside, _proven(flow)
    return proven > most + _tolerance(max(most, proven), flow.running)


def lower_bound(flows: Iterable[Flow]) -> str:
    """Why more requests may have come than are counted, where first tokens show that clients give up; else empty.

    >>> lower_bound([Flow(ended=0, inside=0, first_tokens=300, waiting=0, preemptions=0)])
    'clients give up (300 first tokens, 0 requests ended), and those that do before a first token are not counted'
    """
    flow = total_flow(flows)
    if not needs_first_tokens(flow):
        return ""
    return (
        f"clients give up ({flow.first_tokens:.0f} first tokens, {flow.ended:.0f} requests ended), and those that do "
        "before a first token are not counted"
    )


def _proven(flow: Flow) -> float:
    """The arrivals that first tokens prove; none where they are unknown."""
    if flow.first_tokens is None or flow.waiting is None:
        return -math.inf
    if flow.preemptions is None:
        return flow.first_tokens + min(flow.waiting, 0.0)
    return flow.first_tokens + flow.waiting - flow.preemptions


def _tolerance(requests: float, running: float) -> float:
    """A disagreement up to which counts are taken for equal.

    Three requests of an engine's step in between, a twentieth for windows that are extrapolated, and a fifth of those
    that run, which may be in their prefill.
    """
    return 3 + 0.05 * max(requests, 0.0) + 0.2 * running


def add_up(values: Iterable[float | None]) -> float | None:
    """The sum; ``None`` where one of the values is."""
    total = 0.0
    for value in values:
        if value is None:
            return None
        total += value
    return total
