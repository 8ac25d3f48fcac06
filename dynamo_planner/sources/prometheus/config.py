"""The configuration of the source that queries Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from dynamo_planner.core.pool_names import PoolName
from dynamo_planner.core.snapshot import Role
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.engines.named import WorkerVocabulary
from dynamo_planner.engines.prefixed import NAME_PREFIX
from dynamo_planner.sources.access import QueryAccess
from dynamo_planner.sources.config import Endpoints, SourceConfig, Urls
from dynamo_planner.sources.prometheus.deferred import DeferredQueries
from dynamo_planner.sources.prometheus.scope import LabelMatchers, LabelName

if TYPE_CHECKING:
    from dynamo_planner.sources.prometheus.source import PrometheusSource


class PrometheusConfig(SourceConfig, kind="prometheus"):
    """Query a Prometheus server (extra ``prometheus``).

    A label's value may begin with an operator of PromQL: ``{pod: "=~llama-decode-.*"}``.

    Args:
        url: the base URL of the server.
        engine: the name of one, or a vocabulary of your own; by default it is detected for each pool.
        model: the model this is about, where targets serve several.
        labels: what all scrape targets of the model have; none by default.
        pools: what those of each pool have besides; nothing by default.
        frontend: what those of the frontends have; without it there is no frontend.
        worker_label: the label that distinguishes workers.
        prefix: what stands before the workers' own names of metrics (``ray_``); nothing by default.
        window_s: seconds over which rates and means are, four scrape intervals or more.
        timeout_s: seconds for all queries of a turn together.
        deferred: the queries of each deferrable class, where a gateway reports what waits; none by default.
        access: credentials, certificates and parameters; none by default.
    """

    url: str
    engine: WorkerVocabulary | None = None
    model: str | None = None
    labels: LabelMatchers = Field(default_factory=FrozenMap)
    pools: dict[PoolName, LabelMatchers] = Field(default_factory=dict)
    frontend: LabelMatchers | None = None
    worker_label: LabelName = "instance"
    prefix: str = Field(default="", pattern=NAME_PREFIX)
    window_s: float = Field(default=60.0, gt=0)
    timeout_s: float = Field(default=10.0, gt=0)
    deferred: dict[str, DeferredQueries] = Field(default_factory=dict)
    access: QueryAccess = QueryAccess()

    def build(self, roles: Mapping[str, Role], endpoints: Endpoints | Urls = dict) -> PrometheusSource:
        from dynamo_planner.sources.prometheus.source import PrometheusSource  # noqa: PLC0415  # needs the extra

        return PrometheusSource(
            self.url,
            roles,
            labels=self.labels,
            pools=self.pools,
            model=self.model,
            vocabulary=self.engine,
            frontend=self.frontend,
            worker_label=self.worker_label,
            prefix=self.prefix,
            window_s=self.window_s,
            timeout_s=self.timeout_s,
            deferred=self.deferred,
            access=self.access,
        )
