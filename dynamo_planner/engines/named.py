"""What takes the name of an engine in data: a vocabulary of metrics, or the knobs of a pool.

Names are those of the registry, and where the validation context allows it an ``EngineSpec`` of another package, as
``package.module:NAME`` or by an entry point in the group ``dynamo_planner.engines``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dynamo_planner.core.registry import CUSTOM_KIND, KindError
from dynamo_planner.engines.registry import ENGINES, frontend_vocabularies, setup_vocabularies, worker_vocabularies
from dynamo_planner.engines.vocabulary import Vocabulary


@dataclass(frozen=True)
class _Named:
    """The JSON Schema of a name, beside that of the values that the name stands for, where there are any."""

    known: Callable[[], Mapping[str, Vocabulary]]
    values: bool = True

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        shipped = {"enum": list(self.known()), "description": "the name of an engine"}
        custom = {"type": "string", "pattern": CUSTOM_KIND, "description": "one of another package"}
        return {"anyOf": [shipped, custom, *([handler(core_schema)] if self.values else [])]}


def _of_workers(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    setups = setup_vocabularies()
    vocabulary = setups[value] if value in setups else ENGINES.find(value, info.context).workers
    if vocabulary is None:
        raise ValueError(f"{value!r} has no workers of its own; those that have are {', '.join(worker_vocabularies())}")
    return vocabulary


def _of_frontend(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str):
        return value
    known = frontend_vocabularies()
    if value in known:
        return known[value]
    frontends = ENGINES.find(value, info.context).frontends if ":" in value else {}
    if len(frontends) != 1:
        raise ValueError(f"{value!r} is no frontend; there are {', '.join(known)}")
    return next(iter(frontends.values()))


WorkerVocabulary = Annotated[
    Vocabulary, BeforeValidator(_of_workers), _Named(lambda: {**worker_vocabularies(), **setup_vocabularies()})
]
"""The vocabulary of workers' metrics: the name of an engine or of a setup of one, or a vocabulary of one's own."""

FrontendVocabulary = Annotated[Vocabulary, BeforeValidator(_of_frontend), _Named(frontend_vocabularies)]
"""The vocabulary of what stands before the workers: the name of one, an engine of another package that has a single
one, or a vocabulary of one's own."""


def _with_workers(name: str) -> str:
    if name not in worker_vocabularies():
        raise ValueError(f"{name!r} is no engine with workers; those are {', '.join(worker_vocabularies())}")
    return name


WorkerEngine = Annotated[str, AfterValidator(_with_workers), _Named(worker_vocabularies, values=False)]
"""The name of an engine that has workers."""


def with_custom_knobs(data: Any, context: Any, more: str) -> Any:
    """Data with the knobs of an engine of another package under the field ``more``, in place of its name.

    For a ``model_validator`` of what has a field ``engine``. Raises ``ValueError`` where such an engine is not allowed.
    """
    engine = data.get("engine") if isinstance(data, Mapping) else None
    if not isinstance(engine, str) or engine in ENGINES:
        return data
    try:
        knobs = ENGINES.find(engine, context).knobs
    except KindError as error:
        if ":" in engine:
            raise ValueError(f"engine: {error}") from error
        return data
    return {**data, "engine": None, more: (*knobs, *(data.get(more) or ()))}
