"""Fuzz the scraping sources, guided by coverage, for a while (package ``atheris``, which is libFuzzer for Python).

    python -m tests.fuzz.fuzz_sources [--seconds 60] [--corpus DIRECTORY]

The input is what a worker and a frontend answer at up to three turns. Found inputs are kept in the directory, which
begins with the tests' pages of every engine. Ends with an error, and the input in a file, where a source raises
anything but its own error, tells a number that cannot be or leaves a field unknown without saying why, takes 5 s for
one input, or 1 GiB of memory.
"""

from __future__ import annotations

from tests.fuzz.fuzzing import BETWEEN, fuzz, instrumented

with instrumented():
    from tests.support.sources.hostile import PAGES, ROLES, observe


def one(data: bytes) -> None:
    """One input: the first byte is the role of the worker, the rest its pages."""
    role = ROLES[(data[0] if data else 0) % len(ROLES)]
    observe([part.decode(errors="replace") for part in data[1:].split(BETWEEN)[:3]], role)


def seeds() -> dict[str, bytes]:
    """The tests' pages, told once and told twice."""
    return {
        f"{number}-{turns}": bytes([number]) + BETWEEN.join([page.encode(errors="replace")] * turns)
        for number, page in enumerate(PAGES)
        for turns in (1, 2)
    }


if __name__ == "__main__":
    fuzz(__doc__, one, seeds(), longest=20_000)
