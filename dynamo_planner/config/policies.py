"""Policies from data: every kind of policy and guard as JSON (or YAML, extra ``cli``), and the schema of that.

>>> policy = load_policy([{"kind": "load", "decode_kv_up": 0.8}, {"kind": "gpu_budget", "max_gpus": 8}])
>>> [guard.kind for guard in policy.guards]
['gpu_budget']
>>> load_policy([{"kind": "load"}, {"kind": "gpu_budget", "max_gpu": 8}])
Traceback (most recent call last):
...
dynamo_planner.config.policies.ConfigError: policy[1].max_gpus: Field required
policy[1].max_gpu: unknown field, did you mean 'max_gpus'? allowed: max_gpus
"""

from __future__ import annotations

import difflib
import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.policy import Guard, Guarded, Node, Policy

if TYPE_CHECKING:
    from dynamo_planner.profiles import Profile

N = TypeVar("N", bound=Node)

KINDS = {
    "load": "dynamo_planner.policies.reactive:LoadPolicy",
    "sla": "dynamo_planner.policies.sla:SlaPolicy",
    "knobs": "dynamo_planner.policies.knobs:KnobPolicy",
    "schedule": "dynamo_planner.policies.schedule:Schedule",
    "static": "dynamo_planner.policies.static:StaticLaw",
    "hpa": "dynamo_planner.policies.laws.hpa:HpaLaw",
    "kpa": "dynamo_planner.policies.laws.kpa:KpaLaw",
    "keda_slo": "dynamo_planner.policies.laws.keda_slo:KedaSloLaw",
    "wva": "dynamo_planner.policies.laws.wva:WvaLaw",
    "ray_serve": "dynamo_planner.policies.laws.ray_serve:RayServeLaw",
    "guarded": "dynamo_planner.core.policy:Guarded",
    "highest": "dynamo_planner.core.combinators:Highest",
    "together": "dynamo_planner.core.combinators:Together",
    "bounds": "dynamo_planner.guards.bounds:Bounds",
    "gpu_budget": "dynamo_planner.guards.gpu_budget:GpuBudget",
    "step_limit": "dynamo_planner.guards.step_limit:StepLimit",
    "stabilization": "dynamo_planner.guards.stabilization:Stabilization",
    "pending": "dynamo_planner.guards.pending:Pending",
    "staleness": "dynamo_planner.guards.staleness:Staleness",
    "override": "dynamo_planner.guards.override:Override",
}
"""Where each kind that is shipped here lives; imported when it is asked for."""


class ConfigError(ValueError):
    """A configuration does not hold: one line for each problem, with the path of the field and what is allowed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def load_policy(source: str | Path | Mapping[str, Any] | Sequence[Any], *, allow_custom: bool = False) -> Policy:
    """Build a policy from a file (``.json``, ``.yaml``, ``.yml``) or from the data itself.

    A mapping names its ``kind``; a list is a policy followed by its guards, as ``policy | guard | guard``. A profile
    is data, the name of a bundled one, or a path, which counts from the working directory. A kind of your own is
    ``package.module:Name``, and is imported only where ``allow_custom`` says so.

    Raises :class:`ConfigError` with the path of each field that is wrong.
    """
    data = read_data(source) if isinstance(source, str | Path) else source
    return build(Policy, data, "policy", allow_custom=allow_custom)


def read_data(path: str | Path) -> Any:
    """The data in a JSON or YAML file. Raises :class:`ConfigError` where it cannot be read."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"]) from error
    if path.suffix == ".json":
        try:
            return json.loads(text)
        except ValueError as error:
            raise ConfigError([f"{path}: not JSON: {error}"]) from error
    if path.suffix in {".yaml", ".yml"}:
        with needs_extra("cli"):
            import yaml  # noqa: PLC0415
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError([f"{path}: not YAML: {' '.join(str(error).split())}"]) from error
    raise ConfigError([f"{path}: expected a file that ends in .json, .yaml or .yml"])


def build(base: type[N], data: Any, path: str, *, allow_custom: bool = False) -> N:
    """Build a node (a policy or a guard) from data; ``path`` is where the data stands, for messages."""
    if isinstance(data, base):
        return data
    if base is Policy and isinstance(data, Sequence) and not isinstance(data, str):
        return _build_pipeline(data, path, allow_custom=allow_custom)  # type: ignore[return-value]
    if not isinstance(data, Mapping):
        raise ConfigError([f"{path}: expected a mapping with a 'kind', got {data!r}"])
    node = _class_of(base, data.get("kind"), f"{path}.kind", allow_custom=allow_custom)
    fields: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in data.items():
        child = _child_of(node, name)
        try:
            if child is None:
                fields[name] = _profile(value, f"{path}.{name}") if _is_profile(node, name, value) else value
            elif child[1]:
                fields[name] = _build_many(child[0], value, f"{path}.{name}", allow_custom=allow_custom)
            else:
                fields[name] = build(child[0], value, f"{path}.{name}", allow_custom=allow_custom)
        except ConfigError as error:
            problems.extend(error.problems)
    fields.pop("kind", None)
    if problems:
        raise ConfigError(problems)
    return validated(node, fields, path)


def _build_pipeline(data: Sequence[Any], path: str, *, allow_custom: bool) -> Policy:
    if not data:
        raise ConfigError([f"{path}: an empty list; it takes a policy, and then its guards"])
    policy = build(Policy, data[0], f"{path}[0]", allow_custom=allow_custom)
    guards = [build(Guard, item, f"{path}[{n}]", allow_custom=allow_custom) for n, item in enumerate(data[1:], 1)]
    return validated(Guarded, {"policy": policy, "guards": guards}, path) if guards else policy


def _build_many(base: type[N], data: Any, path: str, *, allow_custom: bool) -> list[N]:
    if not isinstance(data, Sequence) or isinstance(data, str):
        raise ConfigError([f"{path}: expected a list, got {data!r}"])
    return [build(base, item, f"{path}[{n}]", allow_custom=allow_custom) for n, item in enumerate(data)]


def _class_of(base: type[N], kind: Any, path: str, *, allow_custom: bool) -> type[N]:
    if isinstance(kind, str) and ":" in kind and kind not in KINDS:
        return _custom_class(base, kind, path, allow_custom=allow_custom)
    found = _import(KINDS[kind]) if isinstance(kind, str) and kind in KINDS else None
    if found is None or not issubclass(found, base):
        allowed = ", ".join(_kinds_of(base))
        raise ConfigError([f"{path}: {kind!r} is no kind of {base.__name__.lower()}; allowed: {allowed}"])
    return found  # type: ignore[no-any-return]


def _custom_class(base: type[N], kind: str, path: str, *, allow_custom: bool) -> type[N]:
    if not allow_custom:
        raise ConfigError([f"{path}: {kind!r} is a kind of your own, which is not allowed here (allow_custom)"])
    try:
        found = _import(kind)
    except (ImportError, AttributeError) as error:
        raise ConfigError([f"{path}: {kind!r} cannot be imported: {error}"]) from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ConfigError([f"{path}: {kind!r} is not a subclass of dynamo_planner.{base.__name__}"])
    return found


def _import(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def _kinds_of(base: type[Node]) -> dict[str, type[Node]]:
    return {kind: node for kind, where in KINDS.items() if issubclass(node := _import(where), base)}


def _child_of(node: type[Node], name: str) -> tuple[type[Node], bool] | None:
    """The class of node that a field holds, and whether it holds several; ``None`` where it holds plain data."""
    field = node.model_fields.get(name)
    annotation = field.annotation if field else None
    many = get_origin(annotation) is tuple
    if many:
        annotation = get_args(annotation)[0]
    while get_args(annotation):
        annotation = get_args(annotation)[0]
    return (annotation, many) if isinstance(annotation, type) and issubclass(annotation, Node) else None


def _is_profile(node: type[Node], name: str, value: Any) -> bool:
    """Whether a field holds a profile, and the value names one."""
    if not isinstance(value, str) or name not in node.model_fields:
        return False
    annotation = node.model_fields[name].annotation
    return any(getattr(each, "__name__", None) == "Profile" for each in (annotation, *get_args(annotation)))


def _profile(name: str, path: str) -> Profile:
    """A bundled profile by its name, or one that is read from a path.

    Raises :class:`ConfigError` where it is neither.
    """
    from dynamo_planner.profiles import Profile, ProfileError  # noqa: PLC0415
    from dynamo_planner.profiles.files import bundled_profiles  # noqa: PLC0415

    try:
        return Profile.bundled(name) if name in bundled_profiles() else Profile.load(name)
    except ProfileError as error:
        raise ConfigError([f"{path}: {error} (bundled: {', '.join(bundled_profiles())})"]) from error


M = TypeVar("M", bound=BaseModel)


def validated(model: type[M], data: Any, path: str) -> M:
    """``model.model_validate(data)`` with each problem told by its path, what was given, and what is allowed."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError([_problem(model, details, path) for details in error.errors()]) from error


def _problem(model: type[BaseModel], details: Any, path: str) -> str:
    where, _ = _located(model, details["loc"], path)
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "extra_forbidden":
        allowed = sorted(_located(model, details["loc"][:-1], path)[1].model_fields)
        close = difflib.get_close_matches(str(details["loc"][-1]), allowed, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ";"
        return f"{where}: unknown field{hint} allowed: {', '.join(allowed)}"
    if details["type"] in {"missing", "value_error"}:
        return f"{where}: {message}"
    return f"{where}: {message} (got {details['input']!r})"


def _located(model: type[BaseModel], loc: Iterable[str | int], path: str) -> tuple[str, Any]:
    """The path of a location as a user writes it (without the tags of unions), and the type that stands there."""
    current: Any = model
    for step in loc:
        current, shown = _follow(current, step)
        if shown:
            path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path, current


def _follow(annotation: Any, step: str | int) -> tuple[Any, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get(str(step))
        return (field.annotation if field else None), True
    arguments = [argument for argument in get_args(annotation) if argument not in {type(None), Ellipsis}]
    if get_origin(annotation) is Annotated or (get_origin(annotation) in {Union, UnionType} and len(arguments) == 1):
        return _follow(arguments[0], step)
    if get_origin(annotation) in {Union, UnionType}:
        tagged = [member for member in arguments if step in _tags(member)]
        return (tagged[0], False) if tagged else (None, True)
    return (arguments[-1] if arguments else None), True


def _tags(member: Any) -> set[Any]:
    """What pydantic calls a member of a union in the location of an error."""
    if get_origin(member) is Annotated:
        member = get_args(member)[0]
    if get_origin(member) is Literal:
        return {"name"}
    kind = member.model_fields.get("kind") if isinstance(member, type) and issubclass(member, BaseModel) else None
    return {getattr(member, "__name__", None), kind.default if kind else None}


def policy_schema() -> dict[str, Any]:
    """The JSON Schema of everything that :func:`load_policy` accepts."""
    nodes = {kind: _import(where) for kind, where in KINDS.items()}
    _, schema = models_json_schema([(node, "validation") for node in nodes.values()], ref_template="#/$defs/{model}")
    definitions = schema["$defs"]
    for kind, node in nodes.items():
        definition = definitions[node.__name__]
        definition["properties"] = {"kind": {"const": kind}, **definition.get("properties", {})}
        definition["required"] = ["kind", *definition.get("required", [])]
    for definition in definitions.values():
        for name, field in definition.get("properties", {}).items():
            choices = [{"$ref": field["$ref"]}] if "$ref" in field else field.get("anyOf", [])
            if {"$ref": "#/$defs/Profile"} in choices:
                named = {"type": "string", "description": "a bundled profile's name, or a path"}
                rest = {key: value for key, value in field.items() if key not in {"$ref", "anyOf"}}
                definition["properties"][name] = {**rest, "anyOf": [named, *choices]}
    for base in (Policy, Guard):
        own = [{"$ref": f"#/$defs/{node.__name__}"} for node in nodes.values() if issubclass(node, base)]
        definitions[base.__name__] = {"oneOf": own}
    definitions["Policy"]["oneOf"].append(
        {
            "type": "array",
            "description": "a policy, and then its guards",
            "prefixItems": [{"$ref": "#/$defs/Policy"}],
            "items": {"$ref": "#/$defs/Guard"},
            "minItems": 1,
        }
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A dynamo_planner policy",
        "$ref": "#/$defs/Policy",
        "$defs": definitions,
    }
