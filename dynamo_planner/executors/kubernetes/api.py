"""Requests to a Kubernetes API server: plain JSON, bounded waits, errors that say what failed and why.

The official client finds the credentials and keeps them fresh; its typed objects are left aside, since they take
seconds where thousands of pods are listed.
"""

from __future__ import annotations

import gc
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

from pydantic_core import from_json

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.kubernetes.api_error import BUSY, ApiError
from dynamo_planner.executors.kubernetes.credentials import has_credentials, is_stranger, load_client
from dynamo_planner.executors.kubernetes.resources import Resource
from dynamo_planner.executors.kubernetes.server_clock import ServerClock

with needs_extra("kubernetes"):
    import urllib3
    from kubernetes.client import ApiClient

logger = logging.getLogger(__name__)

FIELD_MANAGER = "dynamo-planner"

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"

LONGEST_PAUSE_S = 10.0
"""A server that requests a longer pause (``Retry-After``) is left alone until the next tick."""

RENEWED_AGAIN_S = 10.0
"""After credentials that were read again were refused too, they are left as they are for this long (seconds)."""

GONE = 410
"""The status of a page of a list that came too late, or of a version that the server no longer has."""

_CHUNK = 500  # as many as kubectl requests at a time


class _Patience(urllib3.Retry):
    """Retries that honour ``Retry-After`` up to :data:`LONGEST_PAUSE_S`, and give up where it is longer."""

    def increment(self, method: Any = None, url: Any = None, response: Any = None, *rest: Any, **named: Any) -> Self:
        if response is not None and (self.get_retry_after(response) or 0.0) > LONGEST_PAUSE_S:
            raise urllib3.exceptions.MaxRetryError(named.get("_pool"), url, None)  # type: ignore[arg-type]
        return super().increment(method, url, response, *rest, **named)


_READING = _Patience(
    total=4,
    connect=1,
    read=1,
    status_forcelist=BUSY,
    backoff_factor=0.2,
    backoff_max=2.0,
    backoff_jitter=0.1,
    raise_on_status=False,
)


class Api:
    """An API server, as reached with one set of credentials.

    Reads are retried where the server is busy or a connection breaks; writes are not, since only another read shows
    their effect. A request that the server refuses for its credentials (401) is sent again with those that
    ``renew`` reads anew: a file with a token that was replaced, a certificate, the answer of an exec plugin.

    Args:
        client: The official client, with its credentials and connections.
        namespace: Default namespace (``"default"``).
        timeout_s: Seconds that a request waits for an answer (10).
        renew: Returns a client with credentials that are read anew (``None``: there are no others).
        clock: Takes in the time of each answer.
    """

    def __init__(
        self,
        client: ApiClient,
        namespace: str = "default",
        *,
        timeout_s: float = 10.0,
        renew: Callable[[], ApiClient] | None = None,
        clock: ServerClock | None = None,
    ) -> None:
        self.namespace = namespace
        self.timeout_s = timeout_s
        self._newest: dict[tuple[Resource, str], int] = {}
        self._client = client
        self._renew = renew
        self._renew_from_s = 0.0
        self._renewing = threading.Lock()
        self.clock = clock or ServerClock()

    @classmethod
    def connect(cls, kubeconfig: Path | str | None = None, context: str | None = None, **given: Any) -> Self:
        """Credentials from ``kubeconfig`` and its ``context``, else those of the pod that this runs in, else the
        default kubeconfig. ``namespace`` becomes the one that the credentials name.

        Raises :class:`ExecutorError` where there are none, or they cannot be read.
        """
        client, namespace = load_client(kubeconfig, context)
        return cls(client, namespace, renew=lambda: load_client(kubeconfig, context)[0], **given)

    def get(
        self, resource: Resource, namespace: str, name: str, subresource: str = "", *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """One object as it is now; with a ``timeout_s`` without retries. Raises :class:`ApiError`."""
        retries = _READING if timeout_s is None else False
        return self._request("GET", resource, namespace, name, subresource, retries=retries, timeout_s=timeout_s)

    def items(
        self, resource: Resource, namespace: str, *, without: Sequence[str] = (), cached: bool = False, **query: str
    ) -> list[dict[str, Any]]:
        """All objects of a kind. Raises :class:`ApiError`.

        ``without`` are parts of each object that are not needed: ``spec``, or ``managedFields`` of its metadata.
        ``cached`` has the server answer from its cache, which spares it etcd and takes a third of the time for
        hundreds of custom resources; never with anything older than what was listed before or written through this.
        """
        newest = self._newest.pop((resource, namespace), 0)
        start = {"resourceVersion": str(newest)} if cached and newest else {"limit": str(_CHUNK)}
        try:
            found = self._listed(resource, namespace, {**query, **start}, without)
        except ApiError as error:
            if error.status != GONE:
                raise
            found = self._listed(resource, namespace, query, without)  # as client-go's pager does: all in one
        if found:
            self._newest[resource, namespace] = max(_version(item) for item in found)
        return found

    def _listed(
        self, resource: Resource, namespace: str, query: Mapping[str, str], without: Sequence[str]
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        rest = ""
        while True:
            page_query = {**query, **({"continue": rest} if rest else {})}
            page = self._request("GET", resource, namespace, query=page_query, retries=_READING)
            if "items" not in page:
                raise ApiError(f"{resource.path(namespace)}: the API server answered with something that is no list")
            for item in page["items"]:
                for part in without:
                    item.pop(part, None)
                    item["metadata"].pop(part, None)
            found += page["items"]
            rest = page["metadata"].get("continue", "")
            if not rest:
                return found

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        subresource: str,
        body: Any,
        *,
        timeout_s: float,
        dry_run: bool = False,
    ) -> dict[str, Any]:
        """Change one object: ``body`` is a merge patch, or as a list a JSON patch. Not retried."""
        query = {"fieldManager": FIELD_MANAGER, **({"dryRun": "All"} if dry_run else {})}
        kind = JSON_PATCH if isinstance(body, list) else MERGE_PATCH
        written = self._request(
            "PATCH", resource, namespace, name, subresource, query=query, body=body, kind=kind, timeout_s=timeout_s
        )
        if not dry_run:
            self._newest[resource, namespace] = _version(written)
        return written

    def create(self, resource: Resource, namespace: str, body: Any, timeout_s: float | None = None) -> dict[str, Any]:
        """Create one object. Not retried."""
        query = {"fieldManager": FIELD_MANAGER}
        return self._request("POST", resource, namespace, query=query, body=body, timeout_s=timeout_s)

    def replace(
        self, resource: Resource, namespace: str, name: str, body: Any, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Replace one object, if it still has the ``resourceVersion`` of ``body``. Not retried."""
        query = {"fieldManager": FIELD_MANAGER}
        return self._request("PUT", resource, namespace, name, query=query, body=body, timeout_s=timeout_s)

    def _request(
        self,
        method: str,
        resource: Resource,
        namespace: str,
        name: str = "",
        subresource: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        kind: str = "application/json",
        retries: urllib3.Retry | bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        path = resource.path(namespace, *(quote(part, safe="") for part in (name, subresource) if part))
        doing = f"{method} {path}"
        sent = json.dumps(body).encode() if body is not None else None

        def send(client: ApiClient) -> urllib3.BaseHTTPResponse:
            asked_s = self.clock.steady_s
            settings = client.configuration.auth_settings().values()
            authorization = {each["key"]: each["value"].strip() for each in settings}
            pool: urllib3.PoolManager = client.rest_client.pool_manager
            answer = pool.request(
                method,
                f"{client.configuration.host}{path}" + (f"?{urlencode(query)}" if query else ""),
                body=sent,
                headers={"Accept": "application/json", "Content-Type": kind, **authorization},
                timeout=urllib3.Timeout(total=timeout_s or self.timeout_s),
                retries=retries,
            )
            self.clock.heard(answer.headers.get("Date"), asked_s)
            return answer

        client = self._client
        try:
            answer = send(client)
            if is_stranger(answer) and self._renewed(client):
                answer = send(self._client)
                if is_stranger(answer):
                    self._renew_from_s = time.monotonic() + RENEWED_AGAIN_S
            content = _json(answer.data)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            why = getattr(error, "reason", None) or error  # a MaxRetryError repeats the request before its reason
            raise ApiError(f"{doing}: the API server at {client.configuration.host} did not answer: {why}") from error
        if answer.status >= 300 or not isinstance(content, dict):
            status = content if isinstance(content, dict) else {}
            reason = status.get("message") or answer.data[:200].decode(errors="replace").strip()
            causes = (status.get("details") or {}).get("causes") or ()
            message = f"{doing}: {answer.status} {answer.reason}: {reason}"
            raise ApiError(message, answer.status, _pause_of(answer), causes)
        return content

    def _renewed(self, refused: ApiClient) -> bool:
        """Read the credentials anew after the server refused those of this client; false where that fails."""
        with self._renewing:
            if self._client is not refused:
                return True  # another thread did
            if self._renew is None or time.monotonic() < self._renew_from_s:
                return False
            try:
                client = self._renew()
            except ExecutorError as error:
                logger.warning("the API server refused the credentials, and no others can be read: %s", error)
            else:
                if has_credentials(client) or not has_credentials(refused):
                    self._client = client
                    logger.info("the API server refused the credentials, and they were read again")
                    return True
                logger.warning("the API server refused the credentials, and there are none any more")
            self._renew_from_s = time.monotonic() + RENEWED_AGAIN_S
            return False


def _version(obj: Mapping[str, Any]) -> int:
    """An object's own version. That of a whole list would not do: a cache may lag behind it where nothing changes."""
    return int(obj["metadata"]["resourceVersion"])


def _pause_of(answer: urllib3.BaseHTTPResponse) -> float | None:
    """The seconds of ``Retry-After``, or ``None`` where there is none that can be read."""
    with suppress(urllib3.exceptions.InvalidHeader):
        return _Patience().get_retry_after(answer)
    return None


def _json(data: bytes) -> Any:
    """What a JSON text holds, or ``None`` where it is none.

    Without the garbage collector, which would look in vain through every object of a long list, several times over,
    and take most of the time that reading 2,000 pods takes.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return from_json(data)
    except ValueError:
        return None
    finally:
        if collects:
            gc.enable()
