"""The configuration of the source that queries Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from dynamo_planner.core.snapshot import Role
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.engines.named import WorkerVocabulary
from dynamo_planner.sources.config import Endpoints, SourceConfig, Urls
from dynamo_planner.sources.prometheus.access import Access
from dynamo_planner.sources.prometheus.scope import LabelMatchers, LabelName

if TYPE_CHECKING:
    from dynamo_planner.sources.prometheus.source import PrometheusSource


class PrometheusConfig(SourceConfig, kind="prometheus"):
    """Query a Prometheus server (extra ``prometheus``).

    ``labels`` are what all scrape targets of the model have, ``pools`` what those of each pool have besides,
    ``frontend`` what those before the pools have; ``model`` is its name where targets serve several. A label's value
    may begin with an operator of PromQL: ``{pod: "=~llama-decode-.*"}``. ``worker_label`` tells workers apart.
    ``engine`` is the name of one, or a vocabulary of your own; left out, it is detected. ``window_s`` is to be four
    scrape intervals or more.
    """

    url: str
    engine: WorkerVocabulary | None = None
    model: str | None = None
    labels: LabelMatchers = Field(default_factory=FrozenMap)
    pools: dict[str, LabelMatchers] = Field(default_factory=dict)
    frontend: LabelMatchers | None = None
    worker_label: LabelName = "instance"
    window_s: float = Field(default=60.0, gt=0)
    timeout_s: float = Field(default=10.0, gt=0)
    access: Access = Access()

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
            window_s=self.window_s,
            timeout_s=self.timeout_s,
            access=self.access,
        )
