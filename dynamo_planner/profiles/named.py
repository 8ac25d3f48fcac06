"""A field that takes a profile, or names one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dynamo_planner.core.registry import READ_FILES
from dynamo_planner.profiles.profile import Profile


class _Named:
    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        name = {"type": "string", "description": "a bundled profile's name, or a path"}
        return {"anyOf": [name, handler(core_schema)]}


def _by_name(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    reads_files = isinstance(info.context, Mapping) and info.context.get(READ_FILES)
    return Profile.named(value) if reads_files else Profile.bundled(value)


NamedProfile = Annotated[Profile, BeforeValidator(_by_name), _Named()]
"""A profile, or the name of a bundled one; in a configuration file, also a path, which counts from the working
directory."""
