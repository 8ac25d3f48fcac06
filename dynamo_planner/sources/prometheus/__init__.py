"""A Prometheus server as a source (extra ``prometheus``)."""

from typing import TYPE_CHECKING

from dynamo_planner.core.lazy import lazy_exports

if TYPE_CHECKING:
    from dynamo_planner.sources.prometheus.source import PrometheusSource

__getattr__ = lazy_exports(__name__, {"PrometheusSource": "source"})

__all__ = ["PrometheusSource"]
