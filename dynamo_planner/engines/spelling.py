"""Names of metrics as setups spell them: with more before them, and with ``_`` where an engine writes ``:``.

Ray exports ``ray_vllm:...``, KServe ``kserve_vllm:...``, and what forwards metrics to OpenTelemetry or a cloud's own
Prometheus often allows no colon.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dynamo_planner.engines.vocabulary import Vocabulary


class Spelling(NamedTuple):
    """How a setup spells an engine's names.

    Args:
        prefix: what stands before them.
        colon: what stands for a colon.
    """

    prefix: str
    colon: str


def spelled_names(names: Iterable[str], among: Iterable[Vocabulary]) -> dict[str, str]:
    """For each of these names that is an engine's in another spelling, the engine's.

    >>> from dynamo_planner.engines.vllm import VLLM
    >>> spelled_names(["ray_vllm:num_requests_running", "vllm_request_success_total", "my_requests_total"], [VLLM])
    {'ray_vllm:num_requests_running': 'vllm:num_requests_running', \
'vllm_request_success_total': 'vllm:request_success_total'}
    """
    own: dict[str, str] = {}
    for vocabulary in among:
        for name in sorted(vocabulary.spellable_names(), key=lambda each: ":" not in each):
            own.setdefault(name.replace(":", "_"), name)
    found = {}
    for name in names:
        canonical = _canonical(name.replace(":", "_"), own)
        if canonical is not None and canonical != name:
            found[name] = canonical
    return found


def spelling_of(name: str, canonical: str) -> Spelling:
    """How a name is spelled that is an engine's.

    >>> spelling_of("ray_vllm_num_requests_running", "vllm:num_requests_running")
    Spelling(prefix='ray_', colon='_')
    """
    prefix = name[: len(name) - len(canonical)]
    place = canonical.find(":")
    return Spelling(prefix, name[len(prefix) + place] if place >= 0 else ":")


def _canonical(name: str, own: Mapping[str, str]) -> str | None:
    """The engine's name, the longest that this one ends with."""
    start = 0
    while True:
        if name[start:] in own:
            return own[name[start:]]
        start = name.find("_", start) + 1
        if not start:
            return None
