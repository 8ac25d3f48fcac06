"""The standard names of knobs, and the two knobs that every engine has under a name of its own.

A standard name is vLLM's, or Dynamo's for its router; policies and the simulator know only these.
"""

from __future__ import annotations

from typing import Any, get_args

from dynamo_planner.core.snapshot import Role
from dynamo_planner.engines.knob import Knob

CHUNK, SEQUENCES, MICRO = "max_num_batched_tokens", "max_num_seqs", "max_num_ubatch_tokens"
"""Tokens in one step of an engine, sequences in its batch, and tokens that are computed at once (llama.cpp)."""

LOCAL_PREFILL, PREFILL_QUEUE = "max_local_prefill_length", "max_prefill_queue_size"
EFFECTIVE_ISL, EFFECTIVE_RATIO = "eff_isl_threshold", "eff_isl_ratio_threshold"
"""Knobs of Dynamo's router: when a prompt goes to a prefill worker."""

EVERY_ROLE: tuple[Role, ...] = get_args(Role)


def batched_tokens_knob(own_name: str, argument: str, **more: Any) -> Knob:
    """The knob for the tokens in one step; ``more`` are fields of :class:`Knob` that differ, such as its range."""
    trades = "the TTFT of long prompts, and throughput, for the longest gap between tokens"
    limits = {"minimum": 64, "maximum": 131_072, "step": 1, **more}
    return Knob(name=CHUNK, own_name=own_name, argument=argument, roles=EVERY_ROLE, trades=trades, **limits)


def sequences_knob(own_name: str, argument: str, **more: Any) -> Knob:
    """The knob for the sequences in a batch; ``more`` are fields of :class:`Knob` that differ, such as its range."""
    trades = "waiting for a place in the batch for ITL and KV cache"
    limits = {"minimum": 1, "maximum": 4096, **more}
    return Knob(name=SEQUENCES, own_name=own_name, argument=argument, roles=EVERY_ROLE, trades=trades, **limits)
