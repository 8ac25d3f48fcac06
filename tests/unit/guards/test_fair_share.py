"""How GPUs are shared between pools: counts worked by hand, a GPU a replica where nothing else is said."""

from __future__ import annotations

import pytest

from dynamo_planner.guards.fair_share import Claim, filled_up, share, step


def claim(
    name: str,
    present: int,
    wanted: int,
    load: float,
    *,
    least: int = 1,
    gpus: int = 1,
    there: int = 0,
    draining: int = 0,
) -> Claim:
    return Claim(name, gpus, present, max(there, present), draining, least, wanted, load)


@pytest.mark.parametrize(
    ("claims", "max_gpus", "counts"),
    [
        ([claim("a", 1, 3, 2.5), claim("b", 1, 2, 1.2)], 5, (3, 2)),  # all fits
        # a at 2.5, then b at 1.3 before a at 1.25
        ([claim("a", 1, 3, 2.5), claim("b", 1, 2, 1.3)], 4, (2, 2)),
        # anew it would be (2, 2), where a has 1.5, no tenth less than the 1.6 of b: what they have is kept
        ([claim("a", 3, 3, 3.0), claim("b", 1, 3, 1.6)], 4, (3, 1)),
        ([claim("a", 3, 3, 2.0), claim("b", 1, 3, 1.1)], 4, (3, 1)),  # just a tenth: 1.0 and 1.1
        ([claim("a", 3, 3, 2.0), claim("b", 1, 3, 1.11)], 4, (2, 2)),
        ([claim("a", 5, 2, 2.0), claim("b", 1, 5, 1.0)], 6, (2, 4)),  # none keeps more than it wants
        ([claim("a", 1, 5, 5.0, least=3), claim("b", 1, 1, 1.0)], 4, (3, 1)),
        ([claim("a", 1, 4, 9.0, gpus=4), claim("b", 1, 3, 1.0)], 7, (1, 3)),  # what does not fit is passed over
        ([claim("a", 1, 4, 4.0), claim("b", 1, 4, 4.0)], 5, (3, 2)),  # equal pools by name
        ([claim("a", 0, 4, 4.0, least=0, gpus=0), claim("b", 1, 4, 4.0)], 2, (4, 2)),  # what needs no GPU gets all
        ([claim("a", 2, 3, 3.0, least=2), claim("b", 2, 3, 3.0, least=2)], 3, (2, 2)),  # the least does not fit
        ([claim("a", 2, 3, 3.0, least=2), claim("b", 2, 3, 3.0, least=2)], 4, (2, 2)),
        # of pools with less than their least each is served before one that has it
        ([claim("a", 0, 3, 0.1, least=2), claim("b", 3, 4, 9.0, least=0)], 4, (2, 2)),
    ],
)
def test_shares(claims: list[Claim], max_gpus: int, counts: tuple[int, int]) -> None:
    assert share(claims, max_gpus) == dict(zip("ab", counts, strict=True))


@pytest.mark.parametrize(
    ("claims", "goal", "max_gpus", "counts"),
    [
        ([claim("a", 3, 2, 2.0), claim("b", 2, 3, 3.0)], (2, 3), 5, (2, 2)),  # the GPU of a is not free yet
        ([claim("a", 3, 2, 2.0), claim("b", 2, 3, 3.0)], (2, 3), 6, (2, 3)),
        ([claim("a", 2, 2, 2.0, draining=1), claim("b", 2, 3, 3.0)], (2, 3), 5, (2, 2)),  # nor is what drains
        ([claim("a", 2, 2, 2.0, draining=1), claim("b", 2, 3, 3.0)], (2, 3), 6, (2, 3)),
        ([claim("a", 2, 4, 3.0, there=4), claim("b", 2, 3, 3.0)], (4, 2), 6, (4, 2)),  # what is there is paid already
        ([claim("a", 2, 4, 3.0), claim("b", 2, 3, 2.0)], (4, 3), 6, (4, 2)),  # 1.5, and 1.0 by name before b at 1.0
        ([claim("a", 2, 3, 3.0, gpus=2), claim("b", 2, 3, 2.0, gpus=3)], (3, 3), 12, (3, 2)),
    ],
)
def test_a_step_towards_a_share(
    claims: list[Claim], goal: tuple[int, int], max_gpus: int, counts: tuple[int, int]
) -> None:
    assert step(claims, dict(zip("ab", goal, strict=True)), max_gpus) == dict(zip("ab", counts, strict=True))


@pytest.mark.parametrize(
    ("claims", "most", "min_gpus", "counts"),
    [
        ([claim("a", 4, 2, 0.5), claim("b", 1, 1, 9.0)], (9, 9), 5, (4, 1)),  # falls are undone before b is raised
        ([claim("a", 4, 2, 0.5), claim("b", 1, 1, 9.0)], (3, 9), 5, (3, 2)),
        ([claim("a", 2, 2, 3.0), claim("b", 1, 1, 2.0)], (9, 9), 4, (2, 2)),  # 1.5 and 2.0 a replica
        ([claim("a", 2, 2, 1.0), claim("b", 0, 0, 3.0, least=0)], (9, 9), 3, (2, 1)),  # none counts as one
        ([claim("a", 1, 1, 9.0, gpus=0, least=0), claim("b", 1, 1, 1.0)], (9, 9), 3, (1, 3)),
        ([claim("a", 1, 1, 2.0, gpus=2), claim("b", 1, 1, 1.0)], (9, 9), 5, (2, 1)),
        ([claim("a", 1, 1, 2.0), claim("b", 1, 1, 1.0)], (2, 1), 9, (2, 1)),  # no room for more
        ([claim("a", 1, 1, 1.0), claim("b", 1, 1, 1.0)], (9, 9), 3, (2, 1)),  # equal ones by name
    ],
)
def test_what_is_raised_to_a_least(
    claims: list[Claim], most: tuple[int, int], min_gpus: int, counts: tuple[int, int]
) -> None:
    assert filled_up(claims, dict(zip("ab", most, strict=True)), min_gpus) == dict(zip("ab", counts, strict=True))
