"""Messages of Protocol Buffers from tables of their fields, so that no generated code is shipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

STRING, BOOL, INT32, INT64, DOUBLE = (
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_BOOL,
    FieldDescriptorProto.TYPE_INT32,
    FieldDescriptorProto.TYPE_INT64,
    FieldDescriptorProto.TYPE_DOUBLE,
)

Fields = Mapping[tuple[int, str], Any]
"""A field by its number and name: its type, or the name of a message, with a star where it repeats. ``map`` is a map of
strings."""

MAP = "map"


class Messages:
    """The messages of a package.

    Every field says whether it was set, also one that has the value 0, as an ``optional`` of proto3 does; on the wire
    it is the same.

    Args:
        package: the package.
        messages: the fields of each message; those that are left out are skipped when they are read.

    >>> made = Messages("example", {"Point": {(1, "x"): DOUBLE, (3, "labels"): MAP}})
    >>> made("Point")(x=0.0, labels={"a": "b"}).SerializeToString()
    b'\\t\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x1a\\x06\\n\\x01a\\x12\\x01b'
    """

    def __init__(self, package: str, messages: Mapping[str, Fields]) -> None:
        self.package = package
        described = FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
        for name, fields in messages.items():
            _fill(described.message_type.add(name=name), fields, package)
        self._pool = DescriptorPool()
        self._pool.Add(described)

    def __call__(self, name: str) -> Any:
        """The class of a message, by its name."""
        return GetMessageClass(self._pool.FindMessageTypeByName(f"{self.package}.{name}"))


def _fill(message: DescriptorProto, fields: Fields, package: str) -> None:
    for (number, name), kind in fields.items():
        field = message.field.add(name=name, number=number, json_name=name)
        repeated = isinstance(kind, str) and (kind == MAP or kind.endswith("*"))
        field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        if not isinstance(kind, str):
            field.type = kind
            continue
        field.type, entry = FieldDescriptorProto.TYPE_MESSAGE, kind.rstrip("*")
        if kind == MAP:
            pair = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry")
            _fill(pair, {(1, "key"): STRING, (2, "value"): STRING}, package)
            pair.options.map_entry = True
            entry = f"{message.name}.{pair.name}"
        field.type_name = f".{package}.{entry}"
