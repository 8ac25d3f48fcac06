"""Trace files of numpy: ``arrival_s`` (or ``arrival_s_spread``), ``isl``, ``osl``, and if they are there
``prefix_hit``, ``duration_s``, and ``start`` and ``zone`` as texts."""

from __future__ import annotations

import zipfile
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np

from dynamo_planner.workloads.formats.base import Columns, TraceError, TraceFormat, refuse_other_unit, start_at

MAX_NPZ_BYTES = 4 << 30
"""The largest file that is read, in bytes when unpacked."""


class Npz(TraceFormat):
    """An archive of numpy arrays, as :meth:`~dynamo_planner.workloads.trace.Trace.save` writes it."""

    description = "an npz with arrival_s, isl and osl"

    def recognises(self, start: bytes) -> bool:
        return start.startswith(b"PK")

    def read(self, path: Path) -> Columns:
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            arrays = _arrays(path) if size <= MAX_NPZ_BYTES else {}
        except OSError:
            raise
        except Exception as error:  # what numpy and zipfile raise for a damaged file is not documented
            raise TraceError(f"{path}: not a readable npz file: {error}") from error
        if size > MAX_NPZ_BYTES:
            raise TraceError(f"{path}: {size} bytes when unpacked; at most {MAX_NPZ_BYTES} are allowed")
        absent = [name for name in ("arrival_s", "isl", "osl") if name not in arrays]
        if absent:
            raise TraceError(f"{path}: array {absent[0]!r} is missing; there are {sorted(arrays)}")
        duration = arrays.get("duration_s", np.array(0.0))
        if duration.shape != () or duration.dtype.kind not in "iuf":
            raise TraceError(f"{path}: duration_s must be a single number, got {duration!r:.100}")
        arrival, began = _from_start(path, arrays.get("arrival_s_spread", arrays["arrival_s"]))
        start = _start(path, arrays) or began
        return Columns(arrival, arrays["isl"], arrays["osl"], arrays.get("prefix_hit"), float(duration), start)


def start_arrays(start: datetime | None) -> dict[str, np.ndarray]:
    """The arrays for a start: its time of ISO 8601, and the name of its time zone where it has one."""
    if start is None:
        return {}
    zone = getattr(start.tzinfo, "key", None)
    return {"start": np.array(start.isoformat()), **({"zone": np.array(zone)} if zone else {})}


def _start(path: Path, arrays: dict[str, np.ndarray]) -> datetime | None:
    if "start" not in arrays:
        return None
    try:
        start = datetime.fromisoformat(str(arrays["start"]))
        return start.astimezone(ZoneInfo(str(arrays["zone"]))) if "zone" in arrays else start
    except (ValueError, KeyError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise TraceError(f"{path}: start: {error}") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: np.asarray(file[name]) for name in file.files}


def _from_start(path: Path, arrival_s: np.ndarray) -> tuple[np.ndarray, datetime | None]:
    """Times from the start of the trace, and when that was: Unix times count from the earliest one."""
    if arrival_s.ndim != 1 or arrival_s.dtype.kind not in "iuf" or not len(arrival_s):
        return arrival_s, None
    earliest = arrival_s.min()
    refuse_other_unit(path, float(earliest), "s")
    start = start_at(float(earliest))
    return (arrival_s if start is None else arrival_s - earliest), start


NPZ = Npz()
