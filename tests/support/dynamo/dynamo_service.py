"""A Dynamo service on this machine: its frontend, and pools of its mocker workers for the Circus executor.

The frontend finds workers by files, and speaks with them over TCP: there is no etcd and no NATS. The model has no
weights; a mocker keeps the time of an engine, its queue and its KV cache, and makes words up.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dynamo_planner import PoolSpec, Role
from dynamo_planner.demo.load import MODEL
from dynamo_planner.executors.circus import CircusPool
from dynamo_planner.executors.circus.ports import free_port
from tests.support.model import write_model

READY_WITHIN_S = 120.0


@dataclass(frozen=True)
class Service:
    """A frontend that runs, and how workers of it are started."""

    url: str
    python: str
    directory: Path

    def pool(self, role: Role, options: Mapping[str, str | int | float]) -> CircusPool:
        """A pool of up to three mockers with these options."""
        modes = {"aggregated": "agg", "prefill": "prefill", "decode": "decode"}
        flags = {
            "model-path": self.directory / "model",
            "model-name": MODEL,
            "disaggregation-mode": modes[role],
            **options,
        }
        return CircusPool(
            spec=PoolSpec(role=role, gpus=0, max_replicas=3, startup_s=3),
            command=[
                *(self.python, "-m", "dynamo.mocker"),
                *(f"--{name}={value}" for name, value in flags.items()),
            ],
            env={**_environment(self.directory), "DYN_SYSTEM_PORT": "{port}"},
            startup_timeout_s=READY_WITHIN_S,
            graceful_timeout_s=30.0,
        )

    def wait_until_it_serves(self) -> None:
        """Wait until a request is answered: the frontend tells of a model before it knows where its workers are."""
        ends_s = time.monotonic() + READY_WITHIN_S
        body = json.dumps({"model": MODEL, "prompt": "w3", "max_tokens": 1}).encode()
        request = urllib.request.Request(f"{self.url}/v1/completions", body, {"Content-Type": "application/json"})
        while True:
            try:
                urllib.request.urlopen(request, timeout=5).close()
            except OSError as error:
                assert time.monotonic() < ends_s, f"{error}: {self.log()}"
                time.sleep(0.1)
            else:
                return

    def log(self) -> str:
        """What the frontend has logged."""
        return (self.directory / "frontend.log").read_text()


@contextmanager
def service(python: str, directory: Path) -> Iterator[Service]:
    """A frontend without a worker yet; ``directory`` is for its files."""
    write_model(directory / "model")
    (directory / "discovery").mkdir()
    port = free_port(())
    with (directory / "frontend.log").open("wb") as log:
        frontend = subprocess.Popen(
            [
                python,
                "-m",
                "dynamo.frontend",
                "--http-host=127.0.0.1",
                f"--http-port={port}",
                "--router-mode=least-loaded",
            ],
            env={"PATH": os.defpath, **_environment(directory)},
            stdout=log,
            stderr=log,
        )
        try:
            yield Service(f"http://127.0.0.1:{port}", python, directory)
        finally:
            frontend.kill()
            frontend.wait()


def _environment(directory: Path) -> dict[str, str]:
    return {
        "HOME": str(directory),
        "HF_HUB_OFFLINE": "1",
        "DYN_DISCOVERY_BACKEND": "file",
        "DYN_FILE_KV": str(directory / "discovery"),
        "DYN_REQUEST_PLANE": "tcp",
        "DYN_EVENT_PLANE": "zmq",
        "DYN_TCP_RPC_HOST": "127.0.0.1",
        "DYN_SYSTEM_HOST": "127.0.0.1",
        "DYN_SYSTEM_USE_ENDPOINT_HEALTH_STATUS": '["generate"]',  # or /health never says that it is ready
    }
