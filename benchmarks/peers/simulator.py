"""Dynamo's offline simulator as a peer to compare with: an environment of its own, and jobs for it.

The environment is made from PyPI when it is first needed, in the user's cache directory (``DYNAMO_PEER`` names another
place): ``ai-dynamo-runtime`` and numpy, nothing else. Both sides of a comparison get the same requests and step times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynamo_planner.profiles import Profile
from dynamo_planner.simulator.engine.step_time import Line
from dynamo_planner.workloads.trace import Trace

VERSION = "1.6.1"
MOCKER = Path(__file__).with_name("mocker.py")
BLOCK_TOKENS = 512


def interpreter() -> Path:
    """The Python of the environment, which is made if it is not there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = Path(os.environ.get("DYNAMO_PEER") or cache / "dynamo_planner" / f"dynamo-runtime-{VERSION}")
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        print(f"making an environment with ai-dynamo-runtime {VERSION} in {place}", flush=True)
        venv.create(place, with_pip=True, clear=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", f"ai-dynamo-runtime=={VERSION}", "numpy>=2"]
        subprocess.run(pip, check=True)
        (place / "complete").touch()
    return python


@dataclass(frozen=True)
class MockerTiming:
    """How the mocker takes steps: what the prompts take alone, and what the tokens take alone, one after the other.

    Prompts follow the measured TTFT, in straight lines between the points; tokens the four costs that fit the profile.
    """

    profile: Profile

    def prefill_ms(self, tokens: Any) -> Any:
        points = self.profile.prefill_points
        return np.interp(tokens, points.isl, points.ttft_ms)

    def decode_ms(self, batch: Any, kv_tokens: Any) -> Any:
        costs = self.profile.costs
        return costs.base_ms + costs.ms_per_request * batch + costs.ms_per_kv_token * kv_tokens

    def line(self, prefill_tokens: int, num_decode: int, kv_tokens: int) -> Line:
        prompts = float(self.prefill_ms(prefill_tokens)) if prefill_tokens else 0.0
        tokens = self.decode_ms(num_decode, kv_tokens) if num_decode else 0.0
        return Line(max(prompts + tokens, 1e-6), self.profile.costs.ms_per_kv_token, np.inf)

    def save(self, path: Path) -> None:
        """As the mocker reads it: a curve over prompt tokens, and a grid over KV tokens and contexts."""
        points = self.profile.prefill_points
        isl = np.unique(np.concatenate([np.geomspace(min(points.isl), max(points.isl), 300), points.isl]))
        kv = np.linspace(0, self.profile.decode.max_kv_tokens, 400)
        context = np.geomspace(16, 262_144, 400)
        batch = np.maximum(1.0, kv[:, None] / context)
        columns = {"prefill_isl": isl, "prefill_ttft_ms": self.prefill_ms(isl), "decode_active_kv_tokens": kv}
        np.savez(path, decode_context_length=context, decode_itl=self.decode_ms(batch, kv[:, None]), **columns)


@dataclass(frozen=True)
class Ran:
    """What the simulator made of a job: per request in the order of arrival, and the CPU seconds that it took."""

    ttft_ms: np.ndarray
    itl_ms: np.ndarray
    took_s: float


def simulate(trace: Trace, profile: Profile, fleets: list[dict[str, int]], limits: dict[str, int]) -> list[Ran]:
    """Serve the trace with each of the fleets (``prefill`` and ``decode``, or ``workers``), on one core."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        MockerTiming(profile).save(directory / "timing.npz")
        write_mooncake(trace, directory / "trace.jsonl")
        shared = {
            "trace": str(directory / "trace.jsonl"),
            "timing": str(directory / "timing.npz"),
            "gpus": profile.decode_points.gpus,
            "kv_tokens": int(profile.decode.max_kv_tokens),
            **limits,
        }
        jobs = [{**shared, **fleet, "out": str(directory / f"{number}.npz")} for number, fleet in enumerate(fleets)]
        (directory / "jobs.json").write_text(json.dumps(jobs))
        command = [str(interpreter()), str(MOCKER), str(directory / "jobs.json")]
        subprocess.run(command, check=True, env={**os.environ, "DYN_LOG": "error"}, stdout=sys.stderr)
        return [_read(Path(str(job["out"]))) for job in jobs]


def write_mooncake(trace: Trace, path: Path) -> None:
    """As Mooncake's traces are; no two requests share a block, so that no prefix cache has a part in it."""
    block = 0
    with path.open("w") as file:
        for arrival_s, isl, osl in zip(trace.arrival_s, trace.isl, trace.osl, strict=True):
            blocks = -(-int(isl) // BLOCK_TOKENS)
            ids = list(range(block, block + blocks))
            block += blocks
            row = {"timestamp": arrival_s * 1e3, "input_length": int(isl), "output_length": int(osl), "hash_ids": ids}
            file.write(json.dumps(row) + "\n")


def _read(path: Path) -> Ran:
    with np.load(path) as columns:
        return Ran(columns["ttft_ms"], columns["itl_ms"], float(columns["took_s"]))
