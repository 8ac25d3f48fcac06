"""A simulated engine worker: an HTTP server that behaves like a vLLM one with the timing of an engine model.

``python -m dynamo_planner.mock_workers.main --port 8000 --model tiny`` serves OpenAI-compatible ``/v1/completions`` and
``/v1/chat/completions`` (streaming or not), ``/v1/models``, ``/health``, and ``/metrics`` in vLLM's names. SIGTERM or
SIGINT drains it: what it has accepted is finished, nothing more is taken, and it exits with 0.

Disaggregated serving follows vLLM's convention. A prefill worker gets ``max_tokens`` 1 and ``kv_transfer_params``
``{"do_remote_decode": true}``, and answers with the ``kv_transfer_params`` that the decode worker is to get; that one
begins decoding at once. A decode worker that gets a plain request computes the prompt itself.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pydantic import Field, ValidationError, model_validator

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.snapshot import Role
from dynamo_planner.core.values import Frozen
from dynamo_planner.mock_workers.app import WorkerApp
from dynamo_planner.simulator.engine.engine import Engine, EngineLimits
from dynamo_planner.simulator.engine.step_time import GridTiming, LinearTiming, Slowed, StepTiming

with needs_extra("worker"):
    from aiohttp import web

MODULE = "dynamo_planner.mock_workers.main"
LOG = logging.getLogger(MODULE)

PROFILE_CELLS = 64
"""Into how many pieces a profile's KV capacity is cut, between which step times are straight lines."""

SHUTDOWN_S = 1.0
"""How long uploads that were not complete when it had drained can hold up the exit."""

BACKLOG = 2048
"""Connections that may wait to be accepted; with fewer, a burst of clients would be let in a second later."""


class WorkerOptions(Frozen):
    """A worker; on the command line all fields are flags, those of ``limits`` and ``timing`` too.

    >>> options = WorkerOptions(port=8000, model="tiny", limits=EngineLimits(max_num_seqs=32))
    >>> options.command()[1:]
    ['-m', 'dynamo_planner.mock_workers.main', '--port=8000', '--model=tiny', '--max-num-seqs=32']
    """

    port: int = Field(ge=0, le=65_535, description="TCP port to listen on; 0 takes a free one, which is logged")
    model: str = Field(min_length=1, description="the name that the model is served under")
    host: str = Field(default="127.0.0.1", description="address to listen on; there is no authentication")
    role: Role = Field(default="aggregated", description="what it does of each request")
    startup_s: float = Field(default=0.0, ge=0, description="seconds until it takes requests")
    time_scale: float = Field(default=1.0, gt=0, description="speed-up of everything, start-up too")
    max_num_queued_reqs: int = Field(default=10_000, ge=1, description="queued requests; more are refused (503)")
    profile: str | None = Field(
        default=None, description="take timing and KV capacity from this profile: a path, or the name of a bundled one"
    )
    limits: EngineLimits = EngineLimits()
    timing: LinearTiming = LinearTiming()

    @model_validator(mode="after")
    def _one_timing(self) -> Self:
        if self.profile is not None and self.timing.model_fields_set:
            given = ", ".join(f"--{_flag(name)}" for name in sorted(self.timing.model_fields_set))
            raise ValueError(f"timing is from --profile or from {given}: give one of the two")
        return self

    def engine(self) -> Engine:
        """The engine of such a worker. Raises ``ProfileError`` where its profile cannot be read."""
        timing: StepTiming = self.timing
        limits = self.limits
        if self.profile is not None:
            timing, capacity = _profiled(self.profile)
            if "kv_tokens" not in limits.model_fields_set:
                limits = limits.replace(kv_tokens=capacity)
        return Engine(limits, Slowed(timing, 1 / self.time_scale))

    def command(self) -> list[str]:
        """The command that starts this worker, as a list of arguments."""
        own = self.model_dump(exclude_unset=True)
        parts = [own.pop(name, {}) for name in PARTS]
        flags = [f"--{_flag(name)}={value}" for part in (own, *parts) for name, value in part.items()]
        return [sys.executable, "-m", MODULE, *flags]


PARTS: dict[str, type[Frozen]] = {"limits": EngineLimits, "timing": LinearTiming}


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _profiled(source: str) -> tuple[StepTiming, int]:
    """The timing and the KV capacity of a profile; fitted now, because a request would have to wait for it."""
    from dynamo_planner.profiles import Profile  # noqa: PLC0415 - scipy would double the start-up time of those without

    profile = Profile.load(source) if Path(source).exists() else Profile.bundled(source)
    profile.step_ms(1, 1, 1)
    capacity = int(profile.decode_points.max_kv_tokens)
    return GridTiming(profile.step_ms, max(capacity // PROFILE_CELLS, 1)), capacity


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker until a signal stops it; returns its exit status."""
    parser = _parser()
    try:
        options = _options(vars(parser.parse_args(arguments)))
    except ValidationError as error:
        parser.error("; ".join(_in_words(problem) for problem in error.errors()))
    try:
        engine = options.engine()
    except ValueError as error:
        parser.error(f"--profile: {error}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_serve(options, engine))
    except OSError as error:
        parser.exit(1, f"{parser.prog}: cannot listen on {options.host}, port {options.port}: {error.strerror}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}",
        usage="%(prog)s --port PORT --model MODEL [options]",
        description="A simulated LLM engine worker: vLLM's HTTP interface with the timing of an engine model.",
        epilog=f"Example: python -m {MODULE} --port 8000 --model tiny --base-ms 20 --max-num-seqs 64",
        allow_abbrev=False,
    )
    groups: list[type[Frozen]] = [WorkerOptions, *PARTS.values()]
    fields = {name: field for group in groups for name, field in group.model_fields.items() if name not in PARTS}
    for name, field in fields.items():
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else None
        default = "" if field.is_required() else f" (default {field.default})"
        parser.add_argument(
            f"--{_flag(name)}",
            choices=choices,
            required=field.is_required(),
            default=argparse.SUPPRESS,
            help=f"{field.description}{default}",
        )
    return parser


def _options(flags: dict[str, Any]) -> WorkerOptions:
    parts = {name: {key: flags.pop(key) for key in part.model_fields if key in flags} for name, part in PARTS.items()}
    return WorkerOptions(**flags, **parts)


def _in_words(problem: Any) -> str:
    name = str(problem["loc"][-1]) if problem["loc"] else ""
    if not name or name in PARTS:
        return str(problem["msg"]).removeprefix("Value error, ")
    return f"--{_flag(name)}: {problem['msg']}, got {problem['input']}"


async def _serve(options: WorkerOptions, engine: Engine) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    worker = WorkerApp(engine, model=options.model, role=options.role, max_queued=options.max_num_queued_reqs)
    runner = web.AppRunner(
        worker.application(), handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, options.port, backlog=BACKLOG).start()
        host, port, *_ = runner.addresses[0]
        LOG.info("%s worker of %s on http://%s:%d", options.role, options.model, host, port)
        if not await _stopped_within(stop, options.startup_s / options.time_scale):
            worker.begin()
            LOG.info("takes requests")
            await stop.wait()
        LOG.info("drains")
        await worker.drain()
    finally:
        await runner.cleanup()


async def _stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    try:
        return await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False


if __name__ == "__main__":
    raise SystemExit(main())
