"""The targets of :class:`~dynamo_planner.policies.sla.SlaPolicy` as fields of its own, beside ``sla``."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from numbers import Real
from typing import Any

from dynamo_planner.core.snapshot import Sla

TARGETS = ("ttft_ms", "itl_ms")


def with_sla(data: Any) -> Any:
    """The data of a policy with its targets in ``sla``: an ``attainment`` that is a number is the promised share.

    A wrong target is told under the name that the user wrote, and a name that is nearly one as what it should be.

    >>> with_sla({"ttft_ms": 500, "itl_ms": 25, "attainment": 0.95, "level_s": 30})
    {'level_s': 30, 'sla': Sla(ttft_ms=500.0, itl_ms=25.0, attainment=0.95)}
    """
    if not isinstance(data, Mapping):
        return data
    names = {name for name in TARGETS if name in data}
    if isinstance(data.get("attainment"), Real):
        names.add("attainment")
    if "sla" not in data:
        missing = [name for name in TARGETS if name not in data]
        misspelt = (name for name in data if name not in names and get_close_matches(str(name), missing))
        names.update(misspelt)  # which Sla refuses, by their names
    if not names:
        return data
    if "sla" in data:
        raise ValueError(f"give either sla or {' and '.join(sorted(names))}, not both")
    rest = {name: value for name, value in data.items() if name not in names}
    return {**rest, "sla": Sla.model_validate({name: data[name] for name in names})}


def schema_with_targets(schema: dict[str, Any], sla: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of the policy with its targets as fields, given the schema of ``Sla``."""
    properties = schema["properties"]
    part, share = properties["attainment"], sla["properties"]["attainment"]
    targets = {name: sla["properties"][name] for name in TARGETS}
    by_sla = {"required": ["sla"], "properties": {**dict.fromkeys(TARGETS, False), "attainment": part}}
    by_targets = {"required": list(TARGETS), "properties": {"sla": False}}
    return {
        **schema,
        "properties": {**properties, **targets, "attainment": {"anyOf": [share, part]}},
        "required": [name for name in schema["required"] if name != "sla"],
        "oneOf": [by_sla, by_targets],
    }
