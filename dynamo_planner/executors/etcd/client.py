"""Keys of etcd, read and replaced by compare and swap, through the JSON gateway of etcd 3.4 and later."""

from __future__ import annotations

import base64
import json
import ssl
from typing import Any, NamedTuple

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.executors import ExecutorError

with needs_extra("etcd"):
    from urllib3 import PoolManager
    from urllib3.exceptions import HTTPError

OK, UNAUTHORIZED = 200, 401
_MOST_OF_A_REFUSAL = 300


class EtcdError(ExecutorError):
    """etcd did not answer, or refused a request; the message says where, and what to do."""


class Entry(NamedTuple):
    """The value of a key, and the revision in which it was written."""

    value: bytes
    revision: int


class Etcd:
    """One member of an etcd cluster, or a proxy before it. A token that expired is renewed.

    Args:
        url: Its client URL.
        user: Name to authenticate with, together with ``password``; ``None`` is no authentication.
        password: The password of ``user``.
        tls: Context for ``https``, with a client certificate where etcd requires one; ``None`` is the default context.
        timeout_s: Seconds that a request waits for an answer (3).
    """

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 3.0,
    ) -> None:
        """Raises ``ValueError`` for an invalid URL, and for one of ``user`` and ``password`` alone."""
        if not url.startswith(("http://", "https://")) or "@" in url:
            raise ValueError(f"url: {url.rpartition('@')[2]!r} is not the http:// or https:// URL of an etcd member")
        if (user is None) != (password is None):
            raise ValueError("user and password of etcd go together: give both or none")
        self.url = url.rstrip("/")
        self._login = None if user is None else {"name": user, "password": password}
        self._token: str | None = None
        self._pool = PoolManager(ssl_context=tls, retries=False, timeout=timeout_s)

    def get(self, key: str) -> Entry | None:
        """The entry of a key, or ``None`` where there is none. Raises :class:`EtcdError`."""
        found = self._request("/v3/kv/range", {"key": _encoded(key.encode())}).get("kvs") or []
        return Entry(base64.b64decode(found[0].get("value", "")), int(found[0]["mod_revision"])) if found else None

    def replace(self, key: str, value: bytes, revision: int) -> bool:
        """Replace the value of ``revision``; returns whether the key still had it. Raises :class:`EtcdError`."""
        name = _encoded(key.encode())
        unchanged = {"key": name, "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}
        put = {"request_put": {"key": name, "value": _encoded(value), "ignore_lease": True}}
        answer = self._request("/v3/kv/txn", {"compare": [unchanged], "success": [put]})
        return bool(answer.get("succeeded", False))

    def close(self) -> None:
        """Close its connections."""
        self._pool.clear()

    def _request(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self._login is not None and self._token is None:
            self._token = str(self._post("/v3/auth/authenticate", self._login)[1].get("token"))
        status, answer = self._post(path, body)
        if status == UNAUTHORIZED and self._login is not None:
            self._token = str(self._post("/v3/auth/authenticate", self._login)[1].get("token"))
            status, answer = self._post(path, body)
        if status != OK:
            raise EtcdError(f"etcd at {self.url} refused {path}: {status}: {_refusal(answer)}")
        return answer

    def _post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        headers = {"Content-Type": "application/json", **({"Authorization": self._token} if self._token else {})}
        try:
            answer = self._pool.request("POST", f"{self.url}{path}", body=json.dumps(body), headers=headers)
            content = json.loads(answer.data)
        except (HTTPError, OSError) as error:
            raise EtcdError(f"etcd at {self.url} does not answer: {error}: check its url") from error
        except ValueError as error:
            raise EtcdError(f"what answers at {self.url} is not etcd's JSON gateway: {answer.status}") from error
        if not isinstance(content, dict):
            raise EtcdError(f"what answers at {self.url} is not etcd's JSON gateway: {answer.status}")
        if path.startswith("/v3/auth") and answer.status != OK:
            raise EtcdError(f"etcd at {self.url} did not take the user and password: {_refusal(content)}")
        return answer.status, content


def _encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def _refusal(answer: dict[str, Any]) -> str:
    return str(answer.get("message") or answer.get("error") or answer)[:_MOST_OF_A_REFUSAL]
