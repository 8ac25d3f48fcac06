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
tokens: where these are more than the first line allows, beyond the noise, they are the arrivals, and no more than a
lower bound where requests wait, some of which may be given up as well. Within the noise they count but for what the
requests in their prefill may explain. Where more requests have left than came in, or it is not clear how many of ``A``
are in ``N``, arrivals are unknown rather than wrong. What vLLM's clients give up before a first token leaves no trace
but a queue that shrinks without first tokens; that is looked for from sample to sample, since over a window a queue
that fills hides one that was given up.

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
        waited: the most that waited at either end.
        why: why arrivals are unknown, where that is known already; else empty.
        at_least: why ``arrived`` is a lower bound, where it is; else empty.
    """

    arrived: float | None = None
    ended: float | None = None
    aborted: float = 0.0
    inside: float | None = None
    first_tokens: float | None = None
    waiting: float | None = None
    preemptions: float | None = None
    running: float = 0.0
    waited: float = 0.0
    why: str = ""
    at_least: str = ""


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
        waited=max((part.waited for part in parts), default=0.0),
        why=next((why for part in parts if (why := part.why or _why_uncounted(part))), ""),
        at_least=next((part.at_least for part in parts if part.at_least), ""),
    )


def total_flow(flows: Iterable[Flow]) -> Flow:
    """The flow of several workers at the same time."""
    parts = list(flows)
    return replace(
        sum_flows(parts), running=sum(part.running for part in parts), waited=sum(part.waited for part in parts)
    )


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
        raise UncountedError(_fewer_inside(flow))
    if min(flow.ended, flow.aborted) > 3 + MAX_AMBIGUOUS * most:
        raise UncountedError(
            f"{flow.aborted:.0f} requests were given up, and how many of them are among the {flow.ended:.0f} "
            "that ended is not counted"
        )
    return max(most, _proven(flow) - _tolerance(0.0, flow.running))


def needs_first_tokens(flow: Flow) -> bool:
    """Whether more first tokens came than requests are counted, beyond the noise. What waits is in both counts."""
    if flow.arrived is not None or flow.ended is None or flow.inside is None:
        return False
    left = flow.ended + flow.aborted
    return _proven(flow) > left + flow.inside + _tolerance(max(left, flow.first_tokens or 0.0), flow.running)


def lower_bound(flows: Iterable[Flow]) -> str:
    """Why more requests may have come than are counted, where first tokens show that clients give up and some wait that
    may have been given up as well; else empty.

    >>> lower_bound([Flow(ended=0, inside=0, first_tokens=300, waiting=0, preemptions=0, waited=60)])
    'clients give up (300 first tokens, 0 requests ended), and those that do before a first token are not counted'
    >>> lower_bound([Flow(ended=0, inside=0, first_tokens=300, waiting=0, preemptions=0, waited=0)])
    ''
    """
    flow = total_flow(flows)
    if flow.at_least or not needs_first_tokens(flow) or flow.waited <= _tolerance(0.0, 0.0):
        return flow.at_least
    return (
        f"clients give up ({flow.first_tokens:.0f} first tokens, {flow.ended:.0f} requests ended), and those that do "
        "before a first token are not counted"
    )


def _why_uncounted(flow: Flow) -> str:
    """Why requests left that no counter has: fewer are inside than ended, and fewer wait than had a first token.

    Of engines that count first tokens; the gauges of others may lag by a sample. Either witness alone may be late, or
    have requests that were preempted.

    >>> _why_uncounted(Flow(ended=20, inside=-60, first_tokens=20, waiting=-60, preemptions=0, running=40))
    '60 requests fewer are inside, 20 ended: some are uncounted, and a frontend would count them'
    """
    if flow.arrived is not None or flow.ended is None or flow.inside is None or flow.first_tokens is None:
        return ""
    most = max(flow.ended + flow.aborted + flow.inside, _proven(flow))
    return _fewer_inside(flow) if most < -_tolerance(0.0, flow.running) else ""


def _fewer_inside(flow: Flow) -> str:
    return (
        f"{-(flow.inside or 0.0):.0f} requests fewer are inside, {(flow.ended or 0.0) + flow.aborted:.0f} ended: some "
        "are uncounted, and a frontend would count them"
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
