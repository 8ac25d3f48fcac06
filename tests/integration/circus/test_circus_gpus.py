"""Each GPU has one worker at a time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dynamo_planner import ScaleTo
from dynamo_planner.executors import ExecutorError

if TYPE_CHECKING:
    from dynamo_planner.executors.circus import CircusExecutor
    from tests.support.circus.place import Place


def environment(executor: CircusExecutor, name: str) -> dict[str, str]:
    (info,) = [info for info in executor.workers() if info.name.endswith(name)]
    line = next(line for line in info.log.read_text().splitlines() if line.startswith("environment "))
    found: dict[str, str] = json.loads(line.removeprefix("environment "))
    return found


def test_each_replica_has_its_own_gpus(place: Place) -> None:
    pools = {
        "decode": place.pool(replicas=2, gpus=2, show_env=1, gpu_argument="{gpus}"),
        "prefill": place.pool(replicas=1, gpus=1, show_env=1),
        "router": place.pool(replicas=1, gpus=0, show_env=1),
    }
    with place.executor(pools=pools, gpus=[2, 3, 10, 9, 7]) as executor:
        place.settled(executor, decode=2, prefill=1, router=1)
        visible = {
            name: environment(executor, name)["CUDA_VISIBLE_DEVICES"]
            for name in ("decode", "decode_1", "prefill", "router")
        }
        assert visible == {"decode": "2,3", "decode_1": "10,9", "prefill": "7", "router": ""}
        assert environment(executor, "decode")["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert "gpu_argument=10,9" in executor.workers()[1].log.read_text()
        assert [info.gpus for info in executor.workers()] == [(2, 3), (10, 9), (7,), ()]


def test_a_gpu_is_free_only_when_its_process_is_gone(place: Place) -> None:
    with place.executor(pools={"decode": place.pool(gpus=1, drain_s=1.0, replicas=2)}, gpus=[0, 1]) as executor:
        place.settled(executor, decode=2)
        assert executor.apply([ScaleTo(pool="decode", replicas=1)])[0].status == "applied"
        (outcome,) = executor.apply([ScaleTo(pool="decode", replicas=2, expected=1)])
        assert outcome.status == "failed"
        assert outcome.message == "no GPU is free for 1 of 1 new replicas: each needs 1, and 0 of 2 are free"
        assert executor.observe()["decode"].target == 1  # type: ignore[union-attr]
        place.settled(executor, decode=1)
        assert executor.apply([ScaleTo(pool="decode", replicas=2, expected=1)])[0].status == "applied"
        assert [info.gpus for info in executor.workers()] == [(0,), (1,)]


def test_as_many_as_there_are_gpus_for(place: Place) -> None:
    with place.executor(pools={"decode": place.pool(gpus=2, replicas=0)}, gpus=range(5)) as executor:
        (outcome,) = executor.apply([ScaleTo(pool="decode", replicas=4, expected=0)])
        assert outcome.status == "failed"
        assert outcome.message == (
            "decode: 0 -> 2 replicas and not 4: "
            "no GPU is free for 2 of 4 new replicas: each needs 2, and 5 of 5 are free"
        )
        place.settled(executor, decode=2)
        assert executor.apply([ScaleTo(pool="decode", replicas=2, expected=0)])[0].status == "unchanged"


def test_more_gpus_than_there_are_is_refused_before_anything_starts(place: Place) -> None:
    pools = {"decode": place.pool(gpus=4, replicas=2), "prefill": place.pool(gpus=1, replicas=1)}
    with pytest.raises(ValueError, match=r"need 9 GPUs \(decode 2 x 4, prefill 1 x 1\) and there are 8"):
        place.executor(pools=pools, gpus=range(8))
    with pytest.raises(ValueError, match="must be different"):
        place.executor(pools=pools, gpus=[0, 0])
    assert not place.state_dir.exists()


def test_without_a_driver_there_are_no_gpus(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    executor = place.executor(pools={"decode": place.pool(gpus=1)})
    with pytest.raises(ExecutorError, match=r"need 1 GPUs \(decode 1 x 1\) and there are 0"):
        executor.start()
    assert place.processes() == {}


def test_namespaces_of_one_state_directory_share_the_gpus(place: Place) -> None:
    pools = {"decode": place.pool(gpus=1, replicas=1)}
    with place.executor(pools=pools, gpus=range(3)) as first:
        second = place.executor("-b", pools=pools, gpus=range(3)).start()
        third = place.executor("-c", pools={"decode": place.pool(gpus=2)}, gpus=range(3))
        assert [info.gpus for executor in (first, second) for info in executor.workers()] == [(0,), (1,)]
        with pytest.raises(ExecutorError, match="each needs 2, and 1 of 3 are free"):
            third.start()
        assert not place.state_dir.joinpath(f"{place.namespace}-c.json").exists()
        second.detach()
        (outcome,) = first.apply([ScaleTo(pool="decode", replicas=3)])
        assert "1 of 2 new replicas" in outcome.message, "the worker of a planner that is away keeps its GPU"
        second.start()
        second.close()
        assert first.apply([ScaleTo(pool="decode", replicas=3)])[0].status == "applied"
        assert sorted(info.gpus for info in first.workers()) == [(0,), (1,), (2,)]
