"""What ``check`` found, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from dynamo_planner.core.metrics import Dist, PoolMetrics, Traffic, WorkerStatus
from dynamo_planner.core.snapshot import Observation
from dynamo_planner.sources.aggregation.pools import WorkerNotes
from dynamo_planner.sources.aggregation.traffic import AT_LEAST
from dynamo_planner.sources.aggregation.witnesses import AT_WORKERS

TRAFFIC = ("requests_per_s", "isl", "osl", "ttft_ms", "itl_ms", "request_duration_s", "prefix_hit_rate")

MADE_UP_FOR = {
    "inside": ("running", "waiting"),
    "arrivals": ("completions",),
    "prefix_hit_rate": ("prefix_hits", "prefix_queries"),
    "prefix_hits": ("prefix_hit_rate",),
    "prefix_queries": ("prefix_hit_rate",),
    "queued": (),
    "awake": (),
    "aborts": ("completions",),
    "cancellations": (),
    "choices": (),
    "first_tokens": (),
    "waiting_tokens": (),
    "queued_tokens": (),
    "prefill_tokens": (),
    "token_gap_ms": ("itl_ms",),
    "transfer_ms": (),
    "first_token_ms": (),
}
"""Quantities that are not missing where a worker reports these instead. None reports what is queued before it, without
word of sleep it is awake, and where prefill and decode are together nothing is transferred."""


ALWAYS_THERE = ("running", "waiting", "kv_usage", "completions", "ttft_ms", "isl")
"""Quantities that every release of an engine reports that has a name for them."""

RENAMED = (
    "  what your release calls otherwise can be named in a vocabulary of your own: source.engine, see "
    "docs/extending/engine.md"
)


@dataclass(frozen=True)
class Findings:
    """The observation of a live setup, its time, and notes on each worker, by pool and name."""

    at_s: float
    observation: Observation
    notes: Mapping[str, Mapping[str, WorkerNotes]]

    @property
    def whole(self) -> bool:
        """Whether each pool has workers, and every one of them was observed."""
        return all(pool.workers and pool.coverage in {1.0, None} for pool in self.observation.pools.values())

    def engine(self, pool: str, worker: str) -> str | None:
        """The engine of a worker, where it is known."""
        return self.notes[pool][worker].engine if worker in self.notes.get(pool, {}) else None

    def age_s(self, worker: WorkerStatus) -> float | None:
        """The age of what a worker reports, in seconds."""
        return None if worker.observed_at_s is None else max(0.0, self.at_s - worker.observed_at_s)


def as_data(findings: Findings, notes: Mapping[str, str]) -> dict[str, Any]:
    """All of it, as plain data."""
    return {
        "at_s": findings.at_s,
        "whole": findings.whole,
        "observation": findings.observation.model_dump(mode="json"),
        "workers": {
            pool: {name: {"engine": each.engine, "unknown": dict(each.unknown)} for name, each in workers.items()}
            for pool, workers in findings.notes.items()
        },
        "notes": dict(notes),
    }


def show(console: Console, findings: Findings, notes: Mapping[str, str]) -> None:
    """Tell a reader what was found, pool by pool."""
    for name, pool in findings.observation.pools.items():
        _show_pool(console, findings, name, pool)
    if "clock" in findings.observation.missing:
        console.print(f"[bold]clocks[/bold]: {findings.observation.missing['clock']}")
    own = _traffic_line(findings.observation.traffic)
    console.print(f"[bold]as clients saw it[/bold]: {own or 'nothing is known'}")
    for field, why in findings.observation.missing.items():
        if field.endswith(f".traffic.{AT_LEAST}"):
            console.print(f"  requests_per_s is at least that: {why}; a frontend counts all", markup=False)
        if field == f"traffic.{AT_WORKERS}":
            console.print(f"  {why}", markup=False)
    _show_missing(console, _of_service(findings))
    for worker, note in notes.items():
        console.print(f"{worker}: {note}", markup=False)


def _show_pool(console: Console, findings: Findings, name: str, pool: PoolMetrics) -> None:
    console.print(f"[bold]{name}[/bold]: {len(pool.workers)} workers, {_percent(pool.coverage)} of them observed")
    table = Table(box=None, padding=(0, 2))
    for column in ("worker", "engine", "age", "running", "waiting", "KV usage", "KV capacity"):
        table.add_column(column, no_wrap=True)
    for worker in pool.workers:
        engine = findings.engine(name, worker.name) or "?"
        age_s = findings.age_s(worker)
        numbers = (_number(worker.running), _number(worker.queued), _percent(worker.kv_usage))
        table.add_row(
            worker.name,
            engine,
            "?" if age_s is None else f"{age_s:.1f} s",
            *numbers,
            _number(worker.kv_capacity_tokens),
        )
    if pool.workers:
        console.print(table)
    if pool.traffic is not None:
        console.print(f"  {_traffic_line(pool.traffic)}")
    if load := _load_line(pool):
        console.print(f"  {load}")
    remarks = dict(_remarks(findings, name))
    for of, remark in remarks.items():
        console.print(f"  {of}: {remark}", markup=False)
    _show_missing(console, (each for each in _of_pool(findings, name) if each[0] not in remarks))
    lacking = [notes.unknown.get(each, "") for notes in findings.notes.get(name, {}).values() for each in ALWAYS_THERE]
    if any(("Prometheus has no " in why or "is not on its page" in why) and "(start it" not in why for why in lacking):
        console.print(RENAMED, markup=False)


def _remarks(findings: Findings, pool: str) -> Iterator[tuple[str, str]]:
    """What is to be said of workers that were observed, such as that they are scraped several times."""
    for worker in findings.observation.pools[pool].workers:
        remark = findings.observation.missing.get(f"pools.{pool}.workers.{worker.name}")
        if remark and worker.observed_at_s == findings.observation.pools[pool].observed_at_s is not None:
            yield worker.name, remark


def _of_pool(findings: Findings, pool: str) -> Iterator[tuple[str, str]]:
    """What is unknown of a pool and of each of its workers, and why."""
    start, workers = f"pools.{pool}", findings.notes.get(pool, {})
    for field, why in findings.observation.missing.items():
        is_of_pool = field == start or (field.startswith(f"{start}.") and not field.startswith(f"{start}.traffic."))
        if is_of_pool and (not workers or field.startswith(f"{start}.workers.")):
            yield field.removeprefix(start).removeprefix(".workers").removeprefix("."), why
    for name, notes in workers.items():
        for quantity, why in notes.unknown.items():
            if quantity in MADE_UP_FOR and notes.unknown.keys().isdisjoint(MADE_UP_FOR[quantity]):
                continue
            yield (quantity if len(workers) == 1 else f"{quantity} of {name}"), why


def _of_service(findings: Findings) -> Iterator[tuple[str, str]]:
    """What is unknown of the service: without what is said of pools, but for arrivals that no note explains."""
    missing = findings.observation.missing
    of_pools = {field.rpartition(".traffic.")[2] for field in missing if ".traffic." in field}
    noted = [why for each in findings.notes.values() for notes in each.values() for why in notes.unknown.values()]
    for field, why in missing.items():
        name = field.removeprefix("traffic.")
        is_news = name == "requests_per_s" and not any(why.startswith(note) for note in noted)
        if field.startswith("traffic") and name != AT_WORKERS and (name not in of_pools or is_news):
            yield name, why


def _show_missing(console: Console, missing: Iterator[tuple[str, str]]) -> None:
    """Each cause once, with all that it makes unknown."""
    fields: dict[str, list[str]] = {}
    for field, why in missing:
        fields.setdefault(why, []).append(field)
    for why, names in fields.items():
        console.print(f"  unknown: {', '.join(filter(None, names)) or 'all of it'}: {why}", markup=False)


def _traffic_line(traffic: Traffic) -> str:
    texts = []
    for field in TRAFFIC:
        value = getattr(traffic, field)
        if value is not None:
            texts.append(f"{field} {_number(value.mean if isinstance(value, Dist) else value)}")
    over = f" (over {traffic.window_s:.0f} s)" if traffic.window_s is not None and texts else ""
    return ", ".join(texts) + over


def _load_line(pool: PoolMetrics) -> str:
    """What else shows how loaded a pool is: its backlog, its fullest worker, and where requests spend their time."""
    values = {"queued_tokens": pool.queued_tokens, "asleep": pool.asleep or None}
    texts = [f"{name} {_number(value)}" for name, value in values.items() if value is not None]
    if pool.kv_usage_max is not None and len(pool.workers) > 1:
        texts.append(f"kv_usage_max {_percent(pool.kv_usage_max)}")
    texts += [f"{stage} {_number(dist.mean)}" for stage, dist in pool.stages if dist is not None]
    return ", ".join(texts)


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:,.4g}" if value < 10_000 else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return "?" if value is None else f"{value:.0%}"
