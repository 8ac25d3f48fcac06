"""Log files that are rotated by number: ``path`` is the newest, ``path.1`` the one before it, and so on.

The decision log is written so; recordings and decision logs are read back from it, a line of JSON at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

logger = logging.getLogger(__name__)

T = TypeVar("T")


def rotated_path(path: Path, number: int) -> Path:
    """The file that ``path`` becomes when it has been rotated ``number`` times.

    >>> rotated_path(Path("decisions.jsonl"), 2).name
    'decisions.jsonl.2'
    """
    return path.with_name(f"{path.name}.{number}")


def files_oldest_first(path: str | Path, content: str) -> list[Path]:
    """The rotated files of a log and the log itself, as far as they exist.

    Raises :class:`FileNotFoundError`, which calls it ``content``, where there is none.
    """
    path = Path(path).expanduser()
    files: list[Path] = [path] if path.exists() else []
    number = 1
    while (older := rotated_path(path, number)).exists():
        files.insert(0, older)
        number += 1
    if not files:
        raise FileNotFoundError(f"{path}: there is no such {content}")
    return files


def parse_lines(
    files: Iterable[Path], parse: Callable[[bytes], T], *, content: str, strict: bool = False
) -> Iterator[T]:
    """What ``parse`` makes of each line that is not blank.

    A line for which it raises :class:`ValueError`, as a crash or a full disk may leave one, is named by file and number
    in a warning that it is not ``content``, and skipped; with ``strict`` the :class:`ValueError` says the same.
    """
    for file in files:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    yield parse(line)
                except ValueError as error:
                    problem = f"{file}: line {number} is not {content}: {_first_problem(error)}"
                    if strict:
                        raise ValueError(problem) from error
                    logger.warning("%s; skipped", problem)


def _first_problem(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    return f"{field}: {first['msg']}" if field else first["msg"]
