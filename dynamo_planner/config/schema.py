"""The JSON Schema of what a configuration can name by a ``kind``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import TypeAdapter

from dynamo_planner.core.component import Kinds
from dynamo_planner.core.policy import Pipeline
from dynamo_planner.core.registry import CUSTOM_KIND

_VALIDATION: Literal["validation"] = "validation"

CUSTOM = {
    "type": "object",
    "description": "a kind of another package, where those are allowed",
    "properties": {"kind": {"type": "string", "pattern": CUSTOM_KIND}},
    "required": ["kind"],
}


def definitions(*registries: Kinds[Any]) -> dict[str, Any]:
    """The definitions of every kind that is shipped, and of each base as the choice between them."""
    described: dict[tuple[str, str], TypeAdapter[Any]] = {
        (registry.what, kind): TypeAdapter(model) for registry in registries for kind, model in registry.items()
    }
    described["policy", "pipeline"] = TypeAdapter(Pipeline)
    inputs = [(key, _VALIDATION, adapter) for key, adapter in described.items()]
    references, schema = TypeAdapter.json_schemas(inputs, ref_template="#/$defs/{model}")
    found: dict[str, Any] = schema["$defs"]
    for registry in registries:
        choices = [reference for ((what, _), _), reference in references.items() if what == registry.what]
        if registry.default is not None:
            found[registry[registry.default].__name__]["required"].remove("kind")
        found[registry.base.__name__] = {"anyOf": [*choices, CUSTOM]}
    return found
