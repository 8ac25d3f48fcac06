"""The profile that a policy without one has learned, out of its state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dynamo_planner.core.decision import State
from dynamo_planner.core.snapshot import Role
from dynamo_planner.policies.sla.step_capacity import StepMemory, StepModelCapacity
from dynamo_planner.profiles import Profile, ProfileError
from dynamo_planner.profiles.learned_profile import learned_fields

NOTHING = "the state has no learned curves: they come with SlaPolicy without a profile, once engines were calm"


def profile_of(state: State | Mapping[str, Any] | None, *, name: str = "learned", gpus: int = 1) -> Profile:
    """The profile that ``SlaPolicy`` without a profile has learned.

    Args:
        state: The state of a decision, of the policy alone or with guards and others around it; or its JSON.
        name: The profile's name. Default ``learned``.
        gpus: GPUs of a worker, which no metric says. Default 1.

    Prefill is that of a prefill pool and decode that of a decode pool; aggregated pools know both, and mixed steps. Of
    several pools of a role it is the one that was observed for longest. Raises :class:`ProfileError` where nothing was
    learned yet.
    """
    data = state.model_dump(mode="json") if isinstance(state, State) else state
    best: dict[Role, StepMemory] = {}
    for memory in _memories(data):
        role = memory.role
        if role and memory.drawn and (role not in best or memory.model.minutes > best[role].model.minutes):
            best[role] = memory
    found = {role: memory.learned for role, memory in best.items()}
    both = found.get("aggregated")
    prefill = both or found.get("prefill") or found.get("decode")
    decode = both or found.get("decode") or found.get("prefill")
    if prefill is None or decode is None:
        raise ProfileError(NOTHING)
    return Profile(**learned_fields(prefill, decode, aggregated=both is not None, name=name, gpus=gpus))


def _memories(data: Any) -> Iterator[StepMemory]:
    """The states of learned curves anywhere in the JSON of a state."""
    if isinstance(data, Mapping):
        if data.get("kind") == StepModelCapacity.kind and "data" in data:
            try:
                yield TypeAdapter(StepMemory).validate_python(data["data"])
            except ValidationError:
                return
        for value in data.values():
            yield from _memories(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from _memories(value)
