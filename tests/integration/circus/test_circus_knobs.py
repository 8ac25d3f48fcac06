"""Knobs of real processes under a real arbiter: workers are replaced one after the other, whatever happens."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from dynamo_planner import Outcome, ScaleTo, SetKnob
from dynamo_planner.engines import Knob
from dynamo_planner.executors.circus import CircusPool
from tests.support.circus.crash import POINTS
from tests.support.circus.recovery import run_planner

if TYPE_CHECKING:
    from dynamo_planner.executors.circus import CircusExecutor
    from tests.support.circus.place import Place

LIFETIME = Knob(
    name="lifetime_s", own_name="die_after_s", roles=("decode",), minimum=0, maximum=1000, trades="death for life"
)
"""A knob of the tiny worker's: with 0 it ends as soon as it is started."""


def pool_of(place: Place, **given: object) -> CircusPool:
    """Two workers of four slots each, which live long."""
    knobs = {"max_num_seqs": 4, "lifetime_s": 1000}
    options = {"replicas": 2, "engine": "vllm", "knobs": knobs, "more_knobs": (LIFETIME,), "drain_s": 0.2, **given}
    return place.pool(seqs="{max_num_seqs}", die_after_s="{lifetime_s}", **options)  # type: ignore[arg-type]


def turn(executor: CircusExecutor, value: int, knob: str = "max_num_seqs", expected: int | None = None) -> Outcome:
    (outcome,) = executor.apply([SetKnob(pool="decode", knob=knob, value=value, expected=expected)])
    return outcome


def slots(place: Place) -> list[str]:
    """The slots of each worker that runs, by its own command line."""
    return sorted(
        word for command in place.processes().values() for word in command.split() if word.startswith("seqs=")
    )


def test_workers_are_replaced_one_at_a_time_with_no_less_capacity(place: Place) -> None:
    with place.executor(pools={"decode": pool_of(place, replicas=3)}) as executor:
        place.settled(executor, decode=3)
        assert executor.knobs["decode"] == {"max_num_seqs": 4, "lifetime_s": 1000}
        outcome = turn(executor, 8, expected=4)
        assert outcome.status == "applied"
        assert outcome.message == "decode: max_num_seqs 4 -> 8, 3 workers are replaced one after the other"
        assert executor.knobs["decode"]["max_num_seqs"] == 8
        seen = []

        def done() -> bool:
            replicas = executor.observe()["decode"]
            assert replicas is not None
            seen.append((replicas.ready, replicas.starting + replicas.draining, replicas.target))
            return slots(place) == ["seqs=8"] * 3 and replicas == place.replicas(ready=3)

        place.until(done)
        assert min(ready for ready, _, _ in seen) == 3, "capacity was kept"
        assert max(moving for _, moving, _ in seen) == 1, "one at a time"
        assert {target for _, _, target in seen} == {3}
        assert turn(executor, 8).status == "unchanged"
        executor.apply([ScaleTo(pool="decode", replicas=4, expected=3)])
        place.settled(executor, decode=4)
        assert slots(place) == ["seqs=8"] * 4, "new ones are started with it too"


def test_without_a_free_gpu_one_drains_first_and_comes_back(place: Place) -> None:
    with place.executor(pools={"decode": pool_of(place, gpus=1)}, gpus=[0, 1]) as executor:
        place.settled(executor, decode=2)
        assert turn(executor, 8).status == "applied"
        fewest = []

        def done() -> bool:
            replicas = executor.observe()["decode"]
            assert replicas is not None
            fewest.append(replicas.ready)
            assert replicas.target == 2
            return slots(place) == ["seqs=8"] * 2 and replicas == place.replicas(ready=2)

        place.until(done)
        assert min(fewest) == 1
        assert sorted(gpu for info in executor.workers() for gpu in info.gpus) == [0, 1]


def test_the_only_replica_is_not_taken_away(place: Place) -> None:
    with place.executor(pools={"decode": pool_of(place, replicas=1, gpus=1)}, gpus=[0]) as executor:
        place.settled(executor, decode=1)
        outcome = turn(executor, 8)
        assert outcome.status == "refused"
        assert outcome.message == "decode has one replica, and no GPU is free for a second that takes its place"
        assert slots(place) == ["seqs=4"]


def test_values_with_which_a_worker_does_not_live_are_taken_back(place: Place) -> None:
    with place.executor(pools={"decode": pool_of(place)}) as executor:
        place.settled(executor, decode=2)
        before = place.worker_pids()
        assert turn(executor, 0, "lifetime_s").status == "applied"
        place.until(lambda: executor.observe() and executor.knobs["decode"]["lifetime_s"] == 1000)
        place.settled(executor, decode=2)
        assert place.worker_pids() == before, "no worker that served was touched"
        again = turn(executor, 0, "lifetime_s")
        assert again.status == "refused"
        assert "a worker with {'lifetime_s': 0} did not become ready: ended before it was ready" in again.message
        assert "it is not tried again for" in again.message
        assert turn(executor, 8).status == "applied"


def test_scaling_goes_on_while_workers_are_replaced(place: Place) -> None:
    with place.executor(pools={"decode": pool_of(place, replicas=1, ready_after_s=0.5)}) as executor:
        executor.apply([ScaleTo(pool="decode", replicas=3)])
        place.settled(executor, decode=3)
        turn(executor, 8)
        executor.observe()
        down, up = executor.apply([ScaleTo(pool="decode", replicas=1, expected=3)])[0], None
        assert down.status == "applied"
        place.until(lambda: executor.observe() and slots(place) == ["seqs=8"])
        place.settled(executor, decode=1)
        turn(executor, 16)
        executor.observe()
        (up,) = executor.apply([ScaleTo(pool="decode", replicas=2, expected=1)])
        assert up.status == "applied"
        place.until(lambda: executor.observe() and slots(place) == ["seqs=16"] * 2)
        place.settled(executor, decode=2)


def test_what_was_set_outlives_the_planner_until_the_configuration_says_otherwise(place: Place) -> None:
    executor = place.executor(pools={"decode": pool_of(place)}).start()
    place.settled(executor, decode=2)
    turn(executor, 8)
    executor.detach()
    executor = place.executor(pools={"decode": pool_of(place)}).start()
    place.until(lambda: executor.observe() and slots(place) == ["seqs=8"] * 2)
    place.settled(executor, decode=2)
    executor.detach()
    edited = pool_of(place, knobs={"max_num_seqs": 6, "lifetime_s": 1000})
    with place.executor(pools={"decode": edited}) as executor:
        place.until(lambda: executor.observe() and slots(place) == ["seqs=6"] * 2)
        place.settled(executor, decode=2)


@pytest.mark.parametrize("where", [f"{point}:{passed}" for point in POINTS for passed in (4, 7, 10)])
def test_after_a_kill_in_the_middle_the_next_start_finishes_or_undoes_it(place: Place, where: str) -> None:
    pools = {"decode": pool_of(place)}
    planner = run_planner(place, ["start", {"decode.max_num_seqs": 8}, {"decode": 2}], crash_at=where, pools=pools)
    planner.communicate(timeout=60)
    assert planner.returncode in {-signal.SIGKILL, 0}
    with place.executor(pools=pools) as executor:
        place.until(lambda: executor.observe() and len(set(slots(place))) == 1 and len(slots(place)) == 2)
        place.settled(executor, decode=2)
        assert slots(place) == [f"seqs={executor.knobs['decode']['max_num_seqs']}"] * 2
        assert sorted(info.pid or 0 for info in executor.workers()) == place.worker_pids()
    assert place.processes() == {}


def test_what_cannot_be_is_refused_with_the_mend(place: Place) -> None:
    with place.executor(pools={"decode": pool_of(place)}) as executor:
        place.settled(executor, decode=2)
        assert turn(executor, 0).message == "max_num_seqs is 0; it must be from 1 to 4096: take 1"
        assert "has no knob 'n_batch' in its configuration" in turn(executor, 8, "n_batch").message
        assert "is 4, not 5, which this was decided for" in turn(executor, 8, expected=5).message
        assert slots(place) == ["seqs=4"] * 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"knobs": {"max_num_seqs": 4}}, r"there is no knob 'max_num_seqs'; there are none"),
        ({"engine": "vllm", "knobs": {"max_num_seqs": 0}}, r"max_num_seqs is 0; it must be from 1 to 4096: take 1"),
        ({"engine": "vllm", "knobs": {"max_num_seqs": 4}}, r"max_num_seqs changes nothing: put \{max_num_seqs\} into"),
        ({"engine": "tgi"}, "engine is 'tgi'; the engines with knobs are vllm, sglang, trtllm, llamacpp, dynamo"),
        ({"env": {"SEQS": "{max_num_seqs}"}}, r"unknown placeholder \{max_num_seqs\}"),
    ],
)
def test_a_configuration_that_cannot_be_is_named(place: Place, fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        place.pool(**fields)  # type: ignore[arg-type]
