"""Configuration of a pool of local workers, and the command and environment of one of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from dynamo_planner.core.snapshot import PoolSpec
from dynamo_planner.core.values import Frozen, FrozenMap, KnobValue, ReadOnly
from dynamo_planner.engines import Catalogue, Knob, catalogue, check_knobs
from dynamo_planner.engines.named import with_custom_knobs
from dynamo_planner.executors.circus.names import COMPONENT
from dynamo_planner.executors.circus.placeholders import check, fill, words

INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
"""The variables of the planner's environment that every worker inherits."""

MARK = "DYN_PLANNER_WORKER"
"""The environment variable that names the worker of a process: ``namespace/name/start``."""


def _no_shell_string(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(f"an argument list is needed, not a shell string: {value.split()} for {value!r}")  # noqa: TRY004
    return value


def _no_null(value: str) -> str:
    if "\0" in value:
        raise ValueError(f"{value!r} has a null character, which no argument or variable can have")
    return value


Template = Annotated[str, AfterValidator(_no_null)]
"""A text with placeholders, as :mod:`~dynamo_planner.executors.circus.placeholders` has them."""

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class CircusPool(Frozen):
    """A pool of identical local workers.

    In ``command`` and in the values of ``env``, ``{port}`` (a free port of the worker's own), ``{name}``,
    ``{namespace}``, ``{pool}``, ``{gpus}`` (``0,1``) and the knobs are filled in, as in ``--parallel {max_num_seqs}``;
    all other braces are literal. When a knob is set to another value, the workers are replaced one after the other.

    A worker's environment is a few harmless variables of the planner's (``PATH``, ``HOME``, locale, ...), those named
    in ``inherit_env``, and ``env``; nothing else of the planner's environment reaches it. With GPUs it has
    ``CUDA_VISIBLE_DEVICES``, in PCI order. Secrets belong into ``inherit_env``: a command is in the state file and in
    every process list.

    Args:
        spec: What a replica is.
        command: Argument list of a worker.
        component: Middle part of the names of its workers; ``None`` is the name of the pool.
        env: Environment variables.
        engine: Engine whose catalogue the knobs are from; ``None`` is none.
        knobs: First values of knobs, by the names of the catalogue of ``engine`` and of ``more_knobs``.
        more_knobs: Knobs beside those of the catalogue.
        inherit_env: Names of variables that are passed on from the planner.
        working_dir: Where a worker runs; ``None`` is where the planner does.
        health: Path on the worker's port at 127.0.0.1 that answers 200 once it is ready (``/health``); with ``None``
            it is ready after ``ready_after_s``.
        unhealthy_after_s: Seconds after which a ready worker whose health check is answered with an error is killed and
            restarted, and three times as many where it is not answered at all (10). It gets no requests meanwhile.
        ready_after_s: Seconds after which a worker without a health check is ready (1).
        startup_timeout_s: Seconds after which a worker that is not ready is killed (1800).
        graceful_timeout_s: Seconds from SIGTERM to SIGKILL when a worker is drained (600).
        restart_backoff_s: Seconds to the restart of a worker that crashed; doubled with each crash (1).
        restart_backoff_max_s: Most seconds to a restart; a worker that was ready for as long begins anew (300).
        log_max_bytes: Size at which the log of a worker is rotated (10 MB).

    >>> pool = CircusPool(spec=PoolSpec(role="decode"), command=["serve", "--port={port}"])
    >>> pool.arguments({"port": "8001"})
    ('serve', '--port=8001')
    """

    spec: PoolSpec
    command: Annotated[tuple[Template, ...], BeforeValidator(_no_shell_string), Field(min_length=1)]
    component: Annotated[str, Field(pattern=COMPONENT)] | None = None
    env: ReadOnly[VariableName, Template] = Field(default_factory=FrozenMap)
    engine: str | None = None
    knobs: ReadOnly[str, KnobValue] = Field(default_factory=FrozenMap)
    more_knobs: tuple[Knob, ...] = ()
    inherit_env: tuple[VariableName, ...] = ()
    working_dir: Path | None = None
    health: Annotated[str, Field(pattern=r"^/[!-~]*$")] | None = "/health"
    unhealthy_after_s: float = Field(default=10.0, gt=0)
    ready_after_s: float = Field(default=1.0, ge=0)
    startup_timeout_s: float = Field(default=1800.0, gt=0)
    graceful_timeout_s: float = Field(default=600.0, ge=0)
    restart_backoff_s: float = Field(default=1.0, gt=0)
    restart_backoff_max_s: float = Field(default=300.0, gt=0)
    log_max_bytes: int = Field(default=10_000_000, ge=1000)

    @model_validator(mode="before")
    @classmethod
    def _engine_of_another_package(cls, data: Any, info: ValidationInfo) -> Any:
        return with_custom_knobs(data, info.context, "more_knobs")

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        texts = (*self.command, *self.env.values())
        for text in texts:
            check(text, self.knobs)
        check_knobs(self.catalogue, self.knobs)
        unused = sorted(set(self.knobs).difference(*map(words, texts)))
        if unused:
            raise ValueError(f"knobs: {unused[0]} changes nothing: put {{{unused[0]}}} into command or env")
        if self.health is not None and not self.needs_port:
            raise ValueError(
                f"health {self.health!r} is requested on the worker's own port, which it does not have: "
                "put {port} into command or env, or set health to null"
            )
        reserved = {MARK} | ({"CUDA_VISIBLE_DEVICES"} if self.spec.gpus else set())
        taken = sorted(reserved.intersection(self.env))
        if taken:
            raise ValueError(f"env: {taken[0]} is set by the executor: remove it, or set spec.gpus to 0")
        return self

    @property
    def catalogue(self) -> Catalogue:
        """The knobs of its engine."""
        return catalogue(self.engine, self.more_knobs)

    @property
    def needs_port(self) -> bool:
        """Whether its workers have a port."""
        return any("port" in words(text) for text in (*self.command, *self.env.values()))

    def arguments(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """The command of one worker."""
        return tuple(fill(argument, values) for argument in self.command)

    def environment(self, values: Mapping[str, str], planner: Mapping[str, str]) -> dict[str, str]:
        """The environment of one worker, from its values and what is allowed of the planner's environment."""
        inherited = {name: planner[name] for name in (*INHERITED, *self.inherit_env) if name in planner}
        own = {name: fill(value, values) for name, value in self.env.items()}
        if self.spec.gpus:
            gpus = {"CUDA_VISIBLE_DEVICES": values["gpus"], "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
            return {**inherited, **own, **gpus}
        return {"CUDA_VISIBLE_DEVICES": "", **inherited, **own}

    def directory(self) -> Path:
        """The working directory of a worker: ``working_dir``, or that of the planner."""
        return (self.working_dir or Path()).absolute()

    def why_not_runnable(self, values: Mapping[str, str], planner: Mapping[str, str]) -> str | None:
        """Why no worker can start, or ``None``: a program or a directory that does not exist."""
        directory, program = self.directory(), fill(self.command[0], values)
        if not directory.is_dir():
            return f"working_dir: {directory} is not a directory"
        path = self.environment(values, planner).get("PATH", os.defpath)
        if "/" in program:
            found = os.access(directory / program, os.X_OK) and (directory / program).is_file()
        else:
            found = shutil.which(program, path=path) is not None
        where = f"in {directory}" if "/" in program else f"on PATH ({path})"
        return None if found else f"command: there is no program {program!r} {where}"
