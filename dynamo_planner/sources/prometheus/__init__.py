"""A Prometheus server as a source (extra ``prometheus``), now or at any time that it remembers.

In the order in which a turn goes through them:

- ``config`` -- the source as data, which builds it.
- ``source`` -- ``PrometheusSource``: the scrape targets of each pool, a turn, and the past.
- ``scope`` -- the label matchers of a pool, and the PromQL selectors that they make.
- ``promql`` -- an engine's vocabulary as PromQL queries, made of ``expressions``. ``query_keys`` -- what each gives.
- ``api`` -- the HTTP API: instant and range queries, errors and warnings.
- ``detection`` -- which engine the targets of a pool are of.
- ``copies`` -- the same process scraped several times. ``instead`` -- what there is where nothing is picked.
- ``deferred`` -- what a gateway says of the deferrable requests that it holds back, by the user's own queries.
- ``clock`` -- the server's clock beside the planner's.
- ``flows`` -- arrivals from the answers about each worker, and whose counters are believed.
- ``buckets`` -- the buckets of a histogram.
- ``pool_answers`` -- what is known of a pool at one moment.
- ``answers`` -- the answers about one pool as histories of its workers, handed on to ``aggregation``.
- ``model_answers`` -- the observation, or a snapshot of the past, from the answers about all pools.

``config``, ``scope``, ``deferred`` and ``promql`` need no extra, so that a configuration can be read without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynamo_planner.core.lazy import lazy_exports

if TYPE_CHECKING:
    from dynamo_planner.sources.prometheus.source import PrometheusSource

__all__ = ["PrometheusSource"]

__getattr__, __dir__ = lazy_exports(__name__, {"PrometheusSource": "source"})
