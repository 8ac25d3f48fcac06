"""Knobs of Dynamo's disaggregated router, which say when prefill stays local: keys in etcd that the router watches.

=================  ==========================================================  =====================================
router             key                                                         value
=================  ==========================================================  =====================================
Python (0.1-0.3)   ``/NAMESPACE/disagg_router/max_local_prefill_length``       a decimal number
                   ``/NAMESPACE/disagg_router/max_prefill_queue_size``         a decimal number
Rust (0.2-0.9)     ``public/components/disagg_router/models/chat/MODEL``       JSON, ``max_local_prefill_length`` in
                                                                               it; other fields are left as they are
=================  ==========================================================  =====================================

A key that does not exist is not created: the router writes it when it starts, and without a router it has no effect.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from dynamo_planner.core.decision import Action, Decision, Outcome, Reason, SetKnob
from dynamo_planner.core.snapshot import PoolSpec, Replicas
from dynamo_planner.core.values import KnobValue
from dynamo_planner.engines import KnobError, catalogue, check_knobs
from dynamo_planner.engines.standard_knobs import LOCAL_PREFILL, PREFILL_QUEUE
from dynamo_planner.executors import (
    ConsidersLoad,
    Executor,
    RecordsDecisions,
    ReportsKnobs,
    ReportsTroubles,
    ReportsUnknown,
)
from dynamo_planner.executors.etcd.client import Entry, Etcd, EtcdError

logger = logging.getLogger(__name__)

KNOBS = {name: catalogue("dynamo")[name] for name in (LOCAL_PREFILL, PREFILL_QUEUE)}


class RouterKnobs:
    """The knobs of one router.

    Args:
        etcd: The etcd that the router watches.
        namespace: Namespace of a Python router; give either this or ``model``.
        model: Model of a Rust router.
    """

    def __init__(self, etcd: Etcd, *, namespace: str | None = None, model: str | None = None) -> None:
        """Raises ``ValueError`` where both are given, or none."""
        if (namespace is None) == (model is None):
            raise ValueError("the router is that of a namespace (Python) or of a model (Rust): give one of the two")
        self._etcd = etcd
        prefix = f"/{namespace}/disagg_router/"
        self._keys = (
            {LOCAL_PREFILL: f"public/components/disagg_router/models/chat/{model}"}
            if model is not None
            else {LOCAL_PREFILL: f"{prefix}{LOCAL_PREFILL}", PREFILL_QUEUE: f"{prefix}{PREFILL_QUEUE}"}
        )
        self._is_json = model is not None

    def read(self) -> dict[str, KnobValue]:
        """The knobs whose keys exist. Raises :class:`EtcdError`."""
        values: dict[str, KnobValue] = {}
        for knob, key in self._keys.items():
            entry = self._etcd.get(key)
            if entry is not None:
                values[knob] = self._value(knob, key, entry)
        return values

    def _value(self, knob: str, key: str, entry: Entry) -> int:
        try:
            number = json.loads(entry.value)[knob] if self._is_json else entry.value.decode().strip()
            if isinstance(number, bool):
                raise TypeError
            return int(number)
        except (ValueError, KeyError, TypeError):
            raise EtcdError(f"{key} is {entry.value[:80]!r}, which has no {knob}: correct or delete it") from None

    def set_knob(self, action: SetKnob) -> Outcome:
        """Write a value in the router's own format if the present one is as expected, and report the outcome."""
        key = self._keys.get(action.knob)
        if key is None:
            message = f"the router has no knob {action.knob!r}; there are {', '.join(self._keys)}"
            return Outcome(action=action, status="refused", message=message)
        try:
            check_knobs(KNOBS, {action.knob: action.value})
            entry = self._etcd.get(key)
            if entry is None:
                message = f"there is no key {key}: the router writes it when it starts"
                return Outcome(action=action, status="refused", message=message)
            present = self._value(action.knob, key, entry)
            if present == action.value:
                return Outcome(action=action, status="unchanged", message=f"{action.knob} is {present}")
            if action.expected is not None and action.expected != present:
                message = f"{action.knob} is {present}, not {action.expected}, which this was decided for"
                return Outcome(action=action, status="refused", message=message)
            written = self._etcd.replace(key, self._encoded(entry, action.knob, int(action.value)), entry.revision)
        except KnobError as error:
            return Outcome(action=action, status="refused", message=str(error))
        except EtcdError as error:
            return Outcome(action=action, status="failed", message=str(error))
        message = f"{action.knob} {present} -> {action.value}"
        if not written:
            message = f"{key} was written by another client meanwhile, the next tick tries again"
        return Outcome(action=action, status="applied" if written else "refused", message=message)

    def _encoded(self, entry: Entry, knob: str, value: int) -> bytes:
        if not self._is_json:
            return str(value).encode()
        fields: dict[str, Any] = {**json.loads(entry.value), knob: value}
        return json.dumps(fields, separators=(",", ":")).encode()


class WithRouter:
    """An executor, with the router's knobs as those of the service.

    Args:
        executor: Acts on everything else.
        router: The knobs of the router.
    """

    def __init__(self, executor: Executor, router: RouterKnobs) -> None:
        self.executor, self.router = executor, router
        self._values: Mapping[str, KnobValue] = {}

    @property
    def pools(self) -> Mapping[str, PoolSpec]:
        """The pools of the executor."""
        return self.executor.pools

    @property
    def knobs(self) -> Mapping[str | None, Mapping[str, KnobValue]]:
        """The knobs of its pools, and of the service as they were last read."""
        own = self.executor.knobs if isinstance(self.executor, ReportsKnobs) else {}
        return {**own, None: self._values}

    @property
    def unknown(self) -> Mapping[str, str]:
        """Why its replicas are unknown."""
        return self.executor.unknown if isinstance(self.executor, ReportsUnknown) else {}

    def observe(self) -> Mapping[str, Replicas | None]:
        """The replicas; where etcd cannot be read, the service has no knobs, which is logged."""
        try:
            self._values = self.router.read()
        except EtcdError as error:
            logger.warning("the router's knobs are unknown: %s", error)
            self._values = {}
        return self.executor.observe()

    def apply(self, actions: Sequence[Action]) -> tuple[Outcome, ...]:
        """Knobs of the service go to the router, everything else to the executor."""
        others = iter(self.executor.apply([action for action in actions if not _is_of_service(action)]))
        return tuple(
            self.router.set_knob(action) if isinstance(action, SetKnob) and action.pool is None else next(others)
            for action in actions
        )

    @property
    def troubles(self) -> Sequence[Reason]:
        """What keeps its replicas from starting, serving or ending."""
        return self.executor.troubles if isinstance(self.executor, ReportsTroubles) else ()

    def consider(self, requests: Mapping[str, Mapping[str, float]]) -> None:
        """Pass the requests of each worker on, if the executor considers them."""
        if isinstance(self.executor, ConsidersLoad):
            self.executor.consider(requests)

    def tell(self, decision: Decision, outcomes: tuple[Outcome, ...]) -> None:
        """Pass the decision on, if the executor records decisions."""
        if isinstance(self.executor, RecordsDecisions):
            self.executor.tell(decision, outcomes)


def _is_of_service(action: Action) -> bool:
    return isinstance(action, SetKnob) and action.pool is None
