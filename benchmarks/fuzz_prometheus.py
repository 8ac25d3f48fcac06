"""Fuzz the Prometheus source, guided by coverage, for a while (package ``atheris``, which is libFuzzer for Python).

    python benchmarks/fuzz_prometheus.py [--seconds 60] [--corpus DIRECTORY]

The input is what a server answers to whatever it is asked. Ends with an error, and the input in a file, where the
source raises anything but its own error, tells a number that cannot be or leaves a field unknown without saying why,
takes 5 s for one input, or 1 GiB of memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed: pip install atheris (there are wheels for Linux)")

with atheris.instrument_imports(include=["dynamo_planner.sources"]):
    from tests.sources.hostile_prometheus import AT, VOCABULARIES, observe

BETWEEN_ANSWERS = b"\n----\n"


def one(data: bytes) -> None:
    """One input: the first byte is the engine, and whether it is about the past, the rest the answers in turn."""
    first = data[0] if data else 0
    answers = [part.decode(errors="replace") for part in data[1:].split(BETWEEN_ANSWERS)[:8]]
    observe(answers, first >> 1, past=bool(first & 1))


def seeds() -> list[str]:
    """Answers of every shape: values of workers, of a pool, of buckets; of names; refusals; ranges."""
    worker, name = {"instance": "w:1"}, {"__name__": "vllm:num_requests_running"}
    vectors = [
        [{"metric": labels, "value": [AT, value]} for value in ("1", "NaN", "1700000000")]
        for labels in (worker, {}, name, {"le": "0.5"}, {"le": "+Inf"}, {**worker, "num_gpu_blocks": "9"})
    ]
    ranges = [{"metric": worker, "values": [[AT - 1, "1"], [AT, "2"]]}]
    answers = [{"status": "success", "data": {"resultType": "vector", "result": each[:1]}} for each in vectors]
    answers += [{"status": "success", "data": {"resultType": "vector", "result": each}} for each in vectors]
    answers.append({"status": "success", "data": {"resultType": "matrix", "result": ranges}})
    answers.append({"status": "error", "errorType": "bad_data", "error": "no"})
    return [json.dumps(each) for each in answers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path)
    options = parser.parse_args()
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="fuzz-"))
    corpus.mkdir(parents=True, exist_ok=True)
    every = [each.encode() for each in seeds()]
    for engine in range(2 * len(VOCABULARIES)):
        for number, seed in enumerate(every):
            (corpus / f"{engine}-{number}").write_bytes(bytes([engine]) + seed)
        (corpus / f"{engine}-all").write_bytes(bytes([engine]) + BETWEEN_ANSWERS.join(every[:8]))
    limits = [f"-max_total_time={options.seconds}", "-timeout=5", "-rss_limit_mb=1024", "-max_len=8000"]
    atheris.Setup([sys.argv[0], f"-artifact_prefix={corpus}/failed-", *limits, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
