"""The command from end to end: real arbiter, real workers, real HTTP; and what it leaves behind, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import typer
from matplotlib.image import imread
from typer.testing import CliRunner

from dynamo_planner.cli.demo import demo
from dynamo_planner.demo.summary import Summary
from dynamo_planner.runtime.decision_log import read_log
from dynamo_planner.workloads.generators import burst_and_lull
from dynamo_planner.workloads.trace import Trace

COMMAND = [
    sys.executable,
    "-c",
    # Ctrl-C counts, also where the tests run in the background of a shell, which sets it to be ignored.
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "import typer; from dynamo_planner.cli.demo import demo; typer.run(demo)",
]

WORKERS = {"dynamo_planner.mock_workers.main", "dynamo_planner.mock_workers.llamacpp"}

SERVING = {
    "aggregated": [],
    "disaggregated": ["--disaggregated"],
    "aggregated, load": ["--policy", "load"],
    "disaggregated, load": ["--disaggregated", "--policy", "load"],
    "llama.cpp": ["--engine", "llama.cpp", "--interval-s", "2", "--max-workers", "2"],
}

ALONE = pytest.mark.alone
"""llama.cpp is measured first, and the load is made for that speed."""

StartDemo = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[StartDemo]:
    """Starts demos in a directory of their own, and ends what is left of them."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        started.append(process)
        return process

    yield start
    for process in started:
        for left in family(process):
            with suppress(psutil.NoSuchProcess):
                left.kill()
        process.communicate()


@pytest.fixture
def small_burst(tmp_path: Path) -> Path:
    """20 s: 4 s of a few requests, 7 s of many, 9 s of a few again."""
    burst_and_lull(1.5, 7, seed=3, duration_s=20, length_scale=0.35).save(tmp_path / "small_burst.npz")
    return tmp_path / "small_burst.npz"


@pytest.fixture
def long_answers(tmp_path: Path) -> Path:
    """5 s with two requests per second, all alike, which take longer than it."""
    Trace(np.arange(0, 5, 0.5), np.full(10, 200), np.full(10, 1500)).save(tmp_path / "long_answers.npz")
    return tmp_path / "long_answers.npz"


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """A demo and everything that it has started."""
    with suppress(psutil.NoSuchProcess):
        return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    return []


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for one in family(process):
        with suppress(psutil.NoSuchProcess):
            if WORKERS.intersection(one.cmdline()):
                found.append(one)
    return found


def until(true: Callable[[], object], within_s: float = 40.0) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def left_over(process: subprocess.Popen[str], began: list[psutil.Process]) -> list[str]:
    """Processes and directories of a demo that is over: of those that were there, and of all its workers."""
    mark = f"demo-{process.pid}"
    running = [str(one) for one in began if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if one.environ().get("DYN_PLANNER_WORKER", "").startswith(f"{mark}/"):
                running.append(str(one))
    return running + [str(path) for path in Path(tempfile.gettempdir()).glob(f"*{mark}-*")]


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "serving", [pytest.param(each, marks=ALONE if each == "llama.cpp" else ()) for each in SERVING]
)
def test_a_trace_scales_workers_up_and_down_and_loses_nothing(
    start_demo: StartDemo, small_burst: Path, tmp_path: Path, serving: str
) -> None:
    process = start_demo("--trace", str(small_burst), "--out", "out", *SERVING[serving])
    until(lambda: workers(process))
    began = family(process)
    told, errors = process.communicate(timeout=140)
    assert process.returncode == 0, told + errors
    assert errors == ""

    summary = Summary.model_validate_json((tmp_path / "out/summary.json").read_text())
    assert (summary.lost, summary.failures) == (0, ())
    assert summary.requests == len(Trace.load(small_burst))
    assert summary.wall_s < 120
    assert list(summary.pools) == (["prefill", "decode"] if serving.startswith("disaggregated") else ["workers"])
    assert summary.worker_s < summary.static_peak_s
    assert all(0 <= pool.last <= pool.peak <= 6 for pool in summary.pools.values())

    steps = list(read_log(tmp_path / "out/decisions.jsonl", strict=True))
    assert len(steps) > 15
    changes = [outcome for step in steps for outcome in step.outcomes if outcome.status == "applied"]
    assert len(changes) == sum(pool.scale_ups + pool.scale_downs for pool in summary.pools.values())
    assert imread(tmp_path / "out/demo.png").size
    assert "20 s of small_burst (0 to 20 s at speed 1)" in told
    assert "out/demo.png" in told
    assert ("all along (for the peak), simulated" in told) == (serving != "llama.cpp")
    assert told.splitlines()[-1].startswith("run       docs/running.md")
    assert left_over(process, began) == []


@pytest.mark.timeout(100)
def test_a_worker_killed_with_requests_fails_the_demo_and_it_says_which_failed(
    start_demo: StartDemo, long_answers: Path
) -> None:
    process = start_demo("--trace", str(long_answers), "--no-picture", "--interval-s", "15")
    until(lambda: workers(process))
    began = family(process)
    assert process.stdout is not None
    told = iter(process.stdout)
    next(line for line in told if " 0/" in line and "TTFT" in line and "TTFT -" not in line)  # tokens, and no answer
    workers(process)[0].kill()
    _, errors = process.communicate(timeout=80)
    assert process.returncode == 1
    assert "requests were lost" in errors
    assert "the connection broke after its first token" in errors
    assert "the workers never scaled up and down again" in errors  # there was no time for an adjustment
    assert left_over(process, began) == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_nothing_left(
    start_demo: StartDemo, long_answers: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start_demo("--trace", str(long_answers), "--out", "out")
    until(lambda: workers(process))
    began = family(process)
    assert len(began) >= 3  # the demo, its arbiter, a worker
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert f"ended by {number.name}" in errors
    assert not (tmp_path / "out/demo.png").exists()
    assert left_over(process, began) == []


@pytest.mark.timeout(180)
def test_a_crash_in_between_leaves_nothing(start_demo: StartDemo, long_answers: Path) -> None:
    process = start_demo("--trace", str(long_answers))
    until(lambda: workers(process))
    began = family(process)
    assert process.stdout is not None
    process.stdout.close()  # what it prints next raises
    process.stdout = None
    process.communicate(timeout=120)
    assert process.returncode == 1
    assert left_over(process, began) == []


def app() -> typer.Typer:
    made = typer.Typer()
    made.command()(demo)
    return made


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--trace", "no-such-file.npz"], "no-such-file.npz"),
        (["--trace", "{trace}", "--to-s", "4", "--from-s", "4"], "must be above 0"),
        (["--trace", "{trace}", "--speed", "0"], "--speed"),
        (["--trace", "{malformed}"], "line 3"),
        (["--max-workers", "1"], "--max-workers"),
        (["--policy", "hpa"], "--policy"),
        (["--policy", "sla", "--engine", "llama.cpp"], "tells no lengths"),
        (["--engine", "vllm"], "--engine"),
        (["--engine", "llama.cpp", "--disaggregated"], "llama.cpp has no prefill and decode workers"),
        (["--interval-s", "nan"], "--interval-s"),
        (["--ttft-ms", "inf"], "must be a finite number, got inf"),
        (["--out", "{trace}"], "--out"),
        (["--from-s", "5"], "--trace"),
    ],
)
def test_wrong_input_is_told_and_nothing_is_started(
    long_answers: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    malformed = tmp_path / "malformed.csv"
    malformed.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,20,30\n2023-11-16,x,30\n")
    filled = [option.format(trace=long_answers, malformed=malformed) for option in options]
    out = [] if "--out" in filled else ["--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app(), [*filled, *out])
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_a_directory_that_cannot_be_made_is_told(long_answers: Path) -> None:
    result = CliRunner().invoke(app(), ["--trace", str(long_answers), "--out", str(long_answers / "out")])
    assert result.exit_code == 1
    assert f"{long_answers}/out" in result.output.replace("\n", "")
