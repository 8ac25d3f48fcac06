"""The trace formats that are known by name: one line each.

>>> {name: form.description for name, form in TRACE_FORMATS.items()}["azure"]
'an Azure CSV (TIMESTAMP, ContextTokens, GeneratedTokens)'
"""

from __future__ import annotations

from pathlib import Path

from dynamo_planner.core.registry import Registry
from dynamo_planner.workloads.formats.base import Columns, TraceError, TraceFormat
from dynamo_planner.workloads.formats.text import open_unpacked, unpacking

TRACE_FORMATS: Registry[TraceFormat] = Registry(
    "trace format",
    TraceFormat,
    "dynamo_planner.trace_formats",
    {
        "npz": "dynamo_planner.workloads.formats.npz:NPZ",
        "azure": "dynamo_planner.workloads.formats.csv_table:AZURE",
        "mooncake": "dynamo_planner.workloads.formats.json_lines:MOONCAKE",
        "bailian": "dynamo_planner.workloads.formats.json_lines:BAILIAN",
        "json_seconds": "dynamo_planner.workloads.formats.json_lines:SECONDS",
        "burstgpt": "dynamo_planner.workloads.formats.csv_table:BURSTGPT",
    },
)
"""The formats by name, each imported when it is first needed. A file is of the one that recognises it."""

START_BYTES = 1 << 16
"""How much of a file its format is recognised by."""


def read_columns(path: Path, form: TraceFormat | None = None) -> Columns:
    """Read a trace file, of the format that recognises it where none is given. Raises :class:`TraceError`."""
    try:
        with unpacking(path):
            with open_unpacked(path) as file:
                start = file.read(START_BYTES)
            if not start.strip():
                raise TraceError(f"{path}: the file is empty")
            return (form or _recognised(path, start)).read(path)
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from error


def _recognised(path: Path, start: bytes) -> TraceFormat:
    """The only format that recognises a file. Raises :class:`TraceError` where there are more, or none."""
    found = {name: form for name, form in TRACE_FORMATS.items() if form.recognises(start)}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        options = "; ".join(f"{name}: {form.description}" for name, form in found.items())
        raise TraceError(f"{path}: it could be of {len(found)} formats, so name one (trace_format): {options}")
    known = "; ".join(form.description for form in TRACE_FORMATS.values())
    begins = start.decode("utf-8-sig", errors="replace").lstrip()[:100]
    own = "Trace.read_csv(path, time=..., isl=..., osl=...).save('requests.npz') makes one of a CSV with other columns"
    raise TraceError(f"{path}: not a trace format that is known: {known}. It begins with {begins!r}. {own}")
