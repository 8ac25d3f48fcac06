"""What a configuration describes by a ``kind``: policies, guards, executors, sources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from inspect import isabstract
from typing import Any, ClassVar, TypeVar

from pydantic import (
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from dynamo_planner.core.registry import CustomKinds, KindError, Registry, public_name
from dynamo_planner.core.values import Frozen

C = TypeVar("C", bound="Component")


class Component(Frozen):
    """Something that is built from data with a ``kind``, such as a policy.

    ``kind`` names the class in that data: ``class Mine(Policy, kind="mine")``; left out, it is ``module:Name``.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls, kind: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.kind = kind or f"{cls.__module__}:{cls.__qualname__}"

    @model_validator(mode="before")
    @classmethod
    def _of_this_kind(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "kind" not in data:
            return data
        if data["kind"] != cls.kind:
            raise ValueError(f"kind is {data['kind']!r}, and this is of kind {cls.kind!r}")
        return {name: value for name, value in data.items() if name != "kind"}

    @model_serializer(mode="wrap")
    def _with_kind(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"kind": self.kind, **fields(self)}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        kind = {"type": "string"} if isabstract(cls) else {"const": cls.kind}
        schema["properties"] = {"kind": kind, **schema.get("properties", {})}
        schema["required"] = ["kind", *schema.get("required", [])]
        if isabstract(cls):  # a field of this type holds any kind, with the fields of that kind
            schema["additionalProperties"] = True
        return reference


class Kinds(Registry[type[C]]):
    """Subclasses of ``base`` by their kind; ``default`` is the kind of data that names none."""

    def __init__(
        self,
        what: str,
        base: type[C],
        group: str,
        shipped: Mapping[str, str] | None = None,
        *,
        default: str | None = None,
    ) -> None:
        super().__init__(what, base, group, shipped)
        self.default = default

    def class_of(self, data: Any, context: object = None) -> type[C]:
        """The class that data is for, by its kind. Raises ``ValueError`` where it has none."""
        if not isinstance(data, Mapping):
            raise ValueError(f"expected a mapping with a 'kind', got {data!r}")  # noqa: TRY004  # pydantic's own
        return self.find(data.get("kind", self.default), context)

    def build(self, data: Any, context: object = None) -> C:
        """What data describes, by its kind; as part of a validation, whose context it takes."""
        try:
            component = self.class_of(data, context)
        except KindError as error:
            kind = data.get("kind") if isinstance(data, Mapping) else data
            problem = PydanticCustomError("kind", "{problem}", {"problem": str(error)})
            details = InitErrorDetails(type=problem, loc=("kind",), input=kind)
            raise ValidationError.from_exception_data(self.what, [details]) from error
        fields = {name: value for name, value in data.items() if name != "kind"}
        return component.model_validate(fields, context=context)

    def validator(self) -> WrapValidator:
        """What makes a field of type ``base`` take data of any kind, beside what is built already."""

        def built(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
            return handler(value) if isinstance(value, self.base) else self.build(value, info.context)

        return WrapValidator(built)

    def _custom(self, kind: str, custom: CustomKinds) -> object | None:
        if ":" not in kind or "<locals>" in kind:
            defined = [each for each in _subclasses(self.base) if each.kind == kind]
            if defined:
                return defined[-1]
        return super()._custom(kind, custom)

    def _checked(self, kind: str, found: Any) -> type[C]:
        component = super()._checked(kind, found)
        if missing := getattr(component, "__abstractmethods__", None):
            raise KindError(f"{kind!r} does not implement {', '.join(sorted(missing))}, which every {self.what} does")
        return component

    def _fits(self, found: object) -> bool:
        return isinstance(found, type) and issubclass(found, self.base)

    def _must_be(self) -> str:
        return f"a subclass of {public_name(self.base)}"


def _subclasses(base: type[C]) -> Iterator[type[C]]:
    for each in base.__subclasses__():
        yield each
        yield from _subclasses(each)
