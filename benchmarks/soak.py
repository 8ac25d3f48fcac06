"""A soak: minutes of a load that comes and goes, simulated workers that crash now and then, and a planner that scales.

``python -m benchmarks.soak --minutes 30``. Three processes: a planner with its Circus executor (and circusd below it),
a router, and the client, which is this one; it also kills a random ready worker every minute or so. Requests on a
crashed worker are lost by definition and counted apart. Every few seconds the memory, the file descriptors and the
threads of planner, circusd and router, and the number of processes below the planner, are taken down.

Exits with 1 where a request was lost that no crash explains (a drained worker finishes what it has accepted), where the
lower quartile of the last third, which bursts do not move, is above that of the first by more than the tolerance (after
a tenth to warm up; not judged in a short run), or where a process or the state file is left at the end. ``--out`` takes
all samples as CSV.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import logging
import multiprocessing
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from aiohttp import web

from dynamo_planner.demo.load import LoadClient, TraceRequest
from dynamo_planner.demo.record import Recording
from dynamo_planner.demo.router import Router
from dynamo_planner.demo.simulated import simulated_stage
from dynamo_planner.demo.stage import AGGREGATED, DemoStage, load_policy
from dynamo_planner.executors.circus import CircusExecutor
from dynamo_planner.executors.circus.pool import MARK
from dynamo_planner.executors.circus.processes import marked
from dynamo_planner.executors.circus.records import WorkerRecord
from dynamo_planner.executors.circus.store import Store
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.sources.scraping.source import ScrapeSource
from dynamo_planner.workloads.generators import burst_and_lull

MOST_WORKERS, ADJUSTS_EVERY_S, TICKS_EVERY_S, WINDOW_S = 4, 2.0, 1.0, 5.0
CYCLE_S, LULL_PER_S, BURST_PER_S, LENGTH_SCALE = 40.0, 0.8, 3.5, 0.4
TURN_S, SAMPLE_S = 0.5, 5.0
SAME_CRASH_S = 5.0
"""A request whose worker was killed no longer ago than this was lost to that crash."""

JUDGED_FROM_MINUTES = 8.0
"""Thirds of a shorter run have too few bursts each to be compared."""

RESTART_BACKOFF_MAX_S = 5.0
"""Short, or the only worker that is left, killed again and again, would soon be away for minutes."""

WARM_UP = 0.1
TOLERANCES: Mapping[str, tuple[float, float]] = {
    "rss_mb": (0.05, 2.0),
    "fds": (0.1, 2.0),
    "threads": (0.0, 2.0),
    "count": (0.0, 2.0),
}
"""What may come on top by the last third: a share of the first, and an amount."""


class NotingRouter(Router):
    """A router that notes which worker broke an answer off, and when (Unix seconds)."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.broken: list[tuple[str, float]] = []

    async def _relay(self, request: web.Request, answer: Any) -> web.StreamResponse:
        client = await super()._relay(request, answer)
        if not answer.response.content.is_eof():
            self.broken.append((answer.url, time.time()))
        return client

    def loads(self) -> dict[str, int]:
        """The requests in flight by worker."""
        return {url: count for url, count in self._load.items() if count}


def url_of(worker: WorkerRecord) -> str:
    """Where a worker listens."""
    return f"http://127.0.0.1:{worker.port}"


def plan(directory: str, namespace: str, stage: DemoStage) -> None:
    """The planner's process."""
    logging.basicConfig(level=logging.ERROR)
    pools = {name: pool.replace(restart_backoff_max_s=RESTART_BACKOFF_MAX_S) for name, pool in stage.pools.items()}
    with CircusExecutor(namespace, pools, state_dir=directory, gpus=()) as executor:
        source = ScrapeSource(executor.endpoints, AGGREGATED, window_s=WINDOW_S)
        Planner(load_policy(ADJUSTS_EVERY_S, stage), source, executor, interval_s=TICKS_EVERY_S).run()


def route(directory: str, namespace: str, connection: Connection) -> None:
    """The router's process: says its URL, and whenever asked which answers broke off and what is in flight."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    store = Store(directory, namespace)

    def endpoints() -> dict[str, dict[str, str]]:
        ready = [worker for worker in store.load().workers if worker.phase == "ready"]
        return {name: {worker.name: url_of(worker) for worker in ready if worker.pool == name} for name in AGGREGATED}

    async def serve() -> None:
        async with NotingRouter(endpoints, tuple(AGGREGATED)) as router:
            connection.send(router.url)
            with suppress(EOFError):
                while await asyncio.to_thread(connection.recv):
                    connection.send((router.broken, router.loads()))
                    router.broken = []

    asyncio.run(serve())


@dataclass
class Soak:
    """What was seen so far; times are Unix seconds."""

    store: Store
    planner_pid: int
    router_pid: int
    chance: random.Random
    crash_every_s: float
    answered: int = 0
    lost: list[str] = field(default_factory=list)
    lost_to_crashes: int = 0
    unexplained: list[str] = field(default_factory=list)
    crashes: dict[str, float] = field(default_factory=dict)
    crash_count: int = 0
    moves: Counter[str] = field(default_factory=Counter)
    drains: dict[str, int] = field(default_factory=dict)
    samples: list[dict[str, float]] = field(default_factory=list)
    wanted: int = 0
    draining: frozenset[str] = frozenset()
    crash_at_s: float = 0.0

    def turn(self, broken: Sequence[tuple[str, float]], loads: Mapping[str, int]) -> None:
        """Take down what changed since the last turn, and crash a worker where it is time."""
        now_s = time.time()
        for url, at_s in broken:
            if abs(at_s - self.crashes.get(url, 0.0)) <= SAME_CRASH_S:
                self.lost_to_crashes += 1
            else:
                self.unexplained.append(f"{url} broke off at {at_s:.1f}")
        workers = self.store.load().workers
        draining = {worker.token: worker for worker in workers if worker.phase == "draining"}
        for token in draining.keys() - self.draining:
            self.drains[token] = loads.get(url_of(draining[token]), 0)
        self.draining = frozenset(draining)
        wanted = len(workers) - len(draining)
        if wanted != self.wanted:
            self.moves["up" if wanted > self.wanted else "down"] += 1
        self.wanted = wanted
        if now_s >= self.crash_at_s:
            if self.crash_at_s:
                self._crash([worker for worker in workers if worker.phase == "ready"])
            self.crash_at_s = now_s + self.chance.uniform(0.5, 1.5) * self.crash_every_s

    def _crash(self, ready: Sequence[WorkerRecord]) -> None:
        if not ready:
            return
        victim = self.chance.choice(ready)
        if victim.process is not None:
            self.crashes[url_of(victim)] = time.time()
            self.crash_count += 1
            with suppress(psutil.NoSuchProcess):
                psutil.Process(victim.process.pid).kill()

    def sample(self, at_s: float) -> None:
        """Take down what the processes use."""
        planner = psutil.Process(self.planner_pid)
        below = planner.children(recursive=True)
        circusd = [process for process in planner.children() if "circus.circusd" in process.cmdline()]
        sample = {"at_s": round(at_s, 1), "processes_count": len(below)}
        for name, process in (
            ("planner", planner),
            ("circusd", circusd[0]),
            ("router", psutil.Process(self.router_pid)),
        ):
            sample[f"{name}_rss_mb"] = process.memory_info().rss / 2**20
            sample[f"{name}_fds"] = process.num_fds()
            sample[f"{name}_threads"] = process.num_threads()
            sample[f"{name}_cpu_s"] = sum(process.cpu_times()[:2])
        self.samples.append(sample)


def growth(samples: Sequence[Mapping[str, float]]) -> list[tuple[str, float, float, float, bool]]:
    """Of each measure: the lower quartiles of the first and the last third, what is tolerated, and whether it holds."""
    kept = samples[int(WARM_UP * len(samples)) :]
    third = max(len(kept) // 3, 1)
    rows = []
    for name in kept[0]:
        share, amount = next((found for unit, found in TOLERANCES.items() if name.endswith(f"_{unit}")), (None, 0.0))
        if share is None:
            continue
        first, last = (_lower_quartile(sample[name] for sample in part) for part in (kept[:third], kept[-third:]))
        most = first * (1 + share) + amount
        rows.append((name, first, last, most, last <= most))
    return rows


def _lower_quartile(values: Iterable[float]) -> float:
    return float(np.quantile(list(values), 0.25))


def requests(seed: int) -> list[TraceRequest]:
    """A lull, a burst and a lull, small enough for a part of one core."""
    trace = burst_and_lull(LULL_PER_S, BURST_PER_S, seed, CYCLE_S, LENGTH_SCALE)
    rows = zip(trace.arrival_s, trace.isl, trace.osl, strict=True)
    return [TraceRequest(float(due_s), int(isl), int(osl)) for due_s, isl, osl in rows]


async def drive(soak: Soak, stage: DemoStage, url: str, router: Connection, minutes: float) -> None:
    """Replay the load again and again, and watch meanwhile."""
    began_s = time.monotonic()
    ends_s = began_s + 60 * minutes

    async def load() -> None:
        while time.monotonic() < ends_s:
            recording = Recording("soak", stage.sla, ())
            client = LoadClient(url, recording, asyncio.get_running_loop().time())
            await client.replay(stage.requests)
            lost = [request.lost for request in recording.requests if request.lost is not None]
            soak.lost += lost
            soak.answered += len(recording.requests) - len(lost)

    loading = asyncio.create_task(load())
    sample_at_s = began_s
    while not loading.done():
        router.send("report")
        soak.turn(*await asyncio.to_thread(router.recv))
        if (now_s := time.monotonic()) >= sample_at_s:
            soak.sample(now_s - began_s)
            sample_at_s += SAMPLE_S
        await asyncio.sleep(TURN_S)
    await loading
    await asyncio.sleep(TURN_S)
    router.send("report")
    soak.turn(*await asyncio.to_thread(router.recv))


def summarized(soak: Soak, minutes: float, left: Sequence[str]) -> int:
    """Print what came of it; the exit status."""
    refused = sum(why.startswith("answered 503") for why in soak.lost)
    otherwise = max(len(soak.lost) - soak.lost_to_crashes - refused, len(soak.unexplained))
    busy = [count for count in soak.drains.values() if count]
    print(f"{minutes:.1f} minutes: {soak.answered} requests answered, {len(soak.lost)} lost: {soak.lost_to_crashes} on")
    print(f"{soak.crash_count} crashed workers, {otherwise} on workers that drained or lived (tolerated: 0),")
    print(f"{refused} that no worker answered in time (tolerated: 0)")
    print(
        f"{soak.moves['up']} moves up, {soak.moves['down']} down; {len(soak.drains)} workers drained, {len(busy)} of "
    )
    print(f"them with requests in flight ({sum(busy)} in all)")
    print(f"{'':<20}{'first third':>12}{'last third':>12}{'tolerated':>12}")
    rows = growth(soak.samples)
    judged = minutes >= JUDGED_FROM_MINUTES
    grew = [name for name, _, _, _, holds in rows if judged and not holds]
    for name, first, last, most, _ in rows:
        print(f"{name:<20}{first:>12.1f}{last:>12.1f}{most:>12.1f}{'  GREW' if name in grew else ''}")
    if not judged:
        print(f"too short to say what grows: that takes {JUDGED_FROM_MINUTES:g} minutes")
    begin, end = soak.samples[0], soak.samples[-1]
    for name in ("planner", "circusd", "router"):
        share = (end[f"{name}_cpu_s"] - begin[f"{name}_cpu_s"]) / max(end["at_s"] - begin["at_s"], 1.0)
        print(f"{name} took {100 * share:.1f} % of a core")
    for problem in (*soak.unexplained, *left):
        print(f"FAILED: {problem}")
    return 1 if otherwise or refused or left or grew else 0


def main() -> int:
    """Run a soak."""
    parser = argparse.ArgumentParser(
        description="Scale simulated workers up and down for a while, and look for losses."
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--crash-every-s", type=float, default=60.0, help="mean time between crashes of workers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a CSV file for the samples")
    asked = parser.parse_args()
    stage = simulated_stage(requests(asked.seed), MOST_WORKERS, disaggregated=False)
    context = multiprocessing.get_context("spawn")
    namespace = f"soak{time.time_ns() % 10**9}"
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as directory:
        planner = context.Process(target=plan, args=(directory, namespace, stage))
        planner.start()
        here, there = context.Pipe()
        router = context.Process(target=route, args=(directory, namespace, there), daemon=True)
        router.start()
        began_s = time.monotonic()
        try:
            url = here.recv()
            store = Store(directory, namespace)
            while not any(worker.phase == "ready" for worker in store.load().workers):
                if not planner.is_alive():
                    return 1
                time.sleep(TURN_S)
            chance = random.Random(asked.seed)
            soak = Soak(store, planner.pid or 0, router.pid or 0, chance, asked.crash_every_s)
            asyncio.run(drive(soak, stage, url, here, asked.minutes))
        finally:
            planner.terminate()
            planner.join()
            router.terminate()
            router.join()
        left = [f"process {process.pid} is left: {mark}" for process, mark in marked(f"{MARK}={namespace}/")]
        left += [f"{store.file} is left"] if store.file.exists() else []
        left += [f"the planner ended with {planner.exitcode}"] if planner.exitcode else []
    if asked.out is not None:
        with asked.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, soak.samples[0])
            writer.writeheader()
            writer.writerows(soak.samples)
    return summarized(soak, (time.monotonic() - began_s) / 60, left)


if __name__ == "__main__":
    raise SystemExit(main())
