"""What came in place of a metrics page, in a few words for a message.

>>> describe_page("<!DOCTYPE html><title>Sign in</title>", "text/html; charset=utf-8")
"what came is HTML (text/html): '<!DOCTYPE html><title>Sign in</title>'"
>>> describe_page("python_info 1\\nhttp_requests_total 42\\n")
'the page has python_info, http_requests_total'
>>> described_body('{"error": {"code": 400, "message": "model name is missing from the request"}}')
'model name is missing from the request'
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from dynamo_planner.sources.fetch import FetchError

FIRST_NAMES = 5
EXCERPT_CHARS = 80

HINTS = {
    400: "does it want a parameter (access.parameters)?",
    401: "it wants credentials (access.bearer_token_file, access.basic_auth or access.headers)",
    403: "these credentials may not read it (access)",
    404: "is the page at another path (path)?",
    503: "it is starting, or has too much to do",
    **dict.fromkeys((301, 302, 303, 307, 308), "redirects are not followed: list the address that serves the page"),
}
"""What to look at, by the status that was answered."""

_SAMPLE_NAME = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:.]*)[ \t{]", re.MULTILINE)
_QUERY = re.compile(r"\?\S*")


def describe_failure(error: FetchError) -> str:
    """Why a page could not be fetched, with the words of the server and what to look at."""
    words, said = described_body(error.body), str(error)
    hint = "is it running, and is this its address?" if "refused" in said and not error.status else ""
    return "; ".join(filter(None, (said, repr(words) if words else "", HINTS.get(error.status, hint))))


def described_body(body: str) -> str:
    """The words of a server that refused: those of an error in JSON, or the beginning of its text."""
    try:
        data = json.loads(body)
    except ValueError:
        return "" if body.lstrip().startswith("<") else _excerpt(body)
    for key in ("error", "message", "detail", "error", "message"):
        data = data.get(key, data) if isinstance(data, dict) else data
    return _excerpt(data if isinstance(data, str) else body)


def unpacked(text: str) -> str:
    """The page itself, where it was sent as one JSON string (llama.cpp, builds 7010 to 7100)."""
    if text[:1] != '"':
        return text
    try:
        page = json.loads(text)
    except ValueError:
        return text
    return page if isinstance(page, str) else text


def describe_page(text: str, content_type: str = "") -> str:
    """What a page without a metric that was looked for has instead."""
    kind = content_type.partition(";")[0].strip()
    came = f" ({kind[:EXCERPT_CHARS]})" if kind else ""
    start = text[:1000].lstrip("\ufeff \t\r\n")
    if not start:
        return f"the page is empty{came}"
    if start[0] == "<":
        return f"what came is HTML{came}: {_excerpt(start)!r}"
    if start[0] in "[{":
        return f"what came is JSON{came}: {_excerpt(start)!r}"
    if start[:1] == "\x1f" or "\ufffd" in start[:20]:
        return f"what came is packed, and not text{came}"
    if "\\n" in start and len(start.splitlines()) < 2:
        return f"the ends of its lines are escaped{came}: {_excerpt(start)!r}"
    names = list(dict.fromkeys(_first_names(text)))
    if not names:
        return f"what came is no page of metrics{came}: {_excerpt(start)!r}"
    return f"the page has {', '.join(names[:FIRST_NAMES])}{' and others' if len(names) > FIRST_NAMES else ''}"


def _first_names(text: str) -> Iterator[str]:
    for line in text[:100_000].splitlines():
        if found := _SAMPLE_NAME.match(line):
            yield found[1]


def _excerpt(text: str) -> str:
    words = _QUERY.sub("?...", " ".join(text.split()))
    return words if len(words) <= EXCERPT_CHARS else f"{words[:EXCERPT_CHARS]}..."
