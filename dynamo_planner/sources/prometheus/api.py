"""Queries to a Prometheus server, or one that speaks its HTTP API (Thanos, Mimir, VictoriaMetrics).

The API is that of Prometheus 2 and 3, ``/api/v1/query`` and ``/api/v1/query_range``. Queries go as GET, which also the
proxies let through that guard a server. What a server says in ``infos`` is about how a query is written, and ignored;
a warning means that the answer may be partial, and such an answer is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Annotated, Literal, NoReturn, TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.sources.access import Access
from dynamo_planner.sources.source import SourceError

with needs_extra("prometheus"):
    import urllib3  # noqa: F401  # so that it is this extra which is named where it is missing

from dynamo_planner.sources.fetch import FetchError, checked_url, fetch_all
from dynamo_planner.sources.series import Labels, Series

MAX_CONCURRENT = 8
"""Queries at a time; a Prometheus server takes 20, from all of its clients together."""

INFO_PREFIX = "PromQL info:"
"""A warning that begins so is about how a query is written, not about what was read (Prometheus 2.48 to 2.55)."""

MAX_MESSAGE_CHARS = 300

HINTS = {
    "401": " (access.bearer_token_file or access.basic_auth)",
    "403": " (the token may not read this)",
    "404": " (is the URL the one before /api/v1?)",
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


class _Failure(BaseModel):
    status: Literal["error"]
    error_type: str = Field(default="error", alias="errorType")
    error: str


_RESPONSE: TypeAdapter[_Success | _Failure] = TypeAdapter(Annotated[_Success | _Failure, Field(discriminator="status")])


class PrometheusApi:
    """Queries to one server, several at once.

    Args:
        url: its base URL, with the path before ``/api/v1`` if there is one.
        access: credentials, certificates and parameters; none by default.
        timeout_s: seconds for all queries of one call together.
        max_bytes: bytes of one response.
    """

    def __init__(
        self, url: str, access: Access | None = None, *, timeout_s: float = 10.0, max_bytes: int = 64 * 2**20
    ) -> None:
        self.url = checked_url(url)
        self._access = access or Access()
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes

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
        parameters = {**self._access.parameters, **when, "timeout": f"{self._timeout_s:g}s"}
        pages = fetch_all(
            {
                name: f"{self.url}/api/v1/{path}?{urlencode({**parameters, 'query': query})}"
                for name, query in queries.items()
            },
            lambda _, text: text,
            timeout_s=self._timeout_s,
            deadline_s=self._timeout_s,
            max_bytes=self._max_bytes,
            headers=self._access.sent_headers(),
            tls=self._access.tls(),
            concurrent=MAX_CONCURRENT,
        )
        answers: dict[K, T | QueryError] = {}
        for name, page in pages.items():
            try:
                answers[name] = read(page) if isinstance(page, str) else _raise_for_status(page)
            except QueryError as error:
                answers[name] = error
        failures = [answer for answer in answers.values() if isinstance(answer, QueryError)]
        if failures and len(failures) == len(answers):
            raise SourceError(f"{self.url} answered none of {len(answers)} queries: {failures[0]}") from failures[0]
        return answers


def _vector(text: str) -> Vector:
    data = _parse(text)
    if not isinstance(data, _VectorData):
        raise QueryError("it was answered with a matrix, not a vector")
    return {series.labels(): series.value[1] for series in data.result}


def _matrix(text: str) -> Matrix:
    data = _parse(text)
    if not isinstance(data, _MatrixData):
        raise QueryError("it was answered with a vector, not a matrix")
    matrix: Matrix = {}
    for series in data.result:
        labels = series.labels()
        for at_s, value in series.values:
            matrix.setdefault(at_s, {})[labels] = value
    return matrix


def _parse(text: str) -> _VectorData | _MatrixData:
    try:
        answer = _RESPONSE.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise QueryError(f"its answer cannot be parsed: {where + ': ' if where else ''}{first['msg']}") from None
    if isinstance(answer, _Failure):
        raise QueryError(_shortened(f"{answer.error_type}: {answer.error}"))
    warnings = [warning for warning in answer.warnings or () if not warning.startswith(INFO_PREFIX)]
    if warnings:
        raise QueryError(_shortened(f"its answer may be partial: {'; '.join(warnings)}"))
    return answer.data


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
