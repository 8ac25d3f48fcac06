"""`dynamo-planner profile URL` on a real llama.cpp server: what it finds out, and a load that the profile foretells."""

from __future__ import annotations

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

FACTOR = 3.0
"""What a busy machine may do to a time."""


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
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
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def test_the_profile_foretells_a_load_that_it_has_not_seen(url: str, tmp_path: Path) -> None:
    output = tmp_path / "llama.json"
    done = CliRunner().invoke(app, ["profile", url, "-o", str(output), "--minutes", "0.4"])
    assert done.exit_code == 0, done.stderr
    profile = Profile.load(output)
    assert profile.about["backend"] == "llamacpp"
    assert profile.decode.max_kv_tokens == 4096
    found = discover(url, Access())
    assert (found.limits.max_num_seqs, found.limits.max_context) == (4, 1024)
    engine = connect(url, Access(), found)
    try:
        prompts = engine.run(Burst(chain=(Prompt(300, 1),) * 5)).chain
        decode = readings(engine.run(Burst((Prompt(150, 60),) * 3)), None).decode
    finally:
        engine.close()
    ttft = float(np.median([answer.ttft_ms for answer in prompts])) - float(profile.about["offset_ms"] or 0)
    assert 1 / FACTOR < profile.prefill.ttft_ms(prompts[0].isl) / ttft < FACTOR
    (three,) = [reading for reading in decode if reading.batch == 3]
    foretold = profile.decode.step_ms(3, three.context)
    assert 1 / FACTOR < foretold / three.itl_ms < FACTOR
