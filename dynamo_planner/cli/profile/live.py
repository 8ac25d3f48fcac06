"""A measuring session on a live engine: what `dynamo-planner profile URL` does."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import typer

from dynamo_planner.cli.profile import session_files
from dynamo_planner.cli.profile.screen import bar, errors_of, warn
from dynamo_planner.cli.profile.session_files import SessionFile
from dynamo_planner.core.values import KnobValue
from dynamo_planner.profiles import ProfileError
from dynamo_planner.profiling.discover import Found, discover, requests_inside
from dynamo_planner.profiling.engine import ProfilingError
from dynamo_planner.profiling.measured import Measured
from dynamo_planner.profiling.prepare import LONGEST, Wanted, connect, domain_of
from dynamo_planner.profiling.session import Goal, measure
from dynamo_planner.sources.access import Access

TRAFFIC_WAIT_S = 10.0
"""Seconds that the engine is given to finish what others sent."""

LOOK_EVERY_S = 0.25


class LiveSession:
    """One session: the endpoint, what is wanted of it, and what was measured so far.

    ``others`` is whether to measure although others use the engine; ``startup_s`` is how long the engine took to start,
    where the session started it.
    """

    def __init__(
        self, url: str, access: Access, wanted: Wanted, output: Path, minutes: float, error: float, *, others: bool
    ) -> None:
        self.kept = session_files.beside(output)
        self.measured: Measured | None = None
        self.startup_s: float | None = None
        self._url, self._access, self._wanted, self._output = url, access, wanted, output
        self._goal, self._with_others = Goal(minutes=minutes, error=error), others
        self._found = Found()

    def discover(self, model: str | None) -> None:
        """Ask the endpoint what it is, and say so. Raises :class:`ProfilingError`."""
        self._found = found = discover(self._url, self._access, model)
        found.limits = found.limits.overlaid(self._wanted.limits)
        told = ", ".join(f"{name} {value}" for name, value in found.limits if value is not None) or "no limits told"
        kind = f"{found.engine or 'an engine of unknown kind'} {found.version}".rstrip()
        typer.echo(f"{self._url}: {kind}, {found.model}: {told}", err=True)
        if self.startup_s is not None:
            typer.echo(f"it took {self.startup_s:.1f} s to start", err=True)
        for note in found.notes:
            typer.echo(f"note: {note}", err=True)

    def plan(self) -> str:
        """What would be measured."""
        limits, wanted = self._found.limits, self._wanted
        batch = min(wanted.max_batch, limits.max_num_seqs or wanted.max_batch)
        unknown = [name for name in ("kv_tokens", "max_num_batched_tokens") if getattr(limits, name) is None]
        lines = [f"first: {', '.join(unknown)}, which the engine does not tell"] if unknown else []
        lines += [
            f"then: TTFT of prompts up to {wanted.max_isl or limits.max_context or LONGEST} tokens on the idle engine;",
            f"ITL of 1 to {batch} requests at once, of several contexts, and steps that mix prompts with them;",
            f"each time what is least certain for its time, for {self._goal.minutes:g} minutes of the engine at most",
        ]
        return "\n".join(lines)

    def run(self, *, resume: bool) -> str:
        """Measure, and keep what was measured after each experiment; returns why it ended.

        Raises :class:`ProfilingError` where it cannot go on.
        """
        if why := self._others():
            raise ProfilingError(why)
        engine = connect(self._url, self._access, self._found, self._wanted.api)
        try:
            if resume:
                left = session_files.load(self.kept)
                if left.url != self._url:
                    typer.echo(f"warning: {self.kept} was measured at {left.url}: is it the same engine?", err=True)
                domain, measured = left.domain, left.measured
            else:
                domain, limits = domain_of(engine, self._wanted, self._found.limits)
                measured = Measured(limits=limits)
            with bar(self._goal.minutes) as show:
                for progress in measure(engine, domain, self._goal, measured, self._others):
                    self.measured = progress.measured
                    session_files.save(SessionFile(url=self._url, domain=domain, measured=self.measured), self.kept)
                    show(progress)
            warn(engine)
        finally:
            engine.close()
        return progress.why

    @property
    def has_points(self) -> bool:
        """Whether anything was measured."""
        return self.measured is not None and bool(self.measured.prompts or self.measured.decode)

    def write(
        self, name: str | None, told: Mapping[str, KnobValue | None], gpus: int | None, picture: Path | None
    ) -> None:
        """Write the profile of what was measured, and its picture."""
        measured, found = self.measured or Measured(), self._found
        about = session_files.about(
            measured,
            {
                "model": found.model,
                "backend": found.engine,
                "backend_version": found.version,
                **told,
                "startup_s": None if self.startup_s is None else round(self.startup_s, 1),
                **{name: value for name, value in measured.limits if name != "kv_tokens"},
                "traffic": "others used the engine, figures are spoiled" if self._with_others else None,
            },
        )
        try:
            profile = measured.profile(name or self._output.stem, about, gpus or found.gpus or 1)
            profile.save(self._output)
        except ProfileError as error:
            raise typer.Exit(_failed(f"{error} ({errors_of(measured)})")) from error
        typer.echo(f"profile: {self._output}")
        if picture is not None:
            profile.plot().savefig(picture)
            typer.echo(f"picture: {picture}")

    def _others(self) -> str:
        """Why figures would be spoiled: others use the engine. Empty where no one does, or that is not to be told."""
        if self._with_others:
            return ""
        return used_by_others(self._url, self._access)


def used_by_others(url: str, access: Access) -> str:
    """Why figures would be spoiled: others use the engine, and go on doing so. Empty where no one does, or that is not
    told."""
    due_s = time.monotonic() + TRAFFIC_WAIT_S
    while requests := requests_inside(url, access):
        if time.monotonic() > due_s:
            return (
                f"{url}: others have {requests:g} requests on the engine, which would spoil the figures: "
                "take it out of service, or give --with-traffic"
            )
        time.sleep(LOOK_EVERY_S)
    return ""


def _failed(message: str) -> int:
    typer.echo(f"error: {message}", err=True)
    return 1
