"""Fuzz the Prometheus source, guided by coverage, for a while (package ``atheris``, which is libFuzzer for Python).

    python -m tests.fuzz.fuzz_prometheus [--seconds 60] [--corpus DIRECTORY]

The input is what a server answers to whatever it is asked. Ends with an error, and the input in a file, where the
source raises anything but its own error, tells a number that cannot be or leaves a field unknown without saying why,
takes 5 s for one input, or 1 GiB of memory.
"""

from __future__ import annotations

import json

from tests.fuzz.fuzzing import BETWEEN, fuzz, instrumented

with instrumented():
    from tests.support.sources.hostile_prometheus import AT, VOCABULARIES, observe


def one(data: bytes) -> None:
    """One input: the first byte is the engine, and whether it is about the past, the rest the answers in turn."""
    first = data[0] if data else 0
    answers = [part.decode(errors="replace") for part in data[1:].split(BETWEEN)[:8]]
    observe(answers, first >> 1, past=bool(first & 1))


def answers_of_every_shape() -> list[str]:
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


def seeds() -> dict[str, bytes]:
    """For each engine each answer alone, and all of them."""
    every = [each.encode() for each in answers_of_every_shape()]
    found: dict[str, bytes] = {}
    for engine in range(2 * len(VOCABULARIES)):
        found |= {f"{engine}-{number}": bytes([engine]) + seed for number, seed in enumerate(every)}
        found[f"{engine}-all"] = bytes([engine]) + BETWEEN.join(every[:8])
    return found


if __name__ == "__main__":
    fuzz(__doc__, one, seeds(), longest=8_000)
