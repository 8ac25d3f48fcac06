"""A Dynamo service in a network of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dynamo.dynamo_service import Service, service
from tests.support.network import private_network
from tests.support.paths import ROOT

INSTALL = ROOT / "tests" / "support" / "dynamo" / "install.sh"


@pytest.fixture(scope="session")
def dynamo_python() -> str:
    """The interpreter that has Dynamo, which ``tests/run`` has installed."""
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run([INSTALL, "--find"], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        _missing(done.stderr.strip())
    return done.stdout.strip()


@pytest.fixture
def dynamo(dynamo_python: str, tmp_path: Path) -> Iterator[Service]:
    """A frontend without a worker, in a network of its own, in which the test is as well."""
    with contextlib.ExitStack() as ends:
        try:
            ends.enter_context(private_network())
        except PermissionError as error:
            _missing(f"a network of its own takes root: {error}")
        yield ends.enter_context(service(dynamo_python, tmp_path))


def _missing(why: str) -> None:
    """Skip the test; in CI, fail it."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)
