"""KEDA's external scaler: the replicas that a policy wants, for one or several ScaledObjects (extra ``keda``).

A program that decides puts what it wants into a :class:`DesiredReplicas`, and :func:`keda_server` hands it to KEDA:

>>> desired = DesiredReplicas(valid_s=60)
>>> desired.put("llm", "decode", 4)
>>> server = keda_server(desired, "127.0.0.1:0")  # a free port; server.port says which
>>> server.stop()

The ScaledObject names the pool (by default its own name is taken)::

    triggers:
      - type: external-push          # or external, which asks and is not told
        metadata:
          scalerAddress: planner.llm:9090
          pool: decode

The metric is the number of replicas and its target 1, so that the HPA comes to that number. An HPA ignores changes of
less than its tolerance, 10 % by default: of 11 replicas it does not go to 12. Where the cluster lets you, set
``behavior.scaleUp.tolerance`` and ``behavior.scaleDown.tolerance`` to 0 in ``horizontalPodAutoscalerConfig``; the same
goes for the gauge. What is unknown or older than ``valid_s`` is answered with ``UNAVAILABLE``, never with 0: KEDA then
goes by its ``fallback``, and the HPA holds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dynamo_planner.core.decision import Decision
from dynamo_planner.core.extras import needs_extra
from dynamo_planner.integrations.keda_messages import SERVICE, message

with needs_extra("keda"):
    import grpc

    from dynamo_planner.integrations.grpc_server import GrpcServer, written

METRIC = "desired-replicas"
STREAMS, UNARY = 256, 16
"""Streams and other calls at once, a thread each. Each ScaledObject with ``external-push`` holds two streams all the
time, and one beyond that is refused, so that the other calls never wait for streams."""

LOOKS_AGAIN_S = 1.0
"""How often a stream looks whether what was wanted has grown too old, or its caller is gone."""


@dataclass
class DesiredReplicas:
    """What a policy wants, by namespace and pool; any thread may put and read.

    Args:
        valid_s: Seconds after which a number that was not put again is unknown. Default 120.
        clock: A monotonic clock, in seconds.
    """

    valid_s: float = 120.0
    clock: Callable[[], float] = time.monotonic
    _wanted: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict, init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, init=False)

    def put(self, namespace: str, pool: str, replicas: int) -> None:
        """Want this many replicas of a pool."""
        with self._changed:
            self._wanted[namespace, pool] = replicas, self.clock()
            self._changed.notify_all()

    def decided(self, namespace: str, decision: Decision) -> None:
        """Want what a decision says. A pool that it holds keeps its number, until that is too old."""
        for pool, replicas in decision.targets.items():
            self.put(namespace, pool, replicas)

    def get(self, namespace: str, pool: str) -> int | None:
        """The replicas that are wanted; ``None`` where that is unknown or too old."""
        with self._changed:
            replicas, at_s = self._wanted.get((namespace, pool), (0, float("-inf")))
        return replicas if self.clock() - at_s <= self.valid_s else None

    def wait(self, timeout_s: float) -> None:
        """Return when something was put, or after a while."""
        with self._changed:
            self._changed.wait(timeout_s)


def keda_server(desired: DesiredReplicas, address: str, credentials: Any = None) -> GrpcServer:
    """Start a server at ``HOST:PORT``; with ``credentials`` of :func:`grpc.ssl_server_credentials`, over TLS.

    Raises ``OSError`` where it cannot listen there.
    """
    ended = threading.Event()
    return GrpcServer(_methods(desired, ended), SERVICE, address, credentials, STREAMS + UNARY, ended.set)


def _methods(desired: DesiredReplicas, ended: threading.Event) -> dict[str, Any]:
    streams = threading.Semaphore(STREAMS)

    def wanted(ref: Any) -> int | None:
        return desired.get(ref.namespace, ref.scalerMetadata.get("pool", "") or ref.name)

    def known(ref: Any, context: Any) -> int:
        replicas = wanted(ref)
        if replicas is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, f"{ref.namespace}/{ref.name}: what is wanted is not known")
        return replicas or 0

    def is_active(ref: Any, context: Any) -> Any:
        return message("IsActiveResponse")(result=known(ref, context) > 0)

    def stream(answers: Callable[[Any, Any], Iterator[Any]], ref: Any, context: Any) -> Iterator[Any]:
        if not streams.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"there are {STREAMS} streams already")
        try:
            yield from answers(ref, context)
        finally:
            streams.release()

    def stream_is_active(ref: Any, context: Any) -> Iterator[Any]:
        told: bool | None = None
        while context.is_active() and not ended.is_set():
            replicas = wanted(ref)
            if replicas is not None and (replicas > 0) != told:
                told = replicas > 0
                yield message("IsActiveResponse")(result=told)
            desired.wait(LOOKS_AGAIN_S)

    def stream_metric_spec(ref: Any, context: Any) -> Iterator[Any]:
        yield get_metric_spec(ref, context)  # it never changes
        while context.is_active() and not ended.wait(LOOKS_AGAIN_S):
            pass

    def get_metric_spec(_: Any, __: Any) -> Any:
        spec = message("MetricSpec")(metricName=METRIC, targetSize=1, targetSizeFloat=1.0)
        return message("GetMetricSpecResponse")(metricSpecs=[spec])

    def get_metrics(request: Any, context: Any) -> Any:
        replicas = known(request.scaledObjectRef, context)
        value = message("MetricValue")(metricName=METRIC, metricValue=replicas, metricValueFloat=float(replicas))
        return message("GetMetricsResponse")(metricValues=[value])

    ref, asked = message("ScaledObjectRef").FromString, message("GetMetricsRequest").FromString
    unary, streaming = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    return {
        "IsActive": unary(is_active, ref, written),
        "StreamIsActive": streaming(partial(stream, stream_is_active), ref, written),
        "GetMetricSpec": unary(get_metric_spec, ref, written),
        "StreamMetricSpec": streaming(partial(stream, stream_metric_spec), ref, written),
        "GetMetrics": unary(get_metrics, asked, written),
    }
