"""A turn of scraping: every page of every target, the engine of each, and the history of what it reported."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

from dynamo_planner.core.snapshot import Role
from dynamo_planner.engines.prefixed import with_prefix
from dynamo_planner.engines.registry import detect, frontend_vocabularies, worker_vocabularies
from dynamo_planner.engines.vocabulary import Vocabulary, describe_engines, page_of_router
from dynamo_planner.sources.aggregation.models import select_model
from dynamo_planner.sources.aggregation.sample import WorkerSample, read_page
from dynamo_planner.sources.aggregation.window import WorkerHistory
from dynamo_planner.sources.fetch import FetchError, PageText, fetch_all
from dynamo_planner.sources.scraping.arrived import describe_failure, describe_page, unpacked
from dynamo_planner.sources.scraping.exposition import names_on
from dynamo_planner.sources.scraping.json_page import looks_like_json, parse_json
from dynamo_planner.sources.scraping.request import DEFAULT_PAGE, PageRequest
from dynamo_planner.sources.scraping.spelled_page import SpelledPages
from dynamo_planner.sources.series import Page

ROLES: tuple[Role, ...] = get_args(Role)

WANTS_MODEL = 400
"""The status with which a server of several models answers where it is not said which one is meant."""


ROUNDS = 3
"""How often pages are fetched in a turn, each time those that only the ones before showed."""


class ScrapeTarget(NamedTuple):
    """A worker of a pool, or a frontend.

    Args:
        pool: the name of its pool; ``"frontend"`` for a frontend.
        name: its own name.
        url: its base URL, without a slash at the end.
        role: the role of its pool.
    """

    pool: str
    name: str
    url: str
    role: Role = "aggregated"


@dataclass(frozen=True)
class ScrapeLimits:
    """Limits of one turn.

    Args:
        timeout_s: seconds for one page.
        window_s: how far back a window reaches, in seconds.
        deadline_s: seconds for all pages; by default twice ``timeout_s``.
    """

    timeout_s: float = 2.0
    window_s: float = 30.0
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value}")


@dataclass
class _Pages:
    """The pages of one target in one turn.

    Args:
        page: the series of all that were read.
        read: the paths of those.
        failed: for each of the others, why; and what of those that were read could not be.
        arrived: of those that were read and have none of the metrics, what came instead.
    """

    page: Page = field(default_factory=dict)
    read: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    arrived: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _ParsedPage:
    """A page as series; what was too long of it; and what came, where it has none of the metrics."""

    page: Page
    refused: str = ""
    arrived: str = ""


class Scraper:
    """Scrapes targets, turn by turn, and keeps what each of them reported.

    Args:
        among: the vocabularies of the engines that a target may be.
        limits: of one turn.
        model: leaves out series of other models.
        request: how pages are requested; by default as the engine has them.

    Attributes:
        histories: by target. One that is not listed any more is kept while it is in the window.
    """

    def __init__(
        self,
        among: Sequence[Vocabulary],
        limits: ScrapeLimits,
        model: str | None = None,
        request: PageRequest | None = None,
    ) -> None:
        self._request = request or PageRequest()
        self._among = tuple(with_prefix(each, self._request.prefix) for each in among)
        self._limits = limits
        self._model = model
        self._names = frozenset[str]().union(*(each.names() for each in self._among))
        self._own_names = {each.engine: each.own_names() for each in self._among}
        self._every_own_name = frozenset[str]().union(*self._own_names.values())
        self._text_pages = SpelledPages(self._among)
        self._for_role = {(each.engine, role): each.for_role(role) for each in self._among for role in ROLES}
        self._engines: dict[ScrapeTarget, Vocabulary] = {}
        self._by_model: set[ScrapeTarget] = set()
        self._previous_s: float | None = None
        self.histories: dict[ScrapeTarget, WorkerHistory] = {}

    def scrape(self, listed: Sequence[ScrapeTarget], at_s: float) -> dict[ScrapeTarget, str]:
        """Scrape the targets and keep what they report. Returns, for each that could not be read, why.

        Where ``at_s`` is before that of the last turn, windows start anew.
        """
        if self._previous_s is not None and at_s < self._previous_s:
            self.histories, self._previous_s = {}, None
        fetched = self._fetch_all(listed)
        self._drop_departed(fetched, at_s)
        causes = {}
        for target, pages in fetched.items():
            history = self.histories.setdefault(target, WorkerHistory(target.name, self._limits.window_s))
            try:
                history.add(self._sample(target, pages, at_s), self._previous_s)
                history.observed = True
            except ValueError as error:
                causes[target] = str(error)
        self._previous_s = at_s
        return causes

    def engine_of(self, target: ScrapeTarget) -> str | None:
        """The engine of a target of the last turn; ``None`` where it is not known."""
        return self._engines[target].engine if target in self._engines else None

    def _fetch_all(self, listed: Sequence[ScrapeTarget]) -> dict[ScrapeTarget, _Pages]:
        """Fetch every page of every target: the first, the same where it wants the model, and those of its engine."""
        due_s = time.monotonic() + self._deadline_s
        fetched = {target: _Pages() for target in listed}
        for number in range(ROUNDS):
            self._fetch(fetched, due_s - time.monotonic() if number else self._deadline_s)
            for target, pages in fetched.items():
                engine = self._detect(pages.page, self._engines.get(target))
                if engine is not None:
                    self._engines[target] = engine
        return fetched

    @property
    def _deadline_s(self) -> float:
        return 2 * self._limits.timeout_s if self._limits.deadline_s is None else self._limits.deadline_s

    def _fetch(self, fetched: Mapping[ScrapeTarget, _Pages], deadline_s: float) -> None:
        """Fetch the pages that were not yet tried."""
        urls = {
            (target, path): self._request.url(
                target.url, path, self._model_parameters(target) if target in self._by_model else None
            )
            for target, pages in fetched.items()
            for path in self._paths_of(target)
            if path not in pages.read and path not in pages.failed
        }
        if not urls:
            return
        results = fetch_all(
            urls,
            self._parse,
            timeout_s=self._limits.timeout_s,
            deadline_s=deadline_s,
            max_bytes=self._request.max_bytes,
            headers=self._request.access.sent_headers(),
            tls=self._request.access.tls(),
            shorten=self._shorten,
        )
        for (target, path), found in results.items():
            pages = fetched[target]
            if isinstance(found, FetchError):
                if found.status == WANTS_MODEL and target not in self._by_model and self._model_parameters(target):
                    self._by_model.add(target)  # and it is asked again
                else:
                    pages.failed[path] = describe_failure(found)
                continue
            pages.page |= found.page
            pages.read.append(path)
            if found.refused:
                pages.failed[f"{path} in part"] = found.refused
            if found.arrived:
                pages.arrived.append(found.arrived)

    def _parse(self, key: tuple[ScrapeTarget, str], text: str) -> _ParsedPage:
        _, path = key
        content_type, shortened = (text.content_type, text.shortened) if isinstance(text, PageText) else ("", False)
        text = unpacked(text)
        refused: set[str] = set()
        if "\n" not in text and "\\n" in text:
            raise ValueError(describe_page(text, content_type))
        if looks_like_json(text):
            page = parse_json(text, path, self._names, self._request.max_series)
        else:
            page = self._text_pages.parse(text, self._request.max_series, refused)
        why = []
        if shortened:
            why.append(f"the page is longer than {self._request.max_bytes} bytes (max_bytes): only gauges were read")
        if refused:
            most = self._request.max_series
            why.append(f"there are more than {most} series of {' and of '.join(sorted(refused))} (max_series)")
        if not page.keys().isdisjoint(self._every_own_name):
            return _ParsedPage(page, "; ".join(why))
        return _ParsedPage(page, "; ".join(why), describe_page(text, content_type) + _whose(names_on(text)))

    def _shorten(self, lines: bytes) -> bytes:
        """The lines of gauges."""
        return lines if lines[:1] in (b"[", b"{", b'"') else self._text_pages.gauge_lines(lines)

    def _model_parameters(self, target: ScrapeTarget) -> dict[str, str]:
        """What a server of several models is asked for, by the engines that this one may be."""
        among = (self._engines[target],) if target in self._engines else self._among
        wanted = {each.model_parameter: self._model for each in among}
        return {name: model for name, model in wanted.items() if name is not None and model is not None}

    def _paths_of(self, target: ScrapeTarget) -> tuple[str, ...]:
        if target in self._engines:
            return self._engines[target].pages
        return self._among[0].pages if len(self._among) == 1 else (DEFAULT_PAGE,)

    def _drop_departed(self, listed: Iterable[ScrapeTarget], at_s: float) -> None:
        """Drop the targets that are neither listed any more nor in the window."""
        current = frozenset(listed)
        for target, history in self.histories.items():
            history.observed, history.listed = False, target in current
        self.histories = {
            target: history for target, history in self.histories.items() if history.listed or history.recent(at_s)
        }
        self._engines = {target: engine for target, engine in self._engines.items() if target in current}
        self._by_model &= current

    def _sample(self, target: ScrapeTarget, pages: _Pages, at_s: float) -> WorkerSample:
        """The sample of a target. Raises :class:`ValueError`, with its URL and the cause, where there is none."""
        if not pages.read:
            raise ValueError("; ".join(pages.failed.values()))
        engine = self._detect(pages.page, self._engines.get(target))
        try:
            if engine is None:
                if repeated := page_of_router(pages.page, self._among):
                    raise ValueError(repeated)
                came = "".join(f": {each}" for each in dict.fromkeys(pages.arrived))
                raise ValueError(f"its page has none of the metrics of {describe_engines(self._among)}{came}")
            vocabulary = self._for_role[engine.engine, target.role]
            page, others = select_model(pages.page, vocabulary.model_label, self._model)
            return read_page(page, vocabulary, at_s, pages.failed, others)
        except ValueError as error:
            raise ValueError("; ".join((f"{target.url}: {error}", *pages.failed.values()))) from None

    def _detect(self, page: Page, known: Vocabulary | None) -> Vocabulary | None:
        """The vocabulary that a page is in, the one that is known first."""
        for each in (known, *self._among) if known else self._among:
            if page.keys() & self._own_names[each.engine] and page.keys().isdisjoint(each.repeated_by):
                return each
        return None


def _whose(names: Set[str]) -> str:
    """Whose page it is instead, and where to list it; empty where that is not known."""
    worker, frontend = (detect(names, each().values()) for each in (worker_vocabularies, frontend_vocabularies))
    if worker is not None:
        return f"; it is {worker.engine}'s: list it among the workers"
    return "" if frontend is None else f"; it is that of {frontend.engine}: list it under source.frontend"
