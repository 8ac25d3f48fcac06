"""The API server for the tests of the Kubernetes backend, and a proxy in front of it."""

from __future__ import annotations

from tests.support.kubernetes.cluster import control_plane, kubernetes, proxy

__all__ = ["control_plane", "kubernetes", "proxy"]
