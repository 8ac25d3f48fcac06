"""`dynamo-planner profile` on a real llama.cpp server: what it finds out, and a load that the profile predicts."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dynamo_planner.cli.app import app
from dynamo_planner.executors.circus.ports import free_port
from dynamo_planner.mock_workers.llamacpp import LlamaOptions
from dynamo_planner.mock_workers.random_gguf import RandomModel
from dynamo_planner.profiles import Profile

pytestmark = [pytest.mark.timeout(240), pytest.mark.alone]  # an engine is judged by how long it takes

FACTOR = 1.2
"""By which factor a median may be off on an engine that never waits for a CPU, and by as much more as it waits."""

ROW = re.compile(r"^((?:TTFT|ITL) \S+.*), p50 .* ms +(\S+)$", re.MULTILINE)


class LlamaServer:
    """A llama.cpp server with a random model of 10 ms a step, and four slots of 1024 tokens."""

    def __init__(self, url: str, pid: int) -> None:
        self.url, self._pid = url, pid

    def busy_and_waiting_s(self) -> tuple[float, float]:
        """Seconds that its threads had a CPU, and that they waited for one."""
        used = [path.read_text().split() for path in Path(f"/proc/{self._pid}/task").glob("*/schedstat")]
        return sum(int(each[0]) for each in used) / 1e9, sum(int(each[1]) for each in used) / 1e9


@pytest.fixture
def llama(tmp_path: Path) -> Iterator[LlamaServer]:
    model, port = tmp_path / "random.gguf", free_port(())
    RandomModel(width=768, hidden=2048, layers=5).write(model)
    options = LlamaOptions(port=port, model=str(model), slots=4, context_tokens=4096)
    process = subprocess.Popen(options.command(), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        while "llama.cpp on" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.5)
        yield LlamaServer(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.kill()
        process.communicate()


def test_the_profile_predicts_a_load_that_it_was_not_measured_with(llama: LlamaServer, tmp_path: Path) -> None:
    output, lacks = tmp_path / "llama.json", []
    for arguments in (
        ["profile", llama.url, "-o", str(output), "--minutes", "0.5"],
        ["profile", "verify", llama.url, str(output), "--seconds", "15", "--within", "9"],
    ):
        before = llama.busy_and_waiting_s()
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.stderr
        busy_s, waiting_s = (now - then for now, then in zip(llama.busy_and_waiting_s(), before, strict=True))
        lacks.append(1 + waiting_s / busy_s)
    profile = Profile.load(output)
    assert profile.about["backend"] == "llamacpp"
    assert (profile.about["max_num_seqs"], profile.about["max_context"]) == (4, 1024)
    assert profile.decode.max_kv_tokens == 4096
    ratios = {what: float(ratio) for what, ratio in ROW.findall(done.stdout)}
    assert set(ratios) == {"TTFT alone", "ITL alone", "TTFT under load", "ITL under load"}
    allowed = FACTOR * max(lacks)
    assert all(1 / allowed < ratio < allowed for ratio in ratios.values()), f"{ratios}, {allowed:.2f} allowed"
