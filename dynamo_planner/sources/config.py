"""The configuration of a source as data: what each source has to offer, shipped or not.

A source of your own is a class like this one, which a configuration names as ``my_package.my_module:MineConfig``:

>>> class MineConfig(SourceConfig):
...     rate: float
...
...     def build(self, roles, endpoints):
...         return Constant(self.rate)
>>> class Constant:
...     def __init__(self, rate):
...         self.rate = rate
...
...     def observe(self, at_s):
...         return Observation(traffic=Traffic(requests_per_s=self.rate))
>>> from dynamo_planner import Observation, Traffic
>>> MineConfig(rate=3).build({}, dict).observe(0).traffic.requests_per_s
3.0
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import SerializeAsAny

from dynamo_planner.core.component import Component, Kinds
from dynamo_planner.core.snapshot import Role
from dynamo_planner.sources.source import Source

Urls = Mapping[str, Mapping[str, str]]
"""Base URLs of workers, by pool and name."""

Endpoints = Callable[[], Urls]
"""Reports them anew."""


class SourceConfig(Component):
    """The configuration of a source: its fields, and how the source is built from them."""

    @abstractmethod
    def build(self, roles: Mapping[str, Role], endpoints: Endpoints | Urls) -> Source:
        """The source. Raises ``ValueError``, with the field first, where fields do not fit the pools.

        Args:
            roles: the role of each pool.
            endpoints: where workers serve their metrics, as the executor reports it at each step.
        """


SOURCES = Kinds(
    "source",
    SourceConfig,
    "dynamo_planner.sources",
    {
        "scrape": "dynamo_planner.sources.scraping.config:ScrapeConfig",
        "prometheus": "dynamo_planner.sources.prometheus.config:PrometheusConfig",
    },
    default="scrape",
)
"""The sources that a configuration can name: one line each. Data without a ``kind`` is about scraping."""

AnySource = Annotated[SerializeAsAny[SourceConfig], SOURCES.validator()]
"""A field that holds the configuration of a source of any kind."""
