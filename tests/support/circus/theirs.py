"""A circusd that the planner did not start."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from dynamo_planner.executors.circus.client import ArbiterClient
from tests.support.circus.place import Place

CONFIG = """\
[circus]
endpoint = {endpoint}
pubsub_endpoint = ipc://{tmp}/events
check_delay = 0.5
statsd = False
"""


class Theirs:
    """A circusd that the planner did not start."""

    def __init__(self, place: Place) -> None:
        self.endpoint = f"ipc://{place.tmp}/theirs"
        self.client = ArbiterClient(self.endpoint)
        self._config = place.tmp / "theirs.ini"
        self._config.write_text(CONFIG.format(endpoint=self.endpoint, tmp=place.tmp))
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "circus.circusd", "--log-level", "ERROR", str(self._config)], start_new_session=True
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.client, "timeout_s", 15.0)
            self.client.call("list")

    def add(self, name: str, command: str, **options: Any) -> None:
        self.client.call("add", name=name, cmd=command, options=options, start=True, waiting=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def theirs(place: Place) -> Iterator[Theirs]:
    arbiter = Theirs(place)
    yield arbiter
    arbiter.client.close()
    arbiter.kill()
