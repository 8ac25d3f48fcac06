"""Reading and writing: both forms of Dynamo's directories, files of one's own, and what is said of a bad one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynamo_planner.profiles import Profile, ProfileError
from dynamo_planner.profiles.files import bundled_profiles

Arrays = dict[str, Any]


def prefill_arrays() -> Arrays:
    isl, ttft = np.array([128, 1024, 8192]), np.array([10.0, 40.0, 400.0])
    return {"prefill_isl": isl, "prefill_ttft": ttft, "prefill_thpt_per_gpu": isl / ttft * 1000 / 2}


def decode_arrays() -> Arrays:
    batch, context = np.array([1.0, 8, 64, 1, 8, 64]), np.array([500.0, 500, 500, 4000, 4000, 4000])
    itl = 6 + 0.05 * batch + 2e-5 * batch * context
    return {
        "max_kv_tokens": np.array([500_000]),
        "x_kv_usage": batch * context / 500_000,
        "y_context_length": context,
        "z_itl": itl,
        "z_thpt_per_gpu": batch / itl * 1000 / 2,
    }


def mixed_arrays() -> Arrays:
    prefill, decode = np.array([0, 512, 512, 2048]), np.array([8, 0, 8, 8])
    return {
        "ctx_tokens": prefill,
        "num_decode": decode,
        "context_length": np.full(4, 1000),
        "step_ms": 6 + 0.02 * prefill + 0.1 * decode,
    }


def write(
    directory: Path, prefill: Arrays | None = None, decode: Arrays | None = None, mixed: Arrays | None = None
) -> Path:
    """The directory of a profile, as the profiler leaves it behind."""
    for stage, arrays in (("prefill", prefill or prefill_arrays()), ("decode", decode or decode_arrays())):
        folder = directory / f"selected_{stage}_interpolation"
        folder.mkdir(parents=True)
        np.savez(folder / "raw_data.npz", **arrays)
    if mixed is not None:
        np.savez(directory / "mixed_step.npz", **mixed)
    return directory


def test_directory_of_the_profiler(tmp_path: Path) -> None:
    profile = Profile.load(write(tmp_path / "qwen"))
    assert profile.name == "qwen"
    assert profile.prefill_points.isl == (128, 1024, 8192)
    assert (profile.prefill_points.gpus, profile.decode_points.gpus) == (2, 2)
    assert profile.decode_points.max_kv_tokens == 500_000
    assert profile.decode_points.batch == pytest.approx((1, 8, 64, 1, 8, 64))
    assert profile.mixed is None


def test_json_twins_say_the_same(tmp_path: Path) -> None:
    expected = Profile.load(write(tmp_path / "npz"))
    for stage, arrays in (("prefill", prefill_arrays()), ("decode", decode_arrays())):
        plain = {key: array.tolist() for key, array in arrays.items()}
        if stage == "decode":
            plain["max_kv_tokens"] = plain["max_kv_tokens"][0]
        (tmp_path / f"{stage}_raw_data.json").write_text(json.dumps(plain))
    profile = Profile.load(tmp_path)
    assert profile.prefill_points == expected.prefill_points
    assert profile.decode_points == expected.decode_points


def test_mixed_steps_and_what_is_known_of_the_engine(tmp_path: Path) -> None:
    write(tmp_path, mixed=mixed_arrays())
    (tmp_path / "meta.json").write_text(json.dumps({"name": "mine", "model": "m", "tp": 2, "moe": None, "x": [1]}))
    profile = Profile.load(tmp_path)
    assert profile.name == "mine"
    assert dict(profile.about) == {"model": "m", "tp": 2}
    assert profile.mixed is not None
    assert profile.mixed.step_ms(512, 8, 1000) == pytest.approx(6 + 0.02 * 512 + 0.1 * 8, rel=0.01)


def test_save_and_load(tmp_path: Path) -> None:
    profile = Profile.load(write(tmp_path / "mine", mixed=mixed_arrays()))
    profile.save(tmp_path / "mine.json")
    assert Profile.load(tmp_path / "mine.json") == profile
    assert Profile.load(str(tmp_path / "mine.json")) == profile
    lines = (tmp_path / "mine.json").read_text().splitlines()
    assert '    "isl": [128.0, 1024.0, 8192.0],' in lines, "a line for each column"


def test_every_profile_survives_a_file(each_profile: Profile, tmp_path: Path) -> None:
    each_profile.save(tmp_path / "one.json")
    assert Profile.load(tmp_path / "one.json") == each_profile


def test_bundled_profiles_load_and_name_their_source() -> None:
    assert "llama31-8b_h100_vllm_tp1" in bundled_profiles()
    for name in bundled_profiles():
        profile = Profile.bundled(name)
        assert profile.name == name
        assert "aiconfigurator 0.12.0" in str(profile.about["source"])
        assert profile.about["license"] == "Apache-2.0"
        assert profile.decode.best(itl_ms=50, context=2000).throughput > 0
    with pytest.raises(ProfileError, match=r"'no-such' is not bundled; those are llama31.*; Profile\.load"):
        Profile.bundled("no-such")


def change(key: str, value: Any, index: int | None = None) -> Callable[[Arrays], None]:
    def apply(arrays: Arrays) -> None:
        if index is None:
            arrays[key] = value
        else:
            arrays[key] = np.asarray(arrays[key], dtype=float)
            arrays[key][index] = value

    return apply


def scale(key: str, factor: float) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.update({key: np.asarray(arrays[key]) * factor})


def drop(key: str) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.pop(key)


BAD_PREFILL = {
    "wrong key": (drop("prefill_ttft"), "has no 'prefill_ttft': it has 'prefill_isl', 'prefill_thpt_per_gpu'"),
    "NaN": (change("prefill_ttft", np.nan, 1), r"prefill_ttft\[1\] is nan: .* leave this point out of every column"),
    "infinite": (change("prefill_ttft", np.inf, 2), r"prefill_ttft\[2\] is inf"),
    "seconds": (scale("prefill_ttft", 1e-3), r"prefill_ttft\[0\] is 0\.01, .* TTFT is in ms"),
    "microseconds": (scale("prefill_ttft", 1e5), r"prefill_ttft\[0\] is 1e\+06|prefill_ttft\[1\] is 4e\+06"),
    "negative": (change("prefill_ttft", -5, 0), r"prefill_ttft\[0\] is -5, and 1 to 1e\+06 is plausible"),
    "length": (change("prefill_ttft", np.array([1.0, 2.0])), "prefill_ttft has 2 points and prefill_isl has 3"),
    "two-dimensional": (change("prefill_isl", np.ones((3, 1))), r"prefill_isl has the shape \(3, 1\): .* flat list"),
    "empty": (change("prefill_isl", np.array([])), "prefill_isl is empty: measure at least two points"),
    "text": (change("prefill_isl", np.array(["a", "b", "c"])), r"prefill_isl\[0\] is 'a': it takes a number"),
    "duplicate": (change("prefill_isl", 1024, 2), r"prefill_isl\[2\] is a second point at prefill_isl=1024 .*\[1\]"),
    "zero ISL": (change("prefill_isl", 0, 0), r"prefill_isl\[0\] is 0, .* ISL counts tokens"),
    "throughput in requests": (
        scale("prefill_thpt_per_gpu", 1e-4),
        "prefill_thpt_per_gpu and the times imply .* GPUs per worker: .* tokens/s per GPU",
    ),
    "a single point": (
        lambda arrays: arrays.update({key: array[:1] for key, array in arrays.items()}),
        "prefill_isl has a single point: measure at least two",
    ),
}

BAD_DECODE = {
    "wrong key": (drop("z_itl"), "has no 'z_itl': it has 'max_kv_tokens', 'x_kv_usage'"),
    "NaN": (change("z_itl", np.nan, 3), r"z_itl\[3\] is nan"),
    "seconds": (scale("z_itl", 1e-3), r"z_itl\[0\] is 0\.006.*: ITL is in ms"),
    "percent": (scale("x_kv_usage", 100), r"x_kv_usage\[2\] is 6\.4, .* divide percents by 100"),
    "blocks": (scale("max_kv_tokens", 1 / 16), r"max_kv_tokens is 31250, .* only 0\.0625 requests .* not blocks"),
    "no capacity": (
        change("max_kv_tokens", np.array([0])),
        "max_kv_tokens: Input should be greater than or equal to 100",
    ),
    "many capacities": (change("max_kv_tokens", np.array([1, 2])), "max_kv_tokens has 2 values: it takes a single one"),
    "NaN capacity": (change("max_kv_tokens", np.array([np.nan])), "max_kv_tokens: Input should be"),
    "length": (change("y_context_length", np.ones(4)), "y_context_length has 4 points and x_kv_usage has 6"),
    "duplicate": (
        lambda arrays: (change("x_kv_usage", 0.001, 2)(arrays), change("y_context_length", 500.0, 2)(arrays)),
        r"x_kv_usage\[2\] is a second point at x_kv_usage=0\.001, y_context_length=500 \(the first is \[0\]\)",
    ),
    "throughput of all GPUs in thousands": (
        scale("z_thpt_per_gpu", 1e-3),
        "z_thpt_per_gpu and the times imply 2000 GPUs per worker",
    ),
    "huge": (
        lambda arrays: arrays.update({"x_kv_usage": np.full(1001, 0.5)}),
        "x_kv_usage has 1001 points: thin them to 1000 at most",
    ),
}


@pytest.mark.parametrize("case", BAD_PREFILL)
def test_bad_prefill_points(case: str, tmp_path: Path) -> None:
    spoil, message = BAD_PREFILL[case]
    arrays = prefill_arrays()
    spoil(arrays)
    write(tmp_path, prefill=arrays)
    with pytest.raises(ProfileError, match=f"selected_prefill_interpolation/raw_data.npz: ({message})"):
        Profile.load(tmp_path)


@pytest.mark.parametrize("case", BAD_DECODE)
def test_bad_decode_points(case: str, tmp_path: Path) -> None:
    spoil, message = BAD_DECODE[case]
    arrays = decode_arrays()
    spoil(arrays)
    write(tmp_path, decode=arrays)
    with pytest.raises(ProfileError, match=f"selected_decode_interpolation/raw_data.npz: ({message})"):
        Profile.load(tmp_path)


def test_bad_mixed_steps(tmp_path: Path) -> None:
    arrays = mixed_arrays()
    arrays["step_ms"] = arrays["step_ms"] / 1000
    write(tmp_path, mixed=arrays)
    with pytest.raises(ProfileError, match=r"mixed_step.npz: step_ms\[0\] is 0.0068, .* a step is in ms"):
        Profile.load(tmp_path)


def test_null_in_a_json_twin(tmp_path: Path) -> None:
    (tmp_path / "prefill_raw_data.json").write_text('{"prefill_isl": [128, 1024], "prefill_ttft": [10, null]}')
    (tmp_path / "decode_raw_data.json").write_text("{}")
    with pytest.raises(ProfileError, match=r"prefill_raw_data.json: prefill_ttft\[1\] is None: it takes a number"):
        Profile.load(tmp_path)


def test_paths_that_are_no_profile(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"nowhere: there is no such file or directory"):
        Profile.load(tmp_path / "nowhere")
    message = "neither selected_prefill_interpolation/raw_data.npz nor prefill_raw_data.json"
    with pytest.raises(ProfileError, match=message):
        Profile.load(tmp_path)
    write(tmp_path / "half")
    (tmp_path / "half/selected_decode_interpolation/raw_data.npz").unlink()
    with pytest.raises(ProfileError, match=r"neither selected_decode_interpolation/raw_data.npz nor decode_raw_data"):
        Profile.load(tmp_path / "half")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON: "),
        ("[1]", "holds list, and an object is expected"),
        ("{}", 'is no saved profile: it takes "format": 1'),
        ('{"format": 2}', 'is no saved profile: it takes "format": 1'),
        ('{"format": 1}', "prefill_points: Field required"),
        ('{"format": 1, "profil": 3}', "prefill_points: Field required"),
        ('{"format": 1, "prefill_points": {"isl": [1, NaN], "ttft_ms": [5, 6]}}', r"isl\[1\] is nan"),
        ("[" * 100_000, "is not JSON: "),
        ("1" * 10_000, "is not JSON: "),
        ('{"format": 1, "prefill_points": {"isl": [1, 1e999], "ttft_ms": [5, 6]}}', r"isl\[1\] is inf"),
        ('{"format": 1, "prefill_points": {"isl": [1, 1' + 400 * "0" + "]}}", r"isl\[1\] is 1000.*it takes a number"),
        ('{"format": 1, "prefill_points": [], "decode_points": {}}', "prefill_points: Input should be a valid dict"),
    ],
)
def test_bad_files_of_ones_own(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ProfileError, match=f"bad.json: {message}"):
        Profile.load(tmp_path / "bad.json")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "exploded",)

    arrays = prefill_arrays() | {"prefill_ttft": np.array([Bomb(), 1, 2], dtype=object)}
    write(tmp_path, prefill=arrays)
    with pytest.raises(ProfileError, match=r"raw_data.npz: is not an npz file of plain arrays: .*allow_pickle=False"):
        Profile.load(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_files_that_are_no_npz_and_files_that_unpack_too_far(tmp_path: Path) -> None:
    file = write(tmp_path) / "selected_prefill_interpolation" / "raw_data.npz"
    for content in (b"", b"\x93NUMPY garbage", file.read_bytes()[:100]):
        file.write_bytes(content)
        with pytest.raises(ProfileError, match=r"raw_data.npz: is not an npz file of plain arrays"):
            Profile.load(tmp_path)
    np.savez_compressed(file, prefill_isl=np.zeros(3_000_000), prefill_ttft=np.zeros(3))
    assert file.stat().st_size < 100_000
    with pytest.raises(ProfileError, match=r"raw_data.npz: holds 24.* bytes: 16777216 at most"):
        Profile.load(tmp_path)


def test_a_place_that_cannot_be_written(own: Profile, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"missing/one.json: cannot be written: No such file or directory"):
        own.save(tmp_path / "missing" / "one.json")
    with pytest.raises(ProfileError, match="cannot be written: Is a directory"):
        own.save(tmp_path)
