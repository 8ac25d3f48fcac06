"""A llama.cpp worker: its real HTTP server, from the Python package ``xllamacpp``, that drains when a signal ends it.

``python -m dynamo_planner.mock_workers.llamacpp --port 8000 --model tiny.gguf`` serves OpenAI-compatible
completions, ``/health``, ``/metrics`` and ``/slots``. SIGTERM or SIGINT drains it: what it has accepted is finished,
and it exits with 0. llama.cpp's own server leaves requests unanswered, or hangs, where it is ended under load.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Sequence

from pydantic import Field, ValidationError

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.values import Frozen

with needs_extra("llamacpp"):
    from xllamacpp import CommonParams, Server

MODULE = "dynamo_planner.mock_workers.llamacpp"

QUIET_S = 1.0
"""How long a draining worker must have had nothing to do: a request that was on its way may come, and the last bytes
of an answer leave."""

LOOKS_EVERY_S = 0.1

_INSIDE = re.compile(r"^llamacpp:requests_(?:processing|deferred) (\S+)", re.MULTILINE)
_STOP = (signal.SIGTERM, signal.SIGINT)
_WARNINGS = 2


class LlamaOptions(Frozen):
    """A worker; on the command line all fields are flags.

    >>> LlamaOptions(port=8000, model="tiny.gguf", slots=2).command()[1:]
    ['-m', 'dynamo_planner.mock_workers.llamacpp', '--port=8000', '--model=tiny.gguf', '--slots=2']
    """

    port: int = Field(ge=0, le=65_535, description="TCP port to listen on, at 127.0.0.1; 0 takes a free one")
    model: str = Field(min_length=1, description="path of the GGUF file")
    slots: int = Field(default=4, ge=1, description="requests that it works on at once")
    context_tokens: int = Field(default=4096, ge=1, description="KV cache, in tokens, shared out equally to the slots")
    threads: int = Field(default=1, ge=1, description="CPU threads of the engine")

    def command(self) -> list[str]:
        """The command that starts this worker, as a list of arguments."""
        given = self.model_dump(exclude_unset=True)
        return [sys.executable, "-m", MODULE, *(f"--{_flag(name)}={value}" for name, value in given.items())]


def _flag(name: str) -> str:
    return name.replace("_", "-")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker until a signal stops it. Returns only where it cannot start, with its exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description="A llama.cpp server that drains.")
    for name, field in LlamaOptions.model_fields.items():
        default = "" if field.is_required() else f" (default {field.default})"
        parser.add_argument(
            f"--{_flag(name)}",
            required=field.is_required(),
            default=argparse.SUPPRESS,
            help=f"{field.description}{default}",
        )
    try:
        options = LlamaOptions(**vars(parser.parse_args(arguments)))
    except ValidationError as error:
        parser.error("; ".join(f"--{_flag(str(one['loc'][0]))}: {one['msg']}" for one in error.errors()))
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)  # before the server's threads start, so that none of them gets one
    try:
        server = Server(_parameters(options))
    except RuntimeError as error:
        sys.stderr.write(f"{parser.prog}: llama.cpp did not start, the lines above say why: {error}\n")
        return 1
    sys.stderr.write(f"llama.cpp on {server.listening_address}\n")
    signal.sigwait(_STOP)
    _drain(server)
    os._exit(0)  # to take the server down in an orderly way can hang


def _parameters(options: LlamaOptions) -> CommonParams:
    parameters = CommonParams()
    parameters.model.path = options.model
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = options.port
    parameters.n_parallel = options.slots
    parameters.n_ctx = options.context_tokens
    parameters.cpuparams.n_threads = options.threads
    parameters.cpuparams_batch.n_threads = options.threads
    parameters.cache_ram_mib = 0
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = True
    parameters.warmup = False
    parameters.verbosity = _WARNINGS
    return parameters


def _drain(server: Server) -> None:
    quiet_since_s = time.monotonic()
    while time.monotonic() - quiet_since_s < QUIET_S:
        time.sleep(LOOKS_EVERY_S)
        if _INSIDE.findall(server.handle_metrics()) != ["0", "0"]:  # what cannot be read may be a request
            quiet_since_s = time.monotonic()


if __name__ == "__main__":
    raise SystemExit(main())
