"""What was there and what a policy would have recommended, moment by moment, and the sums of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from dynamo_planner.core.decision import Decision
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import Snapshot

MOST_REASONS = 3


@dataclass(frozen=True)
class Moment:
    """One pool at one moment: the replicas that were there, and those that were recommended.

    ``there`` is ``None`` where it is unknown how many there were. While the policy is ``held``, what it recommended
    last stands for as long as what was there does not change, and otherwise what is there.
    """

    at_s: float
    there: int | None
    recommended: int | None
    held: bool = False


@dataclass
class ReplayRecord:
    """All that came of a replay; ``reasons`` counts, for each pool, why it was held."""

    load: list[tuple[float, float | None]] = field(default_factory=list)
    pools: dict[str, list[Moment]] = field(default_factory=dict)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, snapshot: Snapshot, decision: Decision) -> None:
        """Note one decision."""
        self.load.append((snapshot.at_s, snapshot.traffic.requests_per_s))
        for name, pool in snapshot.pools.items():
            there = pool.replicas.target if pool.replicas is not None else None
            recommended = decision.targets.get(name)
            moments = self.pools.setdefault(name, [])
            if recommended is not None:
                moments.append(Moment(snapshot.at_s, there, recommended))
            else:
                stands = moments and moments[-1].there == there
                moments.append(Moment(snapshot.at_s, there, moments[-1].recommended if stands else there, held=True))
                own = [f"{each.code}: {each.message}" for each in decision.reasons if each.pool in {None, name}]
                self.reasons.setdefault(name, Counter()).update(own[-1:])

    @property
    def observed(self) -> bool:
        """Whether at any time it was known of any pool how many replicas there were."""
        return any(moment.there is not None for moments in self.pools.values() for moment in moments)


def replay(policy: Policy, snapshots: Iterable[Snapshot]) -> Iterator[tuple[Snapshot, Decision]]:
    """Each snapshot with what the policy would have recommended then; what it recommended before did not happen."""
    state = None
    for snapshot in snapshots:
        decision = policy.decide(snapshot, state)
        state = decision.state
        yield snapshot, decision


@dataclass(frozen=True)
class PoolReplay:
    """One pool over all that was replayed.

    ``hours`` are those in which it is known how many replicas there were; the shares are of them. Changes are how often
    the number was another than the one before.
    """

    hours: float
    replica_hours_there: float
    replica_hours_recommended: float
    most_there: int
    most_recommended: int
    changes_there: int
    changes_recommended: int
    share_more: float
    share_fewer: float
    share_held: float
    held_most_for: tuple[str, ...]


def summarize(recording: ReplayRecord) -> dict[str, PoolReplay]:
    """The sums of each pool of which anything is known.

    >>> moments = [Moment(0, 2, 2), Moment(3600, 2, 3), Moment(7200, 4, 4, held=True)]
    >>> summary = summarize(ReplayRecord(pools={"workers": moments}))["workers"]
    >>> summary.replica_hours_there, summary.replica_hours_recommended
    (8.0, 9.0)
    """
    return {
        name: _summary(known, recording.reasons.get(name, Counter()))
        for name, moments in recording.pools.items()
        if (known := _weighted(moments))
    }


def _weighted(moments: list[Moment]) -> list[tuple[float, int, int, bool]]:
    """Seconds, replicas there and recommended, and whether it was held, of each moment at which the former are known.

    A moment lasts until the next one; the last one as long as the one before, and none longer than twice the median,
    since what was in a gap is not known.
    """
    gaps = [after.at_s - before.at_s for before, after in pairwise(moments)]
    usual = sorted(gaps)[len(gaps) // 2] if gaps else 0.0
    lengths = [min(gap, 2 * usual) for gap in gaps] + [gaps[-1] if gaps else 0.0]
    return [
        (length, each.there, each.recommended, each.held)
        for length, each in zip(lengths, moments, strict=True)
        if each.there is not None and each.recommended is not None
    ]


def _summary(known: list[tuple[float, int, int, bool]], reasons: Counter[str]) -> PoolReplay:
    there, recommended = [each[1] for each in known], [each[2] for each in known]
    whole_s = sum(each[0] for each in known) or 1.0
    return PoolReplay(
        hours=sum(each[0] for each in known) / 3600,
        replica_hours_there=sum(length * count for length, count, _, _ in known) / 3600,
        replica_hours_recommended=sum(length * count for length, _, count, _ in known) / 3600,
        most_there=max(there),
        most_recommended=max(recommended),
        changes_there=_changes(there),
        changes_recommended=_changes(recommended),
        share_more=sum(length for length, had, wanted, _ in known if wanted > had) / whole_s,
        share_fewer=sum(length for length, had, wanted, _ in known if wanted < had) / whole_s,
        share_held=sum(length for length, _, _, held in known if held) / whole_s,
        held_most_for=tuple(reason for reason, _ in reasons.most_common(MOST_REASONS)),
    )


def _changes(counts: list[int]) -> int:
    return sum(before != after for before, after in pairwise(counts))
