"""Leader election among several planners, with a Lease of ``coordination.k8s.io``.

The rules are those of Kubernetes' own components (client-go ``tools/leaderelection``): a record with the holder and how
long it may be silent, changed only by compare and swap, and judged by each candidate's own clock from when it observed
the record change, since clocks of machines differ.

The leader stops writing two thirds into the lease after it began its
last renewal; a candidate takes a lease over only after it has observed no renewal for longer than that.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any

from dynamo_planner.executors.kubernetes.api import Api
from dynamo_planner.executors.kubernetes.api_error import ApiError
from dynamo_planner.executors.kubernetes.resources import LEASES

logger = logging.getLogger(__name__)

_HELD_SHARE = 2 / 3
_TAKEN_SHARE = 0.8  # with the time until a candidate sees the last renewal, a lease is taken over within its length
_TRIES_PER_LEASE = 7.5  # 2 s of 15 s, as client-go has it


class Election:
    """Campaigns for a lease in a thread of its own, renews it while it leads, and releases it at the end.

    A leader that dies is replaced within ``lease_s``; one that ends in order, at once. Needs the rights ``get``,
    ``create`` and ``update`` on leases.

    Args:
        api: The API server.
        namespace: Namespace of the lease.
        name: Name of the lease.
        lease_s: Seconds without a renewal after which another planner leads (15).
        identity: Name of this candidate; ``None`` makes one of the host name and a random part.
    """

    def __init__(self, api: Api, namespace: str, name: str, *, lease_s: int = 15, identity: str | None = None) -> None:
        self._api, self._namespace, self._name, self._lease_s = api, namespace, name, lease_s
        self.identity = identity or f"{socket.gethostname()}_{secrets.token_hex(4)}"
        self.term = 0
        """How often this planner has become the leader."""
        self._retry_s = lease_s / _TRIES_PER_LEASE
        self._pause_s = self._retry_s
        self._timeout_s = api.timeout_s
        self._held_until_s = 0.0
        self._record: dict[str, Any] | None = None
        self._changed_s = 0.0
        self._trouble = ""
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def leader(self) -> str:
        """The holder of the lease, as far as this candidate knows."""
        return str(self._record.get("holderIdentity") or "no one") if self._record else "no known planner"

    def time_left_s(self) -> float:
        """For how many seconds this planner certainly leads; 0 where it does not."""
        return max(0.0, self._held_until_s - time.monotonic())

    def start(self, *, waits: bool = False) -> None:
        """Campaign once now, then from a thread.

        Raises :class:`ApiError` where the lease cannot be read or written; one that ``waits`` logs it and goes on.
        """
        if self._thread is None:
            self._end.clear()
            try:
                self._campaign()
            except ApiError as error:
                if not waits:
                    raise
                self._trouble = str(error)
                logger.warning("the lease %s: %s; waiting for it", self._name, error)
            self._timeout_s = self._lease_s / 3  # two tries, before a lease that cannot be renewed is given up
            self._thread = threading.Thread(target=self._keep_campaigning, name="dynamo-planner lease", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop campaigning, and release the lease where this planner holds it."""
        if self._thread is None:
            return
        self._end.set()
        self._thread.join()
        self._thread = None
        if self.time_left_s() > 0:
            self._held_until_s = 0.0
            try:
                self._write(self._read(), holder="")
            except ApiError as error:
                logger.warning("the lease %s runs out by itself: %s", self._name, error)

    def _keep_campaigning(self) -> None:
        while not self._end.wait(self._pause_s):
            led = self.time_left_s() > 0
            self._pause_s = self._retry_s
            try:
                self._campaign()
                self._trouble = ""
            except Exception as error:
                if str(error) != self._trouble:
                    expected = isinstance(error, ApiError)
                    logger.warning("the lease %s: %s", self._name, error, exc_info=None if expected else error)
                self._trouble = str(error)
            if led and self.time_left_s() == 0:
                logger.warning("%s no longer leads: %s holds the lease %s", self.identity, self.leader, self._name)

    def _campaign(self) -> None:
        began_s = time.monotonic()
        lease = self._read()
        self._note(lease)
        spec = (lease or {}).get("spec") or {}
        holder = spec.get("holderIdentity")
        if holder and holder != self.identity:
            self._held_until_s = 0.0
            taken_s = self._changed_s + _TAKEN_SHARE * float(spec.get("leaseDurationSeconds") or self._lease_s)
            left_s = taken_s - time.monotonic()
            if left_s > 0:
                self._pause_s = min(self._retry_s, left_s)
                return
        led = self.time_left_s() > 0
        try:
            self._note(self._write(lease, holder=self.identity))
        except ApiError as error:
            if error.status == 409:  # another candidate was faster; the next campaign shows who
                self._held_until_s = 0.0
                return
            raise
        self._held_until_s = began_s + _HELD_SHARE * self._lease_s
        if not led:
            self.term += 1
            logger.info("%s leads: it holds the lease %s", self.identity, self._name)

    def _note(self, lease: dict[str, Any] | None) -> None:
        record = (lease or {}).get("spec") or {}
        if record != self._record:
            self._record, self._changed_s = record, time.monotonic()

    def _read(self) -> dict[str, Any] | None:
        try:
            return self._api.get(LEASES, self._namespace, self._name, timeout_s=self._timeout_s)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def _write(self, lease: dict[str, Any] | None, holder: str) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        before = (lease or {}).get("spec") or {}
        changes_hands = holder != before.get("holderIdentity")
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": self._lease_s,
            "acquireTime": now if changes_hands else before.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (1 if changes_hands and holder else 0),
        }
        if lease is None:
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self._name}}
            return self._api.create(LEASES, self._namespace, {**body, "spec": spec}, timeout_s=self._timeout_s)
        body = {**lease, "spec": spec}
        return self._api.replace(LEASES, self._namespace, self._name, body, timeout_s=self._timeout_s)
