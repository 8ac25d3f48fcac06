"""How the metrics pages of workers and frontends are requested, where that differs from what their engine does.

>>> request = PageRequest(scheme="https", path="/llm/metrics", access=Access(parameters={"model": "qwen"}))
>>> request.url("http://10.0.0.7:8000", "/metrics"), request.url("http://10.0.0.7:8000", "/slots", {"verbose": "1"})
('https://10.0.0.7:8000/llm/metrics?model=qwen', 'https://10.0.0.7:8000/slots?verbose=1&model=qwen')
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict
from urllib.parse import urlencode

from pydantic import Field

from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.engines.prefixed import NAME_PREFIX
from dynamo_planner.engines.vocabulary import PagePath
from dynamo_planner.sources.access import Access

DEFAULT_PAGE = "/metrics"
"""The page that is fetched first from a target whose engine is not known yet."""


Scheme = Literal["http", "https"]


class RequestOptions(TypedDict, total=False):
    """The fields of a :class:`PageRequest`, as arguments of a source."""

    access: Access
    path: str | Mapping[str, str]
    scheme: Scheme | None
    prefix: str
    max_bytes: int
    max_series: int


class PageRequest(Frozen):
    """How pages are requested. Each field is optional.

    Args:
        access: credentials, certificates, and what is sent with each request (``access.parameters``: the query).
        path: in place of ``/metrics``, the path of the metrics page; or for several pages of the engine, the path of
            each in place of its own (``{"/slots": "/llm/slots"}``).
        scheme: ``http`` or ``https``, in place of that of the base URLs.
        prefix: what stands before the engine's own names of metrics (``ray_``).
        max_bytes: bytes of one page. Of a longer one the gauges are read, and nothing else.
        max_series: series of one metric on one page. One with more is unknown; the others are read.
    """

    access: Access = Access()
    path: PagePath | ReadOnly[PagePath, PagePath] = Field(default_factory=FrozenMap)
    scheme: Scheme | None = None
    prefix: str = Field(default="", pattern=NAME_PREFIX)
    max_bytes: int = Field(default=16 * 2**20, gt=0)
    max_series: int = Field(default=100_000, gt=0)

    @classmethod
    def of(cls, options: RequestOptions) -> PageRequest:
        """From the arguments of a source. Raises :class:`ValueError`."""
        return cls.model_validate(options)

    def options(self) -> RequestOptions:
        """The fields as arguments of a source."""
        return {
            "access": self.access,
            "path": self.path,
            "scheme": self.scheme,
            "prefix": self.prefix,
            "max_bytes": self.max_bytes,
            "max_series": self.max_series,
        }

    def url(self, base: str, page: str, parameters: Mapping[str, str] | None = None) -> str:
        """The URL of an engine's page at a base URL; of ``parameters`` those count that ``access`` does not have."""
        paths = {DEFAULT_PAGE: self.path} if isinstance(self.path, str) else self.path
        path = paths.get(page, page)
        query = urlencode({**(parameters or {}), **self.access.parameters})
        whole = base + path + (("&" if "?" in path else "?") + query if query else "")
        return whole if self.scheme is None else f"{self.scheme}://{whole.partition('://')[2]}"
