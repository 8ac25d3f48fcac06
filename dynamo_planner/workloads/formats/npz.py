"""Trace files of numpy: ``arrival_s`` (or ``arrival_s_spread``), ``isl``, ``osl``, and if they are there ``prefix_hit``
and ``duration_s``."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from dynamo_planner.workloads.formats.base import UNIX_S, Columns, TraceError, TraceFormat, refuse_other_unit

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
        arrival = _from_start(path, arrays.get("arrival_s_spread", arrays["arrival_s"]))
        return Columns(arrival, arrays["isl"], arrays["osl"], arrays.get("prefix_hit"), float(duration))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: np.asarray(file[name]) for name in file.files}


def _from_start(path: Path, arrival_s: np.ndarray) -> np.ndarray:
    """Times from the start of the trace: Unix times count from the earliest one."""
    if arrival_s.ndim != 1 or arrival_s.dtype.kind not in "iuf" or not len(arrival_s):
        return arrival_s
    earliest = arrival_s.min()
    refuse_other_unit(path, float(earliest), "s")
    if not UNIX_S[0] <= earliest < UNIX_S[1]:
        return arrival_s
    since: np.ndarray = arrival_s - earliest
    return since


NPZ = Npz()
