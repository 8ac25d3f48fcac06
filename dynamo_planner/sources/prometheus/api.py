"""Queries to a Prometheus server, or one that speaks its HTTP API (Thanos, Mimir, VictoriaMetrics).

The API is that of Prometheus 2 and 3, ``/api/v1/query`` and ``/api/v1/query_range``. Queries go as GET, which also the
proxies let through that guard a server; those that are too long for the address of a request go as POST.

An answer that may be partial is an error of its own. Servers say so with a warning (Prometheus, Thanos, Mimir, M3) or
with ``isPartial`` (VictoriaMetrics). What is about how a query is written (``PromQL info: ...``) is ignored.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Mapping
from email.utils import parsedate_to_datetime
from typing import Annotated, Literal, NamedTuple, NoReturn, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.sources.access import Access
from dynamo_planner.sources.source import SourceError

with needs_extra("prometheus"):
    import urllib3  # noqa: F401  # so that it is this extra which is named where it is missing

from dynamo_planner.sources.fetch import FetchError, PageText, checked_url, fetch_all
from dynamo_planner.sources.series import Labels, Series

MAX_CONCURRENT = 8
"""Queries at a time; a Prometheus server takes 20, from all of its clients together."""

MAX_GET_CHARS = 4000
"""A longer request goes as POST: nginx and Linkerd refuse an address of more than 8 KB, others one of half of it."""

NO_POST = frozenset({403, 404, 405, 501})
"""The statuses with which a proxy refuses a POST that might let a GET through."""

INFO_PREFIX = "PromQL info:"
"""A warning that begins so is about how a query is written, not about what was read (Prometheus 2.48 to 2.55)."""

MIN_DEADLINE_S = 0.1

MAX_MESSAGE_CHARS = 300

HINTS = {
    "401": " (access.bearer_token_file or access.basic_auth)",
    "403": " (the token may not read this)",
    "404": " (is the URL the one before /api/v1?)",
    "414": " (long queries are posted: let POST to it pass)",
}
"""What to look at, by the status that was answered."""

Vector = Series
"""An instant vector: a value for each set of labels, at one moment."""

Matrix = dict[float, Vector]
"""Instant vectors by their time (Unix seconds)."""

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class QueryError(Exception):
    """A query has no answer that could be used; the message says why."""


class PartialError(QueryError):
    """An answer that may be partial.

    Args:
        message: what the server says.
        answer: what it answered all the same, at one moment.
    """

    def __init__(self, message: str, answer: Vector) -> None:
        super().__init__(message)
        self.answer = answer


_TimedValue = tuple[float, float]


class _LabelledSeries(BaseModel):
    metric: dict[str, str]

    def labels(self) -> Labels:
        return tuple(sorted(self.metric.items()))


class _InstantSeries(_LabelledSeries):
    value: _TimedValue


class _RangeSeries(_LabelledSeries):
    values: list[_TimedValue]


class _VectorData(BaseModel):
    result_type: Literal["vector"] = Field(alias="resultType")
    result: list[_InstantSeries]


class _MatrixData(BaseModel):
    result_type: Literal["matrix"] = Field(alias="resultType")
    result: list[_RangeSeries]


class _Success(BaseModel):
    status: Literal["success"]
    data: Annotated[_VectorData | _MatrixData, Field(discriminator="result_type")]
    warnings: list[str] | None = None
    infos: list[str] | None = None
    is_partial: bool | None = Field(default=None, alias="isPartial")


class _Failure(BaseModel):
    status: Literal["error"]
    error_type: str = Field(default="error", alias="errorType")
    error: str


_RESPONSE: TypeAdapter[_Success | _Failure] = TypeAdapter(Annotated[_Success | _Failure, Field(discriminator="status")])


class ServerTime(NamedTuple):
    """The clocks of a server and of the planner at the same moment, in Unix seconds.

    Args:
        server_s: the server's, in whole seconds.
        planner_s: the planner's.
    """

    server_s: float
    planner_s: float


class PrometheusApi:
    """Queries to one server, several at once.

    Args:
        url: its base URL, with the path before ``/api/v1`` if there is one.
        access: credentials, certificates and parameters; none by default.
        timeout_s: seconds for all queries of one call together.
        max_bytes: bytes of one response.

    Attributes:
        server_time: the server's clock and the planner's at the last answer; ``None`` where the server does not say.
    """

    def __init__(
        self, url: str, access: Access | None = None, *, timeout_s: float = 10.0, max_bytes: int = 64 * 2**20
    ) -> None:
        self.url = checked_url(url)
        self._access = access or Access()
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self.server_time: ServerTime | None = None

    def instant(self, queries: Mapping[K, str], at_s: float) -> dict[K, Vector | QueryError]:
        """Instant queries at ``at_s``, by keys of the caller's.

        Raises :class:`SourceError` where none was answered.
        """
        return self._query("query", queries, {"time": f"{at_s:.3f}"}, _vector)

    def range(
        self, queries: Mapping[K, str], start_s: float, end_s: float, step_s: float
    ) -> dict[K, Matrix | QueryError]:
        """Range queries from ``start_s`` to ``end_s``, both included, every ``step_s``, by keys of the caller's.

        Raises :class:`SourceError` where none was answered.
        """
        span = {"start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": f"{step_s:.3f}"}
        return self._query("query_range", queries, span, _matrix)

    def _query(
        self, path: str, queries: Mapping[K, str], when: Mapping[str, str], read: Callable[[str], T]
    ) -> dict[K, T | QueryError]:
        until_s = time.monotonic() + self._timeout_s
        base, own = f"{self.url}/api/v1/{path}", urlencode(self._access.parameters)
        forms = {
            name: urlencode({**when, "timeout": f"{self._timeout_s:g}s", "query": query})
            for name, query in queries.items()
        }
        urls = {name: f"{base}?{own}{'&' if own else ''}{form}" for name, form in forms.items()}
        posted = {name: form for name, form in forms.items() if len(urls[name]) > MAX_GET_CHARS}
        pages = self._fetch(urls | dict.fromkeys(posted, f"{base}?{own}" if own else base), posted, until_s)
        again = {name: urls[name] for name in posted if getattr(pages[name], "status", 0) in NO_POST}
        pages |= self._fetch(again, {}, until_s)
        answers: dict[K, T | QueryError] = {}
        for name, page in pages.items():
            try:
                answers[name] = read(page) if isinstance(page, str) else _raise_for_status(page)
            except QueryError as error:
                answers[name] = error
        failures = [answer for answer in answers.values() if isinstance(answer, QueryError)]
        if failures and len(failures) == len(answers) and not any(isinstance(each, PartialError) for each in failures):
            raise SourceError(f"{self.url} answered none of {len(answers)} queries: {failures[0]}") from failures[0]
        return answers

    def _fetch(self, urls: Mapping[K, str], forms: Mapping[K, str], until_s: float) -> dict[K, str | FetchError]:
        if not urls:
            return {}
        return fetch_all(
            urls,
            self._read,
            timeout_s=self._timeout_s,
            deadline_s=max(MIN_DEADLINE_S, until_s - time.monotonic()),
            max_bytes=self._max_bytes,
            headers=self._access.sent_headers(),
            tls=self._access.tls(),
            concurrent=MAX_CONCURRENT,
            forms=forms,
        )

    def _read(self, _: object, text: str) -> str:
        if isinstance(text, PageText) and text.date:
            with contextlib.suppress(ValueError, TypeError):  # a date that is none
                self.server_time = ServerTime(parsedate_to_datetime(text.date).timestamp(), time.time())
        return text


def _vector(text: str) -> Vector:
    data, partial = _parse(text)
    if not isinstance(data, _VectorData):
        raise QueryError("it was answered with a matrix, not a vector")
    vector = {series.labels(): series.value[1] for series in data.result}
    if partial:
        raise PartialError(partial, vector)
    return vector


def _matrix(text: str) -> Matrix:
    data, partial = _parse(text)
    if not isinstance(data, _MatrixData):
        raise QueryError("it was answered with a vector, not a matrix")
    if partial:
        raise PartialError(partial, {})
    matrix: Matrix = {}
    for series in data.result:
        labels = series.labels()
        for at_s, value in series.values:
            matrix.setdefault(at_s, {})[labels] = value
    return matrix


def _parse(text: str) -> tuple[_VectorData | _MatrixData, str]:
    """What was answered, and why it may be partial."""
    try:
        answer = _RESPONSE.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise QueryError(f"its answer cannot be parsed: {where + ': ' if where else ''}{first['msg']}") from None
    if isinstance(answer, _Failure):
        raise QueryError(_shortened(f"{answer.error_type}: {answer.error}"))
    warnings = [warning for warning in answer.warnings or () if not warning.startswith(INFO_PREFIX)]
    warnings += [info for info in answer.infos or () if "partial" in info.lower()]
    if answer.is_partial:
        warnings.append("the server says isPartial, so that a part of its storage did not answer")
    partial = _shortened(f"its answer may be partial: {'; '.join(warnings)}")
    return answer.data, f"{partial}; see which of its stores do not answer" if warnings else ""


def _raise_for_status(error: FetchError) -> NoReturn:
    """Raise :class:`QueryError` for a response other than 200, with the server's own words where it has some."""
    try:
        answer = _RESPONSE.validate_json(error.body)
    except ValidationError:
        hint = HINTS.get(next((status for status in HINTS if f"answered {status}," in str(error)), ""), "")
        raise QueryError(f"{error}{hint}") from error
    if isinstance(answer, _Failure):
        raise QueryError(_shortened(f"{error}: {answer.error_type}: {answer.error}")) from error
    raise QueryError(str(error)) from error


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_MESSAGE_CHARS else f"{text[:MAX_MESSAGE_CHARS]}..."
