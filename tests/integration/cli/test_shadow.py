"""``shadow``: a day that a real Prometheus server remembers, and recordings, replayed as a user would.

In that day there are two workers, and from 12:00 to 18:00 their KV cache is nearly full while requests wait.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dynamo_planner import LoadPolicy, PoolSpec, PoolStatus, Snapshot, Traffic
from dynamo_planner.sources.history import HistorySource
from tests.support.cli import planner
from tests.support.prometheus_server import backfill, line, prometheus

MIDNIGHT = 1_700_006_400
HOUR = 3600
EVERY = 60
NOON, EVENING = MIDNIGHT + 12 * HOUR, MIDNIGHT + 18 * HOUR
POLICY = [{"kind": "load", "adjustment_interval_s": 600}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("prometheus")
    moments = range(MIDNIGHT, MIDNIGHT + 24 * HOUR + 1, EVERY)

    def over(busy: float, otherwise: float) -> list[tuple[float, float]]:
        return [(at, busy if NOON <= at < EVENING else otherwise) for at in moments]

    lines: list[str] = []
    for pod in ("a", "b"):
        labels = {"namespace": "llm", "pod": pod}
        done = 0.0
        completions = []
        for at in moments:
            completions.append((at, done))
            done += EVERY * (4 if NOON <= at < EVENING else 1)
        lines += line("up", labels, [(at, 1) for at in moments])
        lines += line("vllm:num_requests_running", labels, over(8, 6))
        lines += line("vllm:num_requests_waiting", labels, over(5, 0))
        lines += line("vllm:kv_cache_usage_perc", labels, over(0.97, 0.6))
        lines += line("vllm:request_success_total", labels, completions)
    backfill(directory, lines)
    with prometheus(directory) as url:
        yield url


def written(directory: Path, data: Any, name: str = "policy.json") -> Path:
    path = directory / name
    path.write_text(json.dumps(data))
    return path


def days(since: int = MIDNIGHT, until: int = MIDNIGHT + 24 * HOUR) -> list[str]:
    return [
        "--since",
        datetime.fromtimestamp(since, UTC).isoformat(),
        "--until",
        datetime.fromtimestamp(until, UTC).isoformat(),
    ]


def test_a_day_through_prometheus(server: str, tmp_path: Path) -> None:
    where = ["--prometheus", server, "--label", "namespace=llm", "--worker-label", "pod", "--window-s", "240"]
    files: list[str | Path] = [
        "--policy",
        written(tmp_path, POLICY),
        "--out",
        tmp_path / "out",
        "--log",
        tmp_path / "log.jsonl",
    ]
    done = planner("shadow", *where, *files, *days(), "--step", "2m")
    assert done.returncode == 0, done.stderr
    assert "replica-hours there" in done.stdout
    row = next(row for row in done.stdout.splitlines() if row.strip().startswith("2023-11-15 13:00"))
    assert row.split() == ["2023-11-15", "13:00", "8", "2", "3"]
    (summary,) = json.loads((tmp_path / "out" / "summary.json").read_text()).values()
    assert summary["replica_hours_there"] == pytest.approx(48, rel=0.01)
    assert (summary["most_there"], summary["most_recommended"], summary["changes_there"]) == (2, 3, 0)
    assert (tmp_path / "out" / "shadow.png").read_bytes().startswith(b"\x89PNG")

    recorded = HistorySource.recorded(tmp_path / "log.jsonl")
    snapshots = list(recorded)
    assert len(snapshots) == 24 * 30 + 1
    ups = [each for each in LoadPolicy(adjustment_interval_s=600).replay(recorded) if each.targets.get("workers") == 3]
    assert len(ups) == pytest.approx(6 * HOUR / 600, abs=2)
    assert all(NOON <= each.at_s <= EVENING + 600 for each in ups)

    again = planner("shadow", "--history", tmp_path / "log.jsonl", *files[:4], "--no-picture")
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == {"workers": summary}


def test_pools_and_policy_of_a_configuration(server: str, tmp_path: Path) -> None:
    config = {
        "policy": POLICY,
        "executor": {"kind": "dry_run", "pools": {name: {"role": "aggregated"} for name in ("one", "two")}},
        "source": {
            "kind": "prometheus",
            "url": server,
            "worker_label": "pod",
            "window_s": 240,
            "pools": {"one": {"pod": "a"}, "two": {"pod": "b"}},
        },
    }
    path = written(tmp_path, config, "planner.json")
    done = planner("shadow", path, *days(NOON, NOON + HOUR), "--step", "5m", "--out", tmp_path, "--no-picture")
    assert done.returncode == 0, done.stderr
    summaries = json.loads((tmp_path / "summary.json").read_text())
    assert set(summaries) == {"one", "two"}
    assert {each["most_there"] for each in summaries.values()} == {1}


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["--prometheus", "http://127.0.0.1:9"], 2, "there is no policy"),
        (["--policy", "POLICY"], 2, "there is no history to replay"),
        (["--policy", "POLICY", "--prometheus", "http://127.0.0.1:9", "--since", "soon"], 2, "'soon' is neither"),
        (["--policy", "POLICY", "--prometheus", "http://127.0.0.1:9", "--step", "0s"], 2, "positive number of seconds"),
        (["--policy", "POLICY", "--prometheus", "http://127.0.0.1:9"], 1, "Connection refused"),
        (["--policy", "POLICY", "--prometheus", "SERVER", "--since", "1h"], 1, "not known of any moment"),
        (["--policy", "POLICY", "--history", "none.jsonl"], 1, "there is no such recording"),
    ],
)
def test_what_is_wrong_is_told(server: str, tmp_path: Path, arguments: list[str], code: int, problem: str) -> None:
    known = {"POLICY": str(written(tmp_path, POLICY)), "SERVER": server}
    done = planner("shadow", *(known.get(each, each) for each in arguments), "--out", tmp_path)
    assert done.returncode == code, done.stderr
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def snapshot(at_s: float) -> Snapshot:
    pool = PoolStatus(spec=PoolSpec(role="aggregated"), replicas=2, kv_usage=0.7, queued=0)
    return Snapshot(at_s=at_s, traffic=Traffic(requests_per_s=at_s), pools={"workers": pool})


def test_a_recording_is_read_in_order_with_its_older_files_and_without_what_is_broken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "past.jsonl"
    for number, times in ((2, (0, 10)), (1, (20,)), (0, (30, 40))):
        file = path.with_name(f"{path.name}.{number}") if number else path
        file.write_text("".join(snapshot(at).model_dump_json() + "\n" for at in times))
    with path.open("a") as lines:
        lines.write('{"at_s": 50, "traf\n\n{"at_s": 1, "no": "snapshot"}\n[1]\n')
    history = HistorySource.recorded(path)
    assert [each.at_s for each in history] == [0, 10, 20, 30, 40]
    assert [each.at_s for each in history] == [0, 10, 20, 30, 40], "it can be read again"
    assert [record.message.split(": ")[1].split(" ")[1] for record in caplog.records[:3]] == ["3", "5", "6"]
    assert history.observe(25).traffic.requests_per_s == 20
    assert history.observe(math.inf).traffic.requests_per_s == 40
    assert history.observe(0).pools["workers"].kv_usage == 0.7
    with pytest.raises(FileNotFoundError, match="no such recording"):
        HistorySource.recorded(tmp_path / "none")
