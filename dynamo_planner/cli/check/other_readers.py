"""Whether another client reads llama.cpp's metrics, and so spoils what is averaged since they were last read.

llama.cpp's gauges ``prompt_tokens_seconds`` and ``predicted_tokens_seconds`` are averages since the page was last read,
by any client: each reader has them start anew for all others. The planner does not use them. Its totals grow however
often they are read, so that both together tell whether another client read in between: what was computed since the
last reading here has the average that is reported, or another client took a part of it. Of the two averages the one of
prompts is exact; the other one leaves out the first token of each request.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from dynamo_planner.sources.fetch import FetchError, fetch_all
from dynamo_planner.sources.scraping.exposition import parse_page
from dynamo_planner.sources.scraping.request import DEFAULT_PAGE, PageRequest
from dynamo_planner.sources.series import Page

AVERAGE = "llamacpp:prompt_tokens_seconds"
TOKENS, SECONDS = "llamacpp:prompt_tokens_total", "llamacpp:prompt_seconds_total"
NAMES = frozenset({AVERAGE, TOKENS, SECONDS})

DIGITS = 6
"""As many of a number stand on the page."""

TOO_COARSE = 0.2
"""Relative error of a difference between two totals beyond which it tells nothing."""

SPOILT = (
    "another client reads its metrics, too: {name} was {reported:g} where {real:g} tokens/s were computed since the "
    "page was last read here. Averages since the last reading are of no use to either of the two (this planner reads "
    "totals): draw rate() over the totals instead, or let only one of them read"
)
ALONE = "no other client read its metrics within {seconds:g} s"
IDLE = "it computed too little within {seconds:g} s to tell whether another client reads its metrics, too"


def other_readers(urls: Mapping[str, str], watch_s: float, request: PageRequest | None = None) -> dict[str, str]:
    """What is to be said of each llama.cpp worker, by name, from reading it twice. One that cannot be read is left out.

    >>> page = "llamacpp:prompt_tokens_total {}\\nllamacpp:prompt_seconds_total {}\\nllamacpp:prompt_tokens_seconds {}"
    >>> compared(page.format(100, 2, 9), page.format(300, 4, 100), 5)
    'no other client read its metrics within 5 s'
    >>> compared(page.format(100, 2, 9), page.format(300, 4, 70), 5)[:67]
    'another client reads its metrics, too: llamacpp:prompt_tokens_secon'
    >>> compared(page.format(100, 20000.1, 9), page.format(300, 20000.2, 70), 5)[:22]
    'it computed too little'
    """
    asked = request or PageRequest()
    before = _pages(urls, asked)
    time.sleep(watch_s)
    after = _pages(urls, asked)
    return {name: compared(before[name], text, watch_s) for name, text in after.items() if name in before}


def _pages(urls: Mapping[str, str], request: PageRequest) -> dict[str, str]:
    pages = fetch_all(
        {name: request.url(url, DEFAULT_PAGE) for name, url in urls.items()},
        lambda _, text: text,
        timeout_s=2.0,
        deadline_s=4.0,
        max_bytes=2**20,
        headers=request.access.sent_headers(),
        tls=request.access.tls(),
    )
    return {name: page for name, page in pages.items() if not isinstance(page, FetchError)}


def compared(before: str, after: str, seconds: float) -> str:
    """What two pages of a worker, read one after the other, say of other readers."""
    first, second = (parse_page(text, NAMES) for text in (before, after))
    tokens, tokens_error = _grown(first, second, TOKENS)
    took_s, took_error = _grown(first, second, SECONDS)
    reported = second.get(AVERAGE, {}).get((), math.nan)
    error = tokens_error + took_error
    if not (tokens > 0 and took_s > 0 and error < TOO_COARSE and math.isfinite(reported)):
        return IDLE.format(seconds=seconds)
    real = tokens / took_s
    if math.isclose(reported, real, rel_tol=2 * error + 10 ** (1 - DIGITS)):
        return ALONE.format(seconds=seconds)
    return SPOILT.format(name=AVERAGE, reported=reported, real=real)


def _grown(first: Page, second: Page, name: str) -> tuple[float, float]:
    """How much a total has grown, and the relative error of that, from the digits that stand on the page."""
    before, after = (page.get(name, {}).get((), math.nan) for page in (first, second))
    grown = after - before
    if not grown > 0:
        return 0.0, math.inf
    return grown, 10 ** (math.floor(math.log10(after)) + 1 - DIGITS) / grown
