"""A Prometheus server as a source (extra ``prometheus``), now or at any time that it remembers.

In the order in which a turn goes through them:

- ``source`` -- ``PrometheusSource``: which pools there are, and their observation.
- ``promql`` -- a vocabulary as PromQL queries, and the ``Scope`` of label matchers that a pool is.
- ``api`` -- the HTTP API: instant and range queries, errors and warnings.
- ``access`` -- tokens, passwords, certificates.
- ``answers`` -- the answers of one pool as samples of its workers, handed on to ``aggregation``.

``promql`` and ``access`` need no extra, so that a configuration can be read and queries printed without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynamo_planner.core.lazy import lazy_exports

if TYPE_CHECKING:
    from dynamo_planner.sources.prometheus.source import PrometheusSource

__all__ = ["PrometheusSource"]

__getattr__ = lazy_exports(__name__, {"PrometheusSource": "source"})
