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

from dynamo_planner.core.extras import needs_extra

with needs_extra("keda"):
    from dynamo_planner.integrations.protobuf import BOOL, DOUBLE, INT64, MAP, STRING, Messages

PACKAGE = "externalscaler"
SERVICE = f"{PACKAGE}.ExternalScaler"

message = Messages(
    PACKAGE,
    {
        "ScaledObjectRef": {(1, "name"): STRING, (2, "namespace"): STRING, (3, "scalerMetadata"): MAP},
        "IsActiveResponse": {(1, "result"): BOOL},
        "GetMetricSpecResponse": {(1, "metricSpecs"): "MetricSpec*"},
        "MetricSpec": {(1, "metricName"): STRING, (2, "targetSize"): INT64, (3, "targetSizeFloat"): DOUBLE},
        "GetMetricsRequest": {(1, "scaledObjectRef"): "ScaledObjectRef", (2, "metricName"): STRING},
        "GetMetricsResponse": {(1, "metricValues"): "MetricValue*"},
        "MetricValue": {(1, "metricName"): STRING, (2, "metricValue"): INT64, (3, "metricValueFloat"): DOUBLE},
    },
)
"""The class of a message, by its name."""
