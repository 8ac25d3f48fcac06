"""Pages over HTTP from many workers at once, each within a time and a size.

urllib3 does the HTTP; what is ours is the limit on the whole of a page, however slowly it trickles in, and on all of
them together.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import lru_cache
from http.client import HTTPException
from types import MappingProxyType
from typing import TypeVar

from dynamo_planner.core.extras import needs_extra

with needs_extra("scrape"):
    from urllib3 import HTTPResponse
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.exceptions import HTTPError, NewConnectionError
    from urllib3.exceptions import TimeoutError as UrllibTimeoutError
    from urllib3.util import Url, parse_url

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

MAX_THREADS = 64
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
POLL_S = 0.05
"""How often running fetches are checked for being overdue."""


MAX_ERROR_BODY_BYTES = 8192
"""How many bytes are read of a response other than 200."""


READ_ON = 16
"""Of a page that is too long, the gauges are looked for up to this multiple of the limit."""


class FetchError(Exception):
    """A page could not be fetched; the message says from where and why.

    Args:
        message: the URL without its query, and the cause.
        body: the text of a response other than 200, else empty.
        status: the status of such a response; 0 where there was none.
    """

    def __init__(self, message: str, body: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.body = body
        self.status = status


class PageText(str):
    """The text of a page, with what came beside it.

    Attributes:
        content_type: what the server calls it; empty where it does not say.
        date: the server's clock when it answered, as HTTP has it; empty where it does not say.
        shortened: whether the page was too long, and this is what ``shorten`` left of it.
    """

    content_type = ""
    date = ""
    shortened = False


@lru_cache(maxsize=2**13)
def _parsed(url: str) -> Url:
    """The parts of a URL; those of the same workers are wanted at each turn."""
    return parse_url(url)


def checked_url(url: str) -> str:
    """The base URL of a worker, without a slash at its end.

    Raises :class:`ValueError` where it is not an ``http`` or ``https`` URL with a host and nothing secret in it.

    >>> checked_url("http://127.0.0.1:8000/")
    'http://127.0.0.1:8000'
    """
    if not isinstance(url, str):
        raise ValueError(f"{url!r} is not a URL")  # noqa: TRY004  # a wrong value in a configuration
    if "@" in url:
        raise ValueError(f"the URL that ends in {url.rpartition('@')[2]!r} holds a user name or password: leave it out")
    try:
        parts = _parsed(url)
    except (HTTPError, ValueError) as error:
        raise ValueError(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in {"http", "https"} or not parts.host:
        raise ValueError(f"{url!r} is not an http:// or https:// URL with a host")
    if parts.query is not None or parts.fragment is not None:
        raise ValueError(f"{url!r} has a query or a fragment: give the base URL, and a query as access.parameters")
    return url.rstrip("/")


def same_place(url: str) -> str:
    """What is the same for all ways to write the address of a page: with a default port, in capitals, as ``localhost``.

    >>> same_place("http://LOCALHOST/a") == same_place("http://127.0.0.1:80/a")
    True
    """
    parts = _parsed(url)
    host = (parts.host or "").lower().rstrip(".")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{'127.0.0.1' if host in {'localhost', '[::1]'} else host}:{port}{parts.path or ''}"


def fetch_all(
    urls: Mapping[K, str],
    read: Callable[[K, str], T],
    *,
    timeout_s: float,
    deadline_s: float,
    max_bytes: int,
    headers: Mapping[str, str] = NO_HEADERS,
    tls: ssl.SSLContext | None = None,
    concurrent: int = MAX_THREADS,
    forms: Mapping[K, str] | None = None,
    shorten: Callable[[bytes], bytes] | None = None,
) -> dict[K, T | FetchError]:
    """Fetch pages, and return for each what ``read`` makes of its text, or why it could not be fetched.

    Pages are read as they come, so that few texts are held at a time. A redirect is not followed, so that ``headers``
    reach no other server, and no message holds what follows a ``?``. Raises nothing, where ``read`` raises nothing but
    :class:`ValueError`.

    Args:
        urls: by a key of the caller's.
        read: makes the result of a key and the text of its page, a :class:`PageText`.
        timeout_s: seconds for one page, from when it is its turn.
        deadline_s: seconds for all of them.
        max_bytes: a longer page is refused, or shortened.
        headers: sent with every request; none by default.
        tls: which certificates to trust; by default those of the system.
        concurrent: how many are fetched at a time.
        forms: encoded forms, which are posted; the others are ``GET`` requests.
        shorten: keeps of whole lines of a page that is too long what is to be read all the same.
    """
    fetches = {
        key: _Fetch(url, timeout_s, max_bytes, headers, tls, (forms or {}).get(key), shorten)
        for key, url in urls.items()
    }
    if not fetches:
        return {}

    def read_one(key: K) -> T:
        text = fetches[key].run()
        try:
            return read(key, text)
        except ValueError as error:
            raise FetchError(f"{fetches[key].name}: {error}") from None

    due_s = time.monotonic() + deadline_s
    threads = ThreadPoolExecutor(min(concurrent, len(fetches)), thread_name_prefix="scrape")
    results = {key: threads.submit(read_one, key) for key in fetches}
    try:
        pending: set[Future[T]] = set(results.values())
        while pending and time.monotonic() < due_s:
            pending = wait(pending, timeout=POLL_S).not_done
            for fetch in fetches.values():
                fetch.stop_if_overdue()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for fetch in fetches.values():
            fetch.stop()
    return {key: _failure(future, fetches[key].name, deadline_s) or future.result() for key, future in results.items()}


def _failure(future: Future[T], name: str, deadline_s: float) -> FetchError | None:
    if future.cancelled() or not future.done():
        return FetchError(f"{name}: no answer when the {deadline_s:g} s for all were over")
    error = future.exception()
    if error is None:
        return None
    # A new error, since the one that was raised keeps the text of the page alive.
    if isinstance(error, FetchError):
        return FetchError(str(error), error.body, error.status)
    return FetchError(f"{name}: {type(error).__name__}: {error}")


class _Fetch:
    """One request. ``stop`` ends it from another thread, also in the midst of a read."""

    def __init__(
        self,
        url: str,
        timeout_s: float,
        max_bytes: int,
        headers: Mapping[str, str],
        tls: ssl.SSLContext | None,
        form: str | None,
        shorten: Callable[[bytes], bytes] | None,
    ) -> None:
        self.name = url.partition("?")[0]
        self._url = url
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._headers = headers if form is None else {**headers, "Content-Type": "application/x-www-form-urlencoded"}
        self._tls = tls
        self._form = form
        self._shorten = shorten
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._due_s: float | None = None
        self._stopped = False

    def run(self) -> PageText:
        self._due_s = time.monotonic() + self._timeout_s
        try:
            connection = self._connection()
            try:
                connection.connect()
                self._stoppable(connection.sock)
                connection.request(
                    "GET" if self._form is None else "POST",
                    _parsed(self._url).request_uri,
                    body=self._form,
                    headers=self._headers,
                    preload_content=False,
                )
                with contextlib.closing(connection.getresponse()) as response:
                    return self._text(response)
            finally:
                self._stoppable(None)
                connection.close()
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            slow = isinstance(error, TimeoutError | UrllibTimeoutError) and not isinstance(error, NewConnectionError)
            if self._stopped or slow:
                raise FetchError(f"{self.name}: no answer within {self._timeout_s:g} s") from error
            raise FetchError(f"{self.name}: {str(error).rpartition(': ')[2] or type(error).__name__}") from error

    def _connection(self) -> HTTPConnection:
        parts = _parsed(self._url)
        host = (parts.host or "").strip("[]")
        if parts.scheme == "https":
            return HTTPSConnection(host, parts.port, timeout=self._timeout_s, ssl_context=self._tls)
        return HTTPConnection(host, parts.port, timeout=self._timeout_s)

    def _text(self, response: HTTPResponse) -> PageText:
        if response.status != 200:
            body = response.read(MAX_ERROR_BODY_BYTES, decode_content=False).decode(errors="replace")
            location = response.headers.get("Location", "").partition("?")[0].rpartition("@")[2][:200]
            elsewhere = f", and sends to {location}" if location else ""
            raise FetchError(f"{self.name}: it answered {response.status}, not 200{elsewhere}", body, response.status)
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            how = f"the page is packed ({encoding[:40]}), and that was not requested: switch it off at the server"
            raise FetchError(f"{self.name}: {how}")
        page, total, shortened = bytearray(), 0, False
        while chunk := response.read(65_536, decode_content=False):
            page += chunk
            total += len(chunk)
            if len(page) > self._max_bytes:
                shortened = True
                if self._shorten is not None and total <= READ_ON * self._max_bytes:
                    end = page.rfind(b"\n") + 1
                    page[:end] = self._shorten(bytes(memoryview(page)[:end]))
                if len(page) > self._max_bytes // 2:
                    raise FetchError(f"{self.name}: the page is longer than {self._max_bytes} bytes (max_bytes)")
        if self._stopped:
            raise TimeoutError
        text = PageText((self._shorten(bytes(page)) if shortened and self._shorten else page).decode(errors="replace"))
        text.content_type, text.date = (response.headers.get(name, "") for name in ("Content-Type", "Date"))
        if "Age" in response.headers:  # a cache keeps the date of long ago
            text.date = ""
        text.shortened = shortened
        return text

    def _stoppable(self, sock: socket.socket | None) -> None:
        with self._lock:
            self._socket = sock
            if self._stopped and sock is not None:
                raise TimeoutError

    def stop_if_overdue(self) -> None:
        if self._due_s is not None and time.monotonic() > self._due_s:
            self.stop()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # of the plain socket: TLS would say goodbye first, and wait
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
