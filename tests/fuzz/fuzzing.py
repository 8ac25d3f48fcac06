"""What the fuzzers have in common: atheris (libFuzzer for Python), a directory of inputs, and limits."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed: pip install atheris (there are wheels for Linux)")

BETWEEN = b"\n----\n"
"""Parts what is answered to one question from what is answered to the next."""


def instrumented() -> AbstractContextManager[None]:
    """Within it, the sources are imported so that the coverage of inputs is seen."""
    instrumenting: AbstractContextManager[None] = atheris.instrument_imports(include=["dynamo_planner.sources"])
    return instrumenting


def fuzz(about: str, one: Callable[[bytes], None], seeds: Mapping[str, bytes], longest: int) -> None:
    """Try inputs of at most ``longest`` bytes, begun with the ``seeds``, for as long as the command line says."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path)
    options = parser.parse_args()
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="fuzz-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for name, seed in seeds.items():
        (corpus / name).write_bytes(seed)
    limits = [f"-max_total_time={options.seconds}", "-timeout=5", "-rss_limit_mb=1024", f"-max_len={longest}"]
    atheris.Setup([sys.argv[0], f"-artifact_prefix={corpus}/failed-", *limits, str(corpus)], one)
    atheris.Fuzz()
