"""Results as plain JSON: rounded, digested, written a line each, and compared."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np

REL = 1e-6
"""Floats may differ by this share: they depend a little on the kernels of the linear algebra."""


def plain(value: Any, digits: int = 9) -> Any:
    """The value as JSON has it, floats rounded to significant digits."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), digits)
    if isinstance(value, np.generic):
        return plain(value.item(), digits)
    if isinstance(value, Mapping):
        return {str(name): plain(entry, digits) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, digits) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else str(value)
    return value


def digest(value: Any) -> str:
    """A short SHA-256 of a value, its floats rounded to six significant digits."""
    text = json.dumps(plain(value, 6), separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def dumped(results: Mapping[str, list[Any]]) -> str:
    """All scenarios as JSON, each result on a line of its own."""

    def lines(entries: list[Any]) -> str:
        return ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)

    return "{\n" + ",\n".join(f'"{name}": [\n{lines(entries)}\n]' for name, entries in results.items()) + "\n}\n"


def differences(found: Any, golden: Any, where: str = "", *, added: bool = False) -> Iterator[str]:
    """Each place where a result differs from the golden one; with ``added`` it may have fields that are new."""
    if isinstance(found, dict) and isinstance(golden, dict):
        for name in golden if added else golden | found:
            one, other = found.get(name, "absent"), golden.get(name, "absent")
            yield from differences(one, other, f"{where}.{name}", added=added)
    elif isinstance(found, list) and isinstance(golden, list):
        for number, (one, other) in enumerate(zip_longest(found, golden, fillvalue="absent")):
            yield from differences(one, other, f"{where}[{number}]", added=added)
    elif isinstance(found, float) and isinstance(golden, float):
        if not math.isclose(found, golden, rel_tol=REL, abs_tol=1e-12):
            yield f"{where}: {found!r}, and {golden!r} is golden"
    elif found != golden:
        yield f"{where}: {found!r}, and {golden!r} is golden"
