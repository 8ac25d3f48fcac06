"""HTML for notebooks: a table of plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; lines of a cell stay lines.

    >>> html_table(["pool"], [["1 < 2"]])
    '<table><thead><tr><th>pool</th></tr></thead><tbody><tr><td>1 &lt; 2</td></tr></tbody></table>'
    """

    def line(cells: Sequence[str], tag: str) -> str:
        inner = "".join(f"<{tag}>{escape(cell).replace(chr(10), '<br>')}</{tag}>" for cell in cells)
        return f"<tr>{inner}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(header, 'th')}</thead><tbody>{body}</tbody></table>"


def facts_table(facts: Iterable[tuple[str, Any]]) -> str:
    """A table of names and values, without those that are unknown.

    >>> facts_table([("requests/s", 4.0), ("ISL", None)])
    '<table><tbody><tr><th>requests/s</th><td>4</td></tr></tbody></table>'
    """
    rows = [(name, shown(value)) for name, value in facts if value is not None]
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return f"<table><tbody>{body}</tbody></table>"


def shown(value: Any) -> str:
    """A value for people: numbers with four digits, nothing for what is unknown.

    >>> shown(0.123456), shown(41234.0), shown(None)
    ('0.1235', '41234', '')
    """
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "" if value is None else str(value)
