"""Whether somebody else reads llama.cpp's metrics, and so spoils what is averaged since they were last read.

llama.cpp's gauges ``prompt_tokens_seconds``, ``predicted_tokens_seconds`` and ``n_busy_slots_per_decode`` are averages
since the page was last read, by whomever: each reader has them start anew for all others. The planner does not use
them. Its totals grow however often they are read, so that the two tell whether anybody read in between.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from dynamo_planner.sources.exposition import parse_page
from dynamo_planner.sources.fetch import FetchError, fetch_all

RATES = {
    "llamacpp:prompt_tokens_seconds": ("llamacpp:prompt_tokens_total", "llamacpp:prompt_seconds_total"),
    "llamacpp:predicted_tokens_seconds": ("llamacpp:tokens_predicted_total", "llamacpp:tokens_predicted_seconds_total"),
}
"""Each average, and the totals of tokens and of seconds that it is made of."""

NAMES = frozenset(RATES).union(*RATES.values())
SAME = 0.02
"""Relative difference up to which two rates are the same; the page has four or five digits of them."""

SPOILT = (
    "somebody else reads its metrics, too: {name} was {told:g} where {real:g} tokens/s were computed since it was last "
    "read here. Averages since the last reading are of no use to either (this planner reads totals); see that only one "
    "of them draws those averages, or use rate() over the totals"
)
ALONE = "nobody else read its metrics within {seconds:g} s"
IDLE = "it was idle, so that it cannot be told whether somebody else reads its metrics, too"


def other_readers(urls: Mapping[str, str], watch_s: float) -> dict[str, str]:
    """What is to be said of each llama.cpp worker, by name, from reading it twice. One that cannot be read is left out.

    >>> page = "llamacpp:prompt_tokens_total {}\\nllamacpp:prompt_seconds_total {}\\nllamacpp:prompt_tokens_seconds {}"
    >>> compared(page.format(100, 2, 9), page.format(300, 4, 100), 5)
    'nobody else read its metrics within 5 s'
    >>> compared(page.format(100, 2, 9), page.format(300, 4, 70), 5)[:65]
    'somebody else reads its metrics, too: llamacpp:prompt_tokens_seco'
    """
    before = _pages(urls)
    time.sleep(watch_s)
    after = _pages(urls)
    return {name: compared(before[name], text, watch_s) for name, text in after.items() if name in before}


def _pages(urls: Mapping[str, str]) -> dict[str, str]:
    asked = {name: f"{url}/metrics" for name, url in urls.items()}
    pages = fetch_all(asked, lambda _, text: text, timeout_s=2.0, deadline_s=4.0, max_bytes=2**20)
    return {name: page for name, page in pages.items() if not isinstance(page, FetchError)}


def compared(before: str, after: str, seconds: float) -> str:
    """What two pages of a worker, read one after the other, say of other readers."""
    first, second = (parse_page(text, NAMES) for text in (before, after))
    verdict = IDLE
    for name, (tokens, took) in RATES.items():
        try:
            told = second[name][()]
            new_tokens, new_s = (second[total][()] - first[total][()] for total in (tokens, took))
        except KeyError:
            continue
        if new_tokens > 0 and new_s > 0:
            real = new_tokens / new_s
            if not math.isclose(told, real, rel_tol=SAME):
                return SPOILT.format(name=name, told=told, real=real)
            verdict = ALONE.format(seconds=seconds)
    return verdict
