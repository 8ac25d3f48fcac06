"""The messages of KEDA's external scaler, written from its published interface (extra ``keda``).

The package is ``externalscaler`` and the service ``ExternalScaler``. Fields by number:

========================  =====================================================================
``ScaledObjectRef``       ``name`` 1, ``namespace`` 2, ``scalerMetadata`` 3 (a map of strings)
``IsActiveResponse``      ``result`` 1 (bool)
``GetMetricSpecResponse``  ``metricSpecs`` 1 (of ``MetricSpec``)
``MetricSpec``            ``metricName`` 1, ``targetSize`` 2 (int64), ``targetSizeFloat`` 3
``GetMetricsRequest``     ``scaledObjectRef`` 1, ``metricName`` 2
``GetMetricsResponse``    ``metricValues`` 1 (of ``MetricValue``)
``MetricValue``           ``metricName`` 1, ``metricValue`` 2 (int64), ``metricValueFloat`` 3
========================  =====================================================================

Older KEDA reads the whole numbers and newer the floats, so both are always set.
"""

from __future__ import annotations

from typing import Any

from dynamo_planner.core.extras import needs_extra

with needs_extra("keda"):
    from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

PACKAGE = "externalscaler"
SERVICE = f"{PACKAGE}.ExternalScaler"

STRING, BOOL, INT64, DOUBLE = (
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_BOOL,
    FieldDescriptorProto.TYPE_INT64,
    FieldDescriptorProto.TYPE_DOUBLE,
)
MESSAGES: dict[str, dict[str, Any]] = {
    "ScaledObjectRef": {"name": STRING, "namespace": STRING, "scalerMetadata": "ScaledObjectRef.ScalerMetadataEntry*"},
    "IsActiveResponse": {"result": BOOL},
    "GetMetricSpecResponse": {"metricSpecs": "MetricSpec*"},
    "MetricSpec": {"metricName": STRING, "targetSize": INT64, "targetSizeFloat": DOUBLE},
    "GetMetricsRequest": {"scaledObjectRef": "ScaledObjectRef", "metricName": STRING},
    "GetMetricsResponse": {"metricValues": "MetricValue*"},
    "MetricValue": {"metricName": STRING, "metricValue": INT64, "metricValueFloat": DOUBLE},
}
"""The fields of each message in the order of their numbers; a star marks those that repeat."""


def _file() -> FileDescriptorProto:
    described = FileDescriptorProto(name="externalscaler.proto", package=PACKAGE, syntax="proto3")
    for name, fields in MESSAGES.items():
        _fill(described.message_type.add(name=name), fields)
    entry = described.message_type[0].nested_type.add(name="ScalerMetadataEntry")
    _fill(entry, {"key": STRING, "value": STRING})
    entry.options.map_entry = True
    return described


def _fill(message: DescriptorProto, fields: dict[str, Any]) -> None:
    for number, (name, kind) in enumerate(fields.items(), start=1):
        repeated = isinstance(kind, str) and kind.endswith("*")
        field = message.field.add(name=name, number=number, json_name=name)
        field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
        if isinstance(kind, str):
            field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{PACKAGE}.{kind.rstrip('*')}"
        else:
            field.type = kind


_POOL = DescriptorPool()
_POOL.Add(_file())


def message(name: str) -> Any:
    """The class of a message, by its name."""
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
