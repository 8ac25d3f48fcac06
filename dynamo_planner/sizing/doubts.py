"""What a profile does not know although sizing goes by it."""

from __future__ import annotations

from dynamo_planner.core.snapshot import Role
from dynamo_planner.profiles import Profile
from dynamo_planner.profiles.points import GPUS_ASSUMED
from dynamo_planner.sizing.result import Fact

THIN_BATCH = 2.0
"""A profile without a point of as many requests in flight says nothing of batches."""

THIN_SPREAD = 1.25
"""One whose largest batch is less than this many times its smallest says nothing of how steps grow with the batch."""


def doubts_of(profile: Profile, role: Role) -> tuple[Fact, ...]:
    """The facts about a profile that a reader of a number for this role has to know.

    >>> doubts_of(Profile.bundled("llama31-8b_h100_vllm_tp1"), "decode")
    ()
    """
    doubts = []
    least = min(profile.decode_points.batch)
    if role != "prefill" and THIN_BATCH <= profile.max_batch < THIN_SPREAD * least:
        message = (
            f"every decode point of profile {profile.name!r} has about {least:.3g} requests in flight, so how much "
            "slower more make a step is guessed: measure other batches"
        )
        doubts.append(Fact("ThinProfile", message, {"max_batch": profile.max_batch}))
    elif role != "prefill" and profile.max_batch < THIN_BATCH:
        message = (
            f"no decode point of profile {profile.name!r} has more than {profile.max_batch:.3g} requests in flight, so "
            "a replica is given no more: measure larger batches"
        )
        doubts.append(Fact("ThinProfile", message, {"max_batch": profile.max_batch}))
    assumed = profile.about.get(GPUS_ASSUMED)
    if role == "prefill" and isinstance(assumed, int):
        message = (
            f"the files of profile {profile.name!r} do not tell the GPUs of a prefill worker: taken for {assumed}, as "
            f"for decode, with {profile.prefill_points.ranks} prompts at once; else put prefill_gpus into meta.json"
        )
        doubts.append(Fact("GpusAssumed", message, {"gpus": float(assumed)}))
    return tuple(doubts)
