"""The API server for the tests of the Kubernetes backend."""

from tests.kubernetes.cluster import control_plane, kubernetes

__all__ = ["control_plane", "kubernetes"]
