"""The pages of the docs are written in short sentences, and without the phrases that are left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.prose import LEFT_BEHIND, PAGES, ROOT, prose, words_a_sentence

WORDS = 20.0


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_a_page_reads_easily(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert words_a_sentence(text) <= WORDS, "python -m tests.support.prose names the longest sentence"
    assert [found[0] for found in LEFT_BEHIND.finditer(prose(text))] == []
