"""The SLA of each profile, fixed before any policy was tuned, and the rule that gave it.

- **ITL**, decode pools: 1.5 times the ITL of a batch of 32 requests of 2,048 tokens (or of what fills half of the KV
  cache, where that is fewer). Aggregated pools: 1.25 times a step of that batch with a chunk of 512 prompt tokens, so
  that a prompt does not make all others late. Rounded up to a multiple of 5 ms.
- **TTFT**: 3 times the TTFT of the profile at the long prompts of the traffic, which are the 99th percentile of their
  lengths, rounded up to 2,048, 8,192 or 65,536 tokens; 1.5 times at the last, where a prompt takes seconds. At least
  10 ITL targets, since a first token waits for a step of decode. Rounded up to two digits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from dynamo_planner.core.snapshot import Sla
from dynamo_planner.profiles import Profile

ATTAINMENT = 0.99
BATCH, CONTEXT_TOKENS = 32, 2048
PREFILL_CHUNK, AGGREGATED_CHUNK = 8192, 512
"""Tokens of a step, of prefill and of aggregated engines."""

PROMPTS: Mapping[int, float] = {2048: 3.0, 8192: 3.0, 65536: 1.5}
"""Lengths of long prompts, and how many times their TTFT the target is."""


class Targets(NamedTuple):
    """The targets of one profile.

    Args:
        itl_ms: The ITL target of decode pools, in ms.
        aggregated_itl_ms: That of aggregated pools; ``None`` where the profile has no mixed steps.
        ttft_ms: The TTFT targets in ms, by the lengths of long prompts in :data:`PROMPTS`.
    """

    itl_ms: float
    aggregated_itl_ms: float | None
    ttft_ms: tuple[float, ...]

    def sla(self, long_prompt: float, *, aggregated: bool) -> Sla:
        """The SLA for traffic whose 99th percentile of prompt lengths is this."""
        kind = next((number for number, tokens in enumerate(PROMPTS) if long_prompt <= tokens), len(PROMPTS) - 1)
        itl_ms = (self.aggregated_itl_ms if aggregated else self.itl_ms) or math.nan
        return Sla(ttft_ms=max(self.ttft_ms[kind], 10 * itl_ms), itl_ms=itl_ms, attainment=ATTAINMENT)


def by_rule(profile: Profile) -> Targets:
    """The targets that the rule gives a profile."""
    batch = min(BATCH, 0.5 * profile.decode.max_kv_tokens / CONTEXT_TOKENS)
    itl_ms = float(profile.decode.itl_ms(batch * CONTEXT_TOKENS / profile.decode.max_kv_tokens, CONTEXT_TOKENS))
    mixed = profile.mixed
    step_ms = None if mixed is None else float(mixed.step_ms(AGGREGATED_CHUNK, batch, CONTEXT_TOKENS))
    ttft_ms = (_two_digits(times * float(profile.prefill.ttft_ms(tokens))) for tokens, times in PROMPTS.items())
    return Targets(_fives(1.5 * itl_ms), None if step_ms is None else _fives(1.25 * step_ms), tuple(ttft_ms))


def _fives(value: float) -> float:
    return 5.0 * math.ceil(value / 5.0 - 1e-9)


def _two_digits(value: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return unit * math.ceil(value / unit - 1e-9)


TABLE: Mapping[str, Targets] = {
    "MEASURED_bloom-176b_h100_splitwise_tp8": Targets(65, None, (780, 4600, 19000)),
    "MEASURED_llama2-70b_a100_splitwise_tp4": Targets(95, None, (1300, 7100, 49000)),
    "MEASURED_llama31-8b-fp8_h200_dynamo_tp1": Targets(15, None, (150, 510, 2300)),
    "deepseek-v3_h200_trtllm_tp8": Targets(40, 95, (470, 1500, 8000)),
    "gpt-oss-120b_h100_vllm_tp2": Targets(15, 35, (150, 380, 2000)),
    "llama31-70b-fp8_h200_trtllm_tp2": Targets(25, 60, (430, 1700, 12000)),
    "llama31-70b_h100_vllm_tp4": Targets(30, 55, (400, 1800, 8800)),
    "llama31-8b_a100_vllm_tp1": Targets(30, 60, (380, 1700, 15000)),
    "llama31-8b_l40s_trtllm_tp1": Targets(55, 85, (470, 2200, 19000)),
    "qwen3-32b_h100_vllm_tp2": Targets(30, 45, (330, 1500, 9500)),
}
"""What the rule gives the profiles of this benchmark; a profile of one's own gets its targets by the rule."""
