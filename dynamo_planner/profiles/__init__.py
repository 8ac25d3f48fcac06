"""Measured engine performance: validation, interpolation and inversion.

>>> profile = Profile.bundled("llama31-8b_h100_vllm_tp1")
>>> limit = profile.decode.best(itl_ms=15, context=3000)
>>> round(limit.batch), round(limit.throughput)  # requests in flight, tokens/s per GPU
(66, 4419)
"""

from dynamo_planner.profiles.decode_surface import Capacity, DecodeSurface
from dynamo_planner.profiles.mixed_surface import MixedSteps
from dynamo_planner.profiles.named import NamedProfile
from dynamo_planner.profiles.points import DecodePoints, MixedPoints, PrefillPoints
from dynamo_planner.profiles.prefill_curve import PrefillCurve
from dynamo_planner.profiles.profile import Profile
from dynamo_planner.profiles.steps import StepCosts
from dynamo_planner.profiles.validation import ProfileError

__all__ = [
    "Capacity",
    "DecodePoints",
    "DecodeSurface",
    "MixedPoints",
    "MixedSteps",
    "NamedProfile",
    "PrefillCurve",
    "PrefillPoints",
    "Profile",
    "ProfileError",
    "StepCosts",
]
