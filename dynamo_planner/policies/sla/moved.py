"""Fields of :class:`~dynamo_planner.policies.sla.SlaPolicy` that moved to its parts; each works on, with a warning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynamo_planner.core.deprecation import warn_deprecated
from dynamo_planner.core.values import Frozen, FrozenMap

REMOVED_IN = "0.4.0"

MOVED: Mapping[str, tuple[str, str]] = FrozenMap(
    {
        "method": ("sizing", "kind"),
        "max_correction": ("capacity", "max_correction"),
        "kv_transfer_ms": ("capacity", "offset_ms"),
        "quantile": ("plan", "quantile"),
        "drain_s": ("plan", "drain_s"),
        "restart_cost": ("plan", "restart_cost"),
    }
)
"""For each old field, the part that has it now, and its name there."""


def with_parts(data: Any) -> Any:
    """The data of a policy with the old fields where they belong.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     with_parts({"method": "classic", "quantile": 0.5})
    {'sizing': {'kind': 'classic'}, 'plan': {'quantile': 0.5}}
    >>> str(caught[0].message)
    'SlaPolicy.method is deprecated and is removed in 0.4.0: use sizing: {kind: ...}'
    """
    if not isinstance(data, Mapping) or not MOVED.keys() & data.keys():
        return data
    moved = {name: value for name, value in data.items() if name not in MOVED}
    for old, (part, new) in MOVED.items():
        if old not in data:
            continue
        warn_deprecated(f"SlaPolicy.{old}", f"{part}: {{{new}: ...}}", removed_in=REMOVED_IN, stacklevel=4)
        present = moved.get(part, {})
        if isinstance(present, Frozen):
            present = present.model_dump()
        moved[part] = {**present, new: data[old]}
    return moved
