"""The API server for the tests of the Kubernetes backend, and a proxy in front of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kubernetes.cluster import control_plane, kubernetes
from tests.support.kubernetes.control_plane import ControlPlane
from tests.support.kubernetes.faulty_proxy import Proxy

__all__ = ["control_plane", "kubernetes"]


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[Proxy]:
    """A proxy that passes everything on until the test says otherwise."""
    between = Proxy(control_plane)
    with between.serving():
        yield between
