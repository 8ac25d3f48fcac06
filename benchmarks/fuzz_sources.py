"""Fuzz the scraping sources, guided by coverage, for a while (package ``atheris``, which is libFuzzer for Python).

    python benchmarks/fuzz_sources.py [--seconds 60] [--corpus DIRECTORY]

The input is what a worker and a frontend answer at up to three turns. Found inputs are kept in the directory, which
begins with the tests' pages of every engine. Ends with an error, and the input in a file, where a source raises
anything but its own error, tells a number that cannot be or leaves a field unknown without saying why, takes 5 s for
one input, or 1 GiB of memory.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed: pip install atheris (there are wheels for Linux)")

with atheris.instrument_imports(include=["dynamo_planner.sources"]):
    from tests.sources.hostile import ROLES, observe
    from tests.sources.test_hostile import PAGES

BETWEEN_TURNS = b"\n----\n"


def one(data: bytes) -> None:
    """One input: the first byte is the role of the worker, the rest its pages."""
    role = ROLES[(data[0] if data else 0) % len(ROLES)]
    observe([part.decode(errors="replace") for part in data[1:].split(BETWEEN_TURNS)[:3]], role)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path)
    options = parser.parse_args()
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="fuzz-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for number, page in enumerate(PAGES):
        for turns in (1, 2):
            seed = bytes([number]) + BETWEEN_TURNS.join([page.encode(errors="replace")] * turns)
            (corpus / f"{number}-{turns}").write_bytes(seed)
    limits = [f"-max_total_time={options.seconds}", "-timeout=5", "-rss_limit_mb=1024", "-max_len=20000"]
    atheris.Setup([sys.argv[0], f"-artifact_prefix={corpus}/failed-", *limits, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
