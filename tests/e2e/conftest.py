"""The API server for the tests of whole planners on Kubernetes, and a proxy in front of it."""

from __future__ import annotations

from tests.support.kubernetes.cluster import control_plane, proxy

__all__ = ["control_plane", "proxy"]
