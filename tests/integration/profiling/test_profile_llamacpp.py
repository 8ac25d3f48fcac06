"""`dynamo-planner profile URL` on a real llama.cpp server: what it finds out, and a load that the profile foretells."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dynamo_planner.cli.app import app
from dynamo_planner.executors.circus.ports import free_port
from dynamo_planner.mock_workers.llamacpp import LlamaOptions
from dynamo_planner.mock_workers.random_gguf import RandomModel
from dynamo_planner.profiles import Profile
from dynamo_planner.profiling.discover import discover
from dynamo_planner.profiling.engine import Burst, Prompt
from dynamo_planner.profiling.prepare import connect
from dynamo_planner.profiling.readings import readings
from dynamo_planner.sources.access import Access

pytestmark = [pytest.mark.timeout(240), pytest.mark.alone]  # an engine is judged by how long it takes

FACTORS = {"ttft": 1.5, "itl": 3.0}
"""By which factor a time may be off on an engine that has a CPU for itself, and by as much more as it lacks of it. A
step of this small model lasts 2 ms, less than a process is kept waiting for on a busy machine."""

ROUNDS = (0.1, 0.2, 0.3, 0.4)
"""Minutes after which the load is judged, so that both are measured while the machine is equally busy."""


class Judged:
    """A load that the profile has not seen, measured in turn with it."""

    def __init__(self, url: str, pid: int) -> None:
        self.ttft_ms: list[float] = []
        self.itl_ms: list[float] = []
        self.isl = self.context = 0.0
        self.cpu_s = self.wall_s = 0.0
        self.url, self._pid = url, pid

    def measure(self) -> None:
        found = discover(self.url, Access())
        assert (found.limits.max_num_seqs, found.limits.max_context) == (4, 1024)
        engine = connect(self.url, Access(), found)
        used = self._used_s()
        try:
            prompts = engine.run(Burst(chain=(Prompt(300, 1),) * 3)).chain
            decode = readings(engine.run(Burst((Prompt(150, 60),) * 3)), None).decode
        finally:
            engine.close()
        now = self._used_s()
        self.cpu_s, self.wall_s = self.cpu_s + now[0] - used[0], self.wall_s + now[1] - used[1]
        self.ttft_ms += [answer.ttft_ms for answer in prompts]
        self.isl = prompts[0].isl
        for three in (reading for reading in decode if reading.batch == 3):
            self.itl_ms.append(three.itl_ms)
            self.context = three.context

    def lack(self) -> float:
        """How many times as long as its CPU time the engine took: 1 where it had a CPU for itself."""
        return max(self.wall_s / self.cpu_s, 1.0)

    def _used_s(self) -> tuple[float, float]:
        spent = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK"), time.monotonic()


@pytest.fixture
def judged(tmp_path: Path) -> Iterator[Judged]:
    """A llama.cpp server with a random model and four slots of 1024 tokens."""
    model, port = tmp_path / "random.gguf", free_port(())
    RandomModel(width=512).write(model)
    options = LlamaOptions(port=port, model=str(model), slots=4, context_tokens=4096)
    process = subprocess.Popen(options.command(), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        while "llama.cpp on" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(0.5)
        yield Judged(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.kill()
        process.communicate()


def test_the_profile_foretells_a_load_that_it_has_not_seen(judged: Judged, tmp_path: Path) -> None:
    output = tmp_path / "llama.json"
    for minutes in ROUNDS:
        again = ["--resume"] if output.exists() else []
        done = CliRunner().invoke(app, ["profile", judged.url, "-o", str(output), "--minutes", str(minutes), *again])
        assert done.exit_code == 0, done.stderr
        judged.measure()
    profile = Profile.load(output)
    assert profile.about["backend"] == "llamacpp"
    assert profile.decode.max_kv_tokens == 4096
    ttft_ms = float(np.median(judged.ttft_ms)) - float(profile.about["offset_ms"] or 0)
    ratios = {
        "ttft": profile.prefill.ttft_ms(judged.isl) / ttft_ms,
        "itl": profile.decode.step_ms(3, judged.context) / float(np.median(judged.itl_ms)),
    }
    for what, ratio in ratios.items():
        allowed = FACTORS[what] * judged.lack()
        assert 1 / allowed < ratio < allowed, f"{ratios}, {allowed:.2f} allowed"
