"""What an endpoint says about itself: which engine it is, its limits, and how it takes prompts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.profiling.engine import Answer, Burst, Engine, Limits, ProfilingError, Prompt
from dynamo_planner.sources.access import Access
from dynamo_planner.sources.fetch import FetchError, fetch_all

with needs_extra("profile"):
    from dynamo_planner.sources.scraping.exposition import parse_page

PAGES = {
    "metrics": "/metrics",
    "models": "/v1/models",
    "slots": "/slots",
    "props": "/props",
    "sglang": "/get_server_info",
    "version": "/version",
}
TIMEOUT_S, MAX_BYTES, SERVER_ERRORS = 5.0, 1 << 24, 500

RUNNING = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "sglang:num_running_reqs",
    "sglang:num_queue_reqs",
    "llamacpp:requests_processing",
    "llamacpp:requests_deferred",
    "trtllm_num_requests_running",
    "trtllm_num_requests_waiting",
    "dynamo_frontend_inflight_requests",
)
"""Gauges whose sum is how many requests an engine has."""

CACHE_INFO = "vllm:cache_config_info"
KV_TOKENS = ("sglang:max_total_num_tokens",)

CHUNK_PROMPT = 16_384
"""The prompt, in tokens, whose computing beside a request that decodes shows in how many steps it is computed."""


@dataclass
class Found:
    """What was found out.

    Args:
        engine: the engine's name; empty where it is unknown.
        version: its version.
        model: the model that it serves.
        limits: its limits, as far as it told them.
        gpus: GPUs of a worker; None where it did not tell.
        pages: which pages answered.
        notes: what a user should know.
    """

    engine: str = ""
    version: str = ""
    model: str = ""
    limits: Limits = field(default_factory=Limits)
    gpus: int | None = None
    pages: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def discover(url: str, access: Access, model: str | None = None) -> Found:
    """Ask an endpoint about itself. Raises :class:`ProfilingError` where nothing answers."""
    texts = _pages(url, access, PAGES)
    refused = [text for text in texts.values() if isinstance(text, FetchError)]
    if any("WRONG_VERSION_NUMBER" in str(error) for error in refused):
        raise ProfilingError(f"{url}: speaks no TLS: give the URL with http://")
    if len(refused) == len(texts) and not any(error.status for error in refused):
        raise ProfilingError(
            f"{refused[0]}: nothing answers there; is the engine up, and is the URL its base, as "
            "http://localhost:8000 ?"
        )
    if any(error.status in {401, 403} for error in refused) and len(refused) == len(texts):
        raise ProfilingError(f"{refused[0]}: give its token with --token FILE, or a header with --header NAME=VALUE")
    page = {name: _json(text) for name, text in texts.items() if not isinstance(text, FetchError)}
    found = Found(pages=tuple(page))
    models = texts["models"]
    if model is None and isinstance(models, FetchError) and (models.status or 0) >= SERVER_ERRORS:
        raise ProfilingError(f"{models}: is the engine ready? Its log may say why; or name its model with --model NAME")
    _models(found, page.get("models"), model, url)
    metrics = texts["metrics"]
    if isinstance(metrics, str):
        _metrics(found, metrics)
    _llamacpp(found, page.get("slots"), page.get("props"))
    _sglang(found, page.get("sglang"))
    version = page.get("version")
    if isinstance(version, dict) and isinstance(version.get("version"), str):
        found.version = found.version or version["version"]
    return found


def is_ready(url: str, access: Access) -> bool:
    """Whether an engine takes requests: it names its models, and its health page, if any, does not say otherwise."""
    pages = _pages(url, access, {"models": PAGES["models"], "health": "/health"})
    health = pages["health"]
    ill = isinstance(health, FetchError) and health.status is not None and health.status >= SERVER_ERRORS
    return isinstance(pages["models"], str) and not ill


def requests_inside(url: str, access: Access) -> float | None:
    """How many requests the engine has by its metrics; None where it does not tell."""
    text = _pages(url, access, {"metrics": "/metrics"})["metrics"]
    if isinstance(text, FetchError):
        return None
    page = parse_page(text, frozenset(RUNNING))
    values = [value for series in page.values() for value in series.values() if value == value]  # noqa: PLR0124
    return sum(values) if values else None


def step_tokens(engine: Engine, max_isl: int) -> int:
    """The most tokens that a step computes, measured: in how many steps a long prompt is computed beside a request that
    decodes. Where it is one step, the prompt's length."""
    prompt = min(CHUNK_PROMPT, max_isl)
    answers = engine.run(Burst((Prompt(16, 200),), (Prompt(prompt, 1),) * 2, pause_s=0.2))
    chunks = [chunk_of(answers.together[0], answer) or prompt for answer in answers.chain]
    return max(chunks, default=prompt)  # a pause counts as a step more, and nothing as one less


def chunk_of(witness: Answer, long: Answer) -> int | None:
    """The tokens of a step, from a prompt that was computed beside a witness; None where it was one step.

    Limits are mostly powers of 2, and where one is in the range that the steps allow it is taken.

    >>> times = [0.01 * k for k in range(20)] + [0.2 + 0.1 * k for k in range(5)] + [0.61 + 0.01 * k for k in range(9)]
    >>> chunk_of(Answer(16, 0.0, 34, 0.0, 0.7, times), Answer(8192, 0.195, 1, 0.6, 0.6))
    2048
    """
    times = witness.token_s
    gaps = [after - before for before, after in pairwise(times)]
    inside = [after - before for before, after in pairwise(times) if after > long.sent_s and before < long.first_s]
    if not inside or not gaps:
        return None
    plain = sorted(gaps)[len(gaps) // 2]
    long_ones = [gap for gap in inside if gap > plain + 0.3 * (max(inside) - plain)]
    steps = len(long_ones)
    if steps < 2:
        return None
    powers = [1 << power for power in range(5, 18)]
    for slack in (0.0, 0.5):  # the end of a step and a pause may be taken for one another
        within = [power for power in powers if steps - 1 - slack < long.isl / power <= steps + slack]
        if within:
            return within[0]
    return int(long.isl / steps)


def _pages(url: str, access: Access, pages: Mapping[str, str]) -> dict[str, str | FetchError]:
    def text(_: str, page: str) -> str:
        return page

    return fetch_all(
        {name: url + path for name, path in pages.items()},
        text,
        timeout_s=TIMEOUT_S,
        deadline_s=2 * TIMEOUT_S,
        max_bytes=MAX_BYTES,
        headers=access.sent_headers(),
        tls=access.tls(),
    )


def _json(text: Any) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return str(text)


def _models(found: Found, page: Any, model: str | None, url: str) -> None:
    listed = page.get("data") if isinstance(page, dict) else None
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    names = [str(entry.get("id")) for entry in entries]
    if model is None and len(names) != 1:
        if isinstance(page, str) and "<html" in page[:2000].lower():
            raise ProfilingError(
                f"{url}/v1/models: it answers with a web page: give the URL of the engine, not of a site"
            )
        raise ProfilingError(
            f"{url}/v1/models: names {len(names)} models ({', '.join(names[:5])}): choose one with --model NAME"
            if names
            else f"{url}/v1/models: names no model: give it with --model NAME"
        )
    found.model = model or names[0]
    entry = next((entry for entry in entries if entry.get("id") == found.model), {})
    found.engine = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llamacpp", "tensorrt_llm": "trtllm"}.get(
        str(entry.get("owned_by", "")).lower(), ""
    )
    if (most := _count(entry.get("max_model_len"))) is not None:
        found.limits = found.limits.replace(max_context=most)


def _metrics(found: Found, text: str) -> None:
    names = set(re.findall(r"^(vllm|sglang|llamacpp|trtllm|dynamo)[:_]", text, re.MULTILINE))
    found.engine = next((name for name in ("dynamo", "vllm", "sglang", "trtllm", "llamacpp") if name in names), "") or (
        found.engine
    )
    page = parse_page(text, frozenset({CACHE_INFO, *KV_TOKENS}))
    for labels in page.get(CACHE_INFO, {}):
        told = dict(labels)
        blocks, size = _count(told.get("num_gpu_blocks")), _count(told.get("block_size"))
        if blocks and size:
            found.limits = found.limits.replace(kv_tokens=blocks * size)
    for name in KV_TOKENS:
        values = [value for value in page.get(name, {}).values() if value >= 16]
        if values:
            found.limits = found.limits.replace(kv_tokens=int(values[0]))


def _llamacpp(found: Found, slots: Any, props: Any) -> None:
    """Slots with a context each; whether they share one cache is not told, and a slot's own is the safe reading."""
    if (
        isinstance(slots, list)
        and slots
        and all(isinstance(slot, dict) and _count(slot.get("n_ctx")) for slot in slots)
    ):
        contexts = [int(slot["n_ctx"]) for slot in slots]
        found.engine = "llamacpp"
        found.limits = found.limits.replace(max_num_seqs=len(slots), max_context=min(contexts), kv_tokens=sum(contexts))
        found.notes.append(
            f"llama.cpp has {len(slots)} slots of {contexts[0]} tokens: the KV cache is taken as their sum; if they "
            f"share one (--kv-unified, also where --parallel is not given) give --kv-tokens {contexts[0]}"
        )
    if isinstance(props, dict) and isinstance(props.get("build_info"), str):
        found.version = props["build_info"]


def _sglang(found: Found, page: Any) -> None:
    if not isinstance(page, dict):
        return
    names = {
        "kv_tokens": "max_total_num_tokens",
        "max_num_seqs": "max_running_requests",
        "max_num_batched_tokens": "chunked_prefill_size",
        "max_context": "context_length",
    }
    told = {ours: value for ours, theirs in names.items() if (value := _count(page.get(theirs))) is not None}
    told = {name: value for name, value in told.items() if value >= 16 or name == "max_num_seqs"}
    found.limits = found.limits.replace(**told)
    found.gpus = _count(page.get("tp_size")) or found.gpus
    if isinstance(page.get("version"), str):
        found.version = page["version"]


def _count(value: Any) -> int | None:
    """A count of 1 or more, as a number or as text.

    >>> _count("27062"), _count(0), _count(None), _count("None")
    (27062, None, None, None)
    """
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number > 0 else None
