"""The prose of a page: its sentences with their words, and phrases that are left behind.

``python -m tests.support.prose`` prints both for each page of the docs, and the longest sentences.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"(?ms)^```.*?^```")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
CODE = re.compile(r"`[^`]*`")
ITEM = re.compile(r"(?m)^\s*(?:[-*]|\d+\.) ")
END = re.compile(r"(?<=[.!?:;])\)?\**\s+(?=[A-Z\"'(*])|\n\s*\n")
ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|etc|vs|cf|Fig)\.")

LEFT_BEHIND = re.compile(
    r"(?i)\b(so many(?!.{0,80} that)|whoever|nobody|without hope|hopeless|for want of)\b"
    r"|\b(lowers it not|file that does not hold)\b"
    r"|\bwho (has|wants|gives|asks|needs|keeps|writes|runs) (\w+ ){1,5}(need not|can|may|must)\b"
)
"""Turns of phrase that no manual has."""


def prose(markdown: str) -> str:
    """The text without code, tables, headings and the addresses of links; each item of a list is a paragraph."""
    text = FENCE.sub("\n", markdown)
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("|", "#", "<", "!["))]
    text = LINK.sub(r"\1", CODE.sub("CODE", "\n".join(lines)))
    return ITEM.sub("\n\n", ABBREVIATIONS.sub(r"\1", text))


def sentences(markdown: str) -> list[str]:
    """Sentences of at least three words.

    >>> sentences("# Title\\n\\nIt is `a.b` here. So are we.\\n\\n- An item of a list\\n- Another [one of](x) them")
    ['It is CODE here.', 'So are we.', 'An item of a list', 'Another one of them']
    """
    found = [" ".join(each.split()) for each in END.split(prose(markdown)) if each]
    return [each for each in found if len(each.split()) > 2]


def words_a_sentence(markdown: str) -> float:
    """The mean number of words."""
    found = sentences(markdown)
    return sum(len(each.split()) for each in found) / max(len(found), 1)


def main() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        longest = max(sentences(text), key=lambda each: len(each.split()), default="")
        lines = [f"{page.relative_to(ROOT)}: {words_a_sentence(text):.1f} words a sentence", f"  longest: {longest}"]
        lines += [f"  left behind: {found[0]}" for found in LEFT_BEHIND.finditer(prose(text))]
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
