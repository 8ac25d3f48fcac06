"""The files of profiles: directories of Dynamo's profiler, saved profiles, results of load tests, and the bundled
profiles, as plain data."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from dynamo_planner.core.nearest import did_you_mean
from dynamo_planner.profiles.points import GPUS_ASSUMED, DecodePoints, MixedPoints, PrefillPoints
from dynamo_planner.profiles.validation import ProfileError, built

MAX_BYTES = 1 << 24
"""Largest size of a profile's file, and of what it unpacks to, in bytes."""

MAX_RESULT_BYTES = 1 << 28
"""The same of a JSON file, which may be the result of a load test with all its texts."""

FORMAT = 1

MANY_GPUS = 4
"""A decode worker of as many GPUs has a model that one GPU hardly computes prompts of."""

PREFILL = {"isl": "prefill_isl", "ttft_ms": "prefill_ttft", "throughput_per_gpu": "prefill_thpt_per_gpu"}
DECODE = {
    "max_kv_tokens": "max_kv_tokens",
    "kv_usage": "x_kv_usage",
    "context": "y_context_length",
    "itl_ms": "z_itl",
    "throughput_per_gpu": "z_thpt_per_gpu",
}
MIXED = {
    "prefill_tokens": "ctx_tokens",
    "num_decode": "num_decode",
    "context": "context_length",
    "step_ms": "step_ms",
}
"""Our columns, and the keys of the profiler's files."""


def read_profile(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields of a :class:`~dynamo_planner.profiles.Profile` from a directory, a saved file or a load test's result.

    Raises :class:`~dynamo_planner.profiles.ProfileError`.
    """
    path = Path(path)
    if path.is_dir():
        return _read_directory(path)
    if not path.exists():
        raise ProfileError(f"{path}: there is no such file or directory")
    data = _read_json(path, MAX_RESULT_BYTES)
    if data.pop("format", None) == FORMAT:
        return data
    from dynamo_planner.profiles.load_tests import READERS, fields_from_load_test  # noqa: PLC0415

    if (fields := fields_from_load_test(data, path.stem)) is not None:
        return fields
    raise ProfileError(
        f'{path}: is no saved profile: it takes "format": {FORMAT}, as Profile.save writes it, or the result of a load '
        f"test by {' or '.join(READERS)}"
    )


def write_profile(fields: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the fields of a profile, as plain JSON values.

    Raises :class:`~dynamo_planner.profiles.ProfileError`.
    """
    try:
        Path(path).write_text(_compact({"format": FORMAT, **fields}) + "\n", encoding="utf-8")
    except OSError as error:
        raise ProfileError(f"{path}: cannot be written: {error.strerror or error}") from error


def bundled_profiles() -> tuple[str, ...]:
    """The names of the profiles that come with the package."""
    data = resources.files("dynamo_planner.profiles") / "data"
    return tuple(sorted(file.name.removesuffix(".json") for file in data.iterdir() if file.name.endswith(".json")))


def read_bundled(name: str) -> dict[str, Any]:
    """The fields of a profile that comes with the package. Raises :class:`~dynamo_planner.profiles.ProfileError`."""
    names = bundled_profiles()
    if name not in names:
        hint = did_you_mean(name, names)
        raise ProfileError(f"{name!r} is not bundled{hint} those are {', '.join(names)}; Profile.load reads a path")
    with resources.as_file(resources.files("dynamo_planner.profiles") / "data" / f"{name}.json") as path:
        return read_profile(path)


def _read_directory(path: Path) -> dict[str, Any]:
    prefill = _read_points(PrefillPoints, PREFILL, _either(path, "prefill"))
    decode = _read_points(DecodePoints, DECODE, _either(path, "decode"))
    mixed_file, about_file = path / "mixed_step.npz", path / "meta.json"
    mixed = _read_points(MixedPoints, MIXED, mixed_file) if mixed_file.exists() else None
    about = _read_json(about_file) if about_file.exists() else {}
    prefill, decode, assumed = _with_gpus(prefill, decode, about)
    return {
        "name": str(about.pop("name", None) or path.resolve().name or "profile"),
        "prefill_points": prefill,
        "decode_points": decode,
        "mixed_points": mixed,
        "about": {**{key: value for key, value in about.items() if isinstance(value, str | int | float)}, **assumed},
    }


def _with_gpus(
    prefill: PrefillPoints, decode: DecodePoints, about: Mapping[str, Any]
) -> tuple[PrefillPoints, DecodePoints, dict[str, int]]:
    """The points with the GPUs of a worker, and what had to be assumed of them.

    The files do not tell them, only the throughput per GPU, which for prefill implies the GPUs of each rank of
    attention data parallelism. Where that is a single one, and decode has :data:`MANY_GPUS` or more, the model needs
    them all.
    """
    prefill_gpus, decode_gpus = about.get("prefill_gpus"), about.get("decode_gpus")
    assumed = {}
    if prefill_gpus is None and prefill.gpus == 1 and decode.gpus >= MANY_GPUS:
        prefill_gpus = decode.gpus
        assumed = {GPUS_ASSUMED: prefill_gpus}
    if prefill_gpus is not None:
        prefill = _with(prefill, gpus=prefill_gpus, ranks=0)
    return prefill, decode if decode_gpus is None else _with(decode, gpus=decode_gpus), assumed


def _with(points: Any, **fields: Any) -> Any:
    model = type(points)
    return built(partial(model.model_validate, {**points.model_dump(), **fields}), "meta.json")


def _either(path: Path, stage: str) -> Path:
    """The file of a stage: an npz, or its twin in JSON."""
    candidates = [path / f"selected_{stage}_interpolation" / "raw_data.npz", path / f"{stage}_raw_data.json"]
    found = next((file for file in candidates if file.exists()), None)
    if found is None:
        names = " nor ".join(str(file.relative_to(path)) for file in candidates)
        raise ProfileError(f"{path}: is not the directory of a profile: it has neither {names}")
    return found


def _read_points(model: Any, keys: Mapping[str, str], path: Path) -> Any:
    data = _read_json(path) if path.suffix == ".json" else _read_npz(path)
    optional = {name for name, field in model.model_fields.items() if not field.is_required()}
    missing = [key for name, key in keys.items() if key not in data and name not in optional]
    if missing:
        raise ProfileError(f"{path}: has no {missing[0]!r}: it has {', '.join(map(repr, data)) or 'no keys'}")
    fields = {name: data[key] for name, key in keys.items() if key in data}
    if "max_kv_tokens" in fields:
        fields["max_kv_tokens"] = _single(path, "max_kv_tokens", fields["max_kv_tokens"])
    return built(partial(model.model_validate, fields), str(path), keys)


def _single(path: Path, key: str, value: Any) -> Any:
    """The number in an array of one."""
    array = np.asarray(value)
    if array.size != 1:
        raise ProfileError(f"{path}: {key} has {array.size} values: it takes a single one")
    return array.ravel().tolist()[0]


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_size(path, sum(entry.file_size for entry in archive.infolist()))
        with np.load(path, allow_pickle=False) as data:
            return {key: data[key] for key in data.files}
    except ProfileError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ProfileError(f"{path}: is not an npz file of plain arrays: {error}") from error


def _read_json(path: Path, most: int = MAX_BYTES) -> dict[str, Any]:
    try:
        _check_size(path, path.stat().st_size, most)
        data = json.loads(path.read_text(encoding="utf-8"))
    except ProfileError:
        raise
    except OSError as error:
        raise ProfileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"{path}: is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise ProfileError(f"{path}: holds {type(data).__name__}, and an object is expected")
    return data


def _check_size(path: Path, size: int, most: int = MAX_BYTES) -> None:
    if size > most:
        raise ProfileError(f"{path}: holds {size} bytes: {most} at most")


def _compact(data: Any, indent: str = "") -> str:
    """JSON with objects spread over lines and each list on one."""
    if not isinstance(data, dict):
        return json.dumps(data, allow_nan=False)
    if not data:
        return "{}"
    deeper = indent + "  "
    lines = [f"{deeper}{json.dumps(key)}: {_compact(value, deeper)}" for key, value in data.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
