"""Everything between a URL and a measuring session: how prompts are written, and which limits hold."""

from __future__ import annotations

from typing import get_args

from dynamo_planner.core.snapshot import Role
from dynamo_planner.core.values import Frozen
from dynamo_planner.profiling.capacity import kv_capacity
from dynamo_planner.profiling.discover import Found, step_tokens
from dynamo_planner.profiling.engine import Limits, ProfilingError, Prompt
from dynamo_planner.profiling.experiments import Domain
from dynamo_planner.profiling.openai_client import BYTE_IDS, Api, Endpoint, HttpEngine
from dynamo_planner.profiling.stream_events import COUNT_TOKENS
from dynamo_planner.sources.access import Access

TRIAL = Prompt(64, 4)
"""The request that shows how an endpoint takes prompts."""

WORD_COUNTS = 64, 512
"""Texts of as many words show how many tokens a word has, and how many are added to each prompt."""

LONGEST, SHORTEST = 32_768, 256
"""The longest context that is measured unless told otherwise, and the shortest that is of use."""

FULL = 0.9
"""The share of the KV cache that a single request takes at most."""

REST = 64
"""Tokens of a context that the longest prompt leaves for a template and the output."""


class Wanted(Frozen):
    """What a user asks for; None is found out.

    Args:
        role: what the engine does.
        limits: what the user knows better than the engine.
        max_batch: the most requests at once.
        api: how prompts are written.
        max_isl: the longest prompt, in tokens.
    """

    role: Role = "aggregated"
    limits: Limits = Limits()
    max_batch: int = 64
    api: Api | None = None
    max_isl: int | None = None


def connect(url: str, access: Access, found: Found, api: Api | None = None) -> HttpEngine:
    """The client of an endpoint, which writes prompts as it takes them: token ids, text or chat.

    Raises :class:`ProfilingError` where it takes none of them.
    """
    problems: dict[str, list[str]] = {}
    for way in (api,) if api else get_args(Api):
        for ids in (Endpoint.ids, BYTE_IDS) if way == "tokens" else (Endpoint.ids,):
            endpoint = Endpoint(url, found.model, way, access.sent_headers(), access.tls(), ids)
            endpoint.fields = COUNT_TOKENS.get(found.engine, {})
            engine = HttpEngine(endpoint)
            try:
                _count_tokens(engine)
            except ProfilingError as error:
                problems.setdefault(str(error).removeprefix(url + ": "), []).append(way)
                engine.close()
            else:
                return engine
    said = (f"{', '.join(dict.fromkeys(ways))}: {problem}" for problem, ways in problems.items())
    raise ProfilingError(f"{url}: takes no request: {'; '.join(said)}")


def _count_tokens(engine: HttpEngine) -> None:
    """Find out how many tokens the endpoint makes of what is sent."""
    endpoint = engine.endpoint
    if endpoint.api == "tokens":
        endpoint.overhead = engine.ask(TRIAL).isl - TRIAL.isl
        return
    few, many = (engine.ask(Prompt(words, TRIAL.osl)).isl for words in WORD_COUNTS)
    endpoint.tokens_per_word = max((many - few) / (WORD_COUNTS[1] - WORD_COUNTS[0]), 0.1)
    endpoint.overhead = few - endpoint.tokens_per_word * WORD_COUNTS[0]


def domain_of(engine: HttpEngine, wanted: Wanted, limits: Limits) -> tuple[Domain, Limits]:
    """Where the curves of an engine are to be known, and its limits; those that are not told are measured.

    Raises :class:`ProfilingError` where the model's context is shorter than it says, or too short.
    """
    context = min(limits.max_context or LONGEST, LONGEST if wanted.limits.max_context is None else 1 << 30)
    if limits.kv_tokens is not None:
        context = min(context, int(FULL * limits.kv_tokens))
    if context < SHORTEST:
        raise ProfilingError(
            f"max_context is {context} tokens, and at least {SHORTEST} are needed to tell prompts apart: start the "
            "engine with a longer context"
        )
    longest = min(wanted.max_isl or context, context - REST)
    try:
        engine.ask(Prompt(longest, 1))
    except ProfilingError as error:
        raise ProfilingError(
            f"a prompt of {longest} tokens fails, so the context is shorter than {context} tokens: give --max-context. "
            f"{error}"
        ) from None
    batch = min(wanted.max_batch, limits.max_num_seqs or wanted.max_batch)
    if limits.kv_tokens is None:
        limits = limits.replace(kv_tokens=kv_capacity(engine, context, batch) or batch * context)
    step = limits.max_num_batched_tokens
    if wanted.role == "aggregated" and step is None and batch > 1:
        step = step_tokens(engine, longest)
        limits = limits.replace(max_num_batched_tokens=step)
    return (
        Domain(
            role=wanted.role,
            max_isl=longest,
            max_context=context,
            max_batch=batch,
            kv_tokens=limits.kv_tokens or batch * context,
            step_tokens=step if wanted.role == "aggregated" else None,
        ),
        limits,
    )
