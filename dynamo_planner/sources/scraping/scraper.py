"""Asking workers for their pages, turn by turn: which engine each of them is, and what each has told so far."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, get_args

from dynamo_planner.core.snapshot import Role
from dynamo_planner.engines.vocabulary import Vocabulary, describe_engines
from dynamo_planner.sources.aggregation.sample import WorkerSample, read_page, select_model
from dynamo_planner.sources.aggregation.window import WorkerHistory
from dynamo_planner.sources.fetch import FetchError, fetch_all
from dynamo_planner.sources.scraping.exposition import parse_page
from dynamo_planner.sources.scraping.json_page import looks_like_json, parse_json
from dynamo_planner.sources.series import Page

ROLES: tuple[Role, ...] = get_args(Role)

FIRST_PAGE = "/metrics"
"""What a worker is asked for whose engine is not known yet."""


class Worker(NamedTuple):
    """Whom to ask: a worker of a pool, or a frontend."""

    pool: str
    name: str
    url: str
    role: Role = "aggregated"


@dataclass(frozen=True)
class Limits:
    """How long is waited for a page and for all of them, how large a page may be, and how far back a window reaches."""

    timeout_s: float = 2.0
    window_s: float = 30.0
    deadline_s: float | None = None
    max_bytes: int = 8 * 2**20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number, got {value}")


@dataclass
class _Answer:
    """What came back from one worker: what its pages say, which of them do, and why others do not."""

    page: Page = field(default_factory=dict)
    read: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Scraper:
    """Asks workers that speak one of ``among``; ``model`` leaves out series of other models.

    ``tracks`` is what each worker did so far; those that are not listed any more are kept while they are in the window.
    """

    def __init__(self, among: Sequence[Vocabulary], limits: Limits, model: str | None = None) -> None:
        self._among = tuple(among)
        self._limits = limits
        self._model = model
        self._names = frozenset[str]().union(*(each.names() for each in self._among))
        self._own_names = {each.engine: each.own_names() for each in self._among}
        self._for_role = {(each.engine, role): each.for_role(role) for each in self._among for role in ROLES}
        self._engines: dict[Worker, Vocabulary] = {}
        self._previous_s: float | None = None
        self.tracks: dict[Worker, WorkerHistory] = {}

    def scrape(self, listed: Sequence[Worker], at_s: float) -> dict[Worker, str]:
        """Ask every worker, keep what they tell, and say why the others did not.

        Where ``at_s`` is before that of the last turn, windows start anew.
        """
        if self._previous_s is not None and at_s < self._previous_s:
            self.tracks, self._previous_s = {}, None
        asked = self._ask(listed)
        self._forget(asked, at_s)
        causes = {}
        for worker, answer in asked.items():
            track = self.tracks.setdefault(worker, WorkerHistory(worker.name, self._limits.window_s))
            try:
                track.add(self._read(worker, answer, at_s), self._previous_s)
                track.observed = True
            except ValueError as error:
                causes[worker] = str(error)
        self._previous_s = at_s
        return causes

    def _ask(self, listed: Sequence[Worker]) -> dict[Worker, _Answer]:
        """Every page of every worker; one whose engine was not known is asked for the others in a second round."""
        ends_s = time.monotonic() + self._deadline_s
        answers = {worker: _Answer() for worker in listed}
        self._fetch(answers, self._deadline_s)
        for worker, answer in answers.items():
            engine = self._engine_of(answer.page, self._engines.get(worker))
            if engine is not None:
                self._engines[worker] = engine
        self._fetch(answers, ends_s - time.monotonic())
        return answers

    def engine_of(self, worker: Worker) -> str | None:
        """The engine of a worker that was asked in the last turn, as far as it is known."""
        return self._engines[worker].engine if worker in self._engines else None

    @property
    def _deadline_s(self) -> float:
        return 2 * self._limits.timeout_s if self._limits.deadline_s is None else self._limits.deadline_s

    def _fetch(self, answers: Mapping[Worker, _Answer], deadline_s: float) -> None:
        wanted = {
            (worker, path): worker.url + path
            for worker, answer in answers.items()
            for path in self._pages_of(worker)
            if path not in answer.read and path not in answer.failed
        }
        pages = fetch_all(
            wanted,
            self._parse,
            timeout_s=self._limits.timeout_s,
            deadline_s=deadline_s,
            max_bytes=self._limits.max_bytes,
        )
        for (worker, path), page in pages.items():
            if isinstance(page, FetchError):
                answers[worker].failed[path] = str(page)
            else:
                answers[worker].page |= page
                answers[worker].read.append(path)

    def _parse(self, asked: tuple[Worker, str], text: str) -> Page:
        _, path = asked
        return parse_json(text, path, self._names) if looks_like_json(text) else parse_page(text, self._names)

    def _pages_of(self, worker: Worker) -> tuple[str, ...]:
        if worker in self._engines:
            return self._engines[worker].pages
        return self._among[0].pages if len(self._among) == 1 else (FIRST_PAGE,)

    def _forget(self, listed: Iterable[Worker], at_s: float) -> None:
        """Leave out who is neither listed any more nor in the window."""
        there = frozenset(listed)
        for worker, track in self.tracks.items():
            track.observed, track.listed = False, worker in there
        self.tracks = {worker: track for worker, track in self.tracks.items() if track.listed or track.recent(at_s)}
        self._engines = {worker: engine for worker, engine in self._engines.items() if worker in there}

    def _read(self, worker: Worker, answer: _Answer, at_s: float) -> WorkerSample:
        """Raises :class:`ValueError`, with where it was asked and why, where nothing could be read."""
        if not answer.read:
            raise ValueError("; ".join(answer.failed.values()))
        engine = self._engine_of(answer.page, self._engines.get(worker))
        try:
            if engine is None:
                raise ValueError(f"its page has none of the metrics of {describe_engines(self._among)}")
            vocabulary = self._for_role[engine.engine, worker.role]
            page = select_model(answer.page, vocabulary.model_label, self._model)
            return read_page(page, vocabulary, at_s, answer.failed)
        except ValueError as error:
            raise ValueError("; ".join((f"{worker.url}: {error}", *answer.failed.values()))) from None

    def _engine_of(self, page: Page, known: Vocabulary | None = None) -> Vocabulary | None:
        """The vocabulary that a page speaks, the one that is known first."""
        for each in (known, *self._among) if known else self._among:
            if page.keys() & self._own_names[each.engine]:
                return each
        return None
