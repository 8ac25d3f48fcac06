"""Trace files of other units of time, origins and sizes of blocks, and packed ones."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from dynamo_planner.core.extras import MissingExtraError
from dynamo_planner.workloads.trace import Trace, TraceError

UNIX_S = 1_750_000_000


def lines(path: Path, stamps: list[float], isl: int = 100, **more: object) -> Path:
    rows = [{"timestamp": at, "input_length": isl, "output_length": 7, **more} for at in stamps]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_bailian_counts_seconds_and_blocks_of_16_tokens(tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    first = {"chat_id": 4, "parent_chat_id": -1, "timestamp": 61.5, "input_length": 50, "output_length": 3, "turn": 1}
    second = {**first, "chat_id": 5, "parent_chat_id": 4, "timestamp": 64.0, "input_length": 70, "turn": 2}
    path.write_text(
        json.dumps({**first, "hash_ids": [8, 9, 10, 11]}) + "\n" + json.dumps({**second, "hash_ids": [8, 9, 10, 7, 6]})
    )
    trace = Trace.load(path)
    assert trace.arrival_s.tolist() == [0.0, 2.5]
    assert trace.prefix_hit is not None and trace.prefix_hit.tolist() == [0, 48]


def test_stamps_with_fractions_could_be_seconds_or_milliseconds(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", [0.25, 1.75])
    with pytest.raises(TraceError, match=r"could be of 2 formats, so name one .*mooncake: .* in ms.*json_seconds: "):
        Trace.load(path)
    assert Trace.load(path, trace_format="json_seconds").duration_s == 1.5
    assert Trace.load(path, trace_format="mooncake").duration_s == pytest.approx(0.0015)


def test_more_blocks_than_the_prompt_has_are_of_another_size(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", [0, 1], isl=640, hash_ids=list(range(20)))
    with pytest.raises(TraceError, match=r"line 1: hash_ids has 20 blocks for 640 tokens, and blocks have 512 here"):
        Trace.load(path)


def test_fewer_blocks_than_the_prompts_have_are_of_another_size(tmp_path: Path) -> None:
    path = lines(tmp_path / "x.jsonl", [0, 1], isl=8192, hash_ids=[1, 2])
    with pytest.raises(TraceError, match="hash_ids are fewer than its prompts have blocks of 512 tokens"):
        Trace.load(path)


def test_unix_time_and_cuts_out_of_the_middle_count_from_the_earliest_request(tmp_path: Path) -> None:
    stamps = [UNIX_S * 1000.0 + 250 * i for i in range(8)]
    assert Trace.load(lines(tmp_path / "ms.jsonl", stamps)).duration_s == 1.75
    head = "Timestamp,Request tokens,Response tokens\n"
    table = tmp_path / "unix.csv"
    table.write_text(head + f"{UNIX_S + 3}.5,10,1\n{UNIX_S},10,2\n")
    assert Trace.load(table).arrival_s.tolist() == [0.0, 3.5]
    table.write_text(head + "900000,10,1\n900060,10,2\n")
    assert Trace.load(table).duration_s == 60
    np.savez(tmp_path / "unix.npz", arrival_s=[UNIX_S + 1.0, UNIX_S + 9.0], isl=[1, 1], osl=[1, 1])
    assert Trace.load(tmp_path / "unix.npz").duration_s == 8
    np.savez(tmp_path / "quiet_start.npz", arrival_s=[500.0], isl=[1], osl=[1])
    assert Trace.load(tmp_path / "quiet_start.npz").arrival_s.tolist() == [500.0]


@pytest.mark.parametrize(("per_second", "unit"), [(1, "s"), (10**6, "us"), (10**9, "ns")])
def test_unix_time_of_another_unit_is_refused(tmp_path: Path, per_second: int, unit: str) -> None:
    path = lines(tmp_path / "x.jsonl", [UNIX_S * per_second, (UNIX_S + 1) * per_second])
    with pytest.raises(TraceError, match=rf"its times are in ms in this format, and .* looks like Unix time in {unit}"):
        Trace.load(path)


def test_a_trace_of_arrays_in_unix_time_is_refused() -> None:
    with pytest.raises(
        TraceError, match="must count from the start of the trace, and 1750000000 s looks like Unix time"
    ):
        Trace(np.array([UNIX_S, UNIX_S + 5]), np.array([1, 1]), np.array([1, 1]))


def test_packed_files_read_like_plain_ones(tmp_path: Path) -> None:
    plain = lines(tmp_path / "day.jsonl", [0, 500, 2000]).read_bytes()
    (tmp_path / "day.jsonl.gz").write_bytes(gzip.compress(plain))
    trace = Trace.load(tmp_path / "day.jsonl.gz")
    assert (trace.arrival_s.tolist(), trace.name) == ([0.0, 0.5, 2.0], "day")
    zstandard = pytest.importorskip("zstandard")
    half = plain.index(b"\n") + 1  # two frames, as parallel packers write them
    frames = [zstandard.ZstdCompressor().compress(part) for part in (plain[:half], plain[half:])]
    (tmp_path / "day.jsonl.zst").write_bytes(b"".join(frames))
    assert Trace.load(tmp_path / "day.jsonl.zst").arrival_s.tolist() == [0.0, 0.5, 2.0]


def test_damaged_packed_files_are_refused(tmp_path: Path) -> None:
    packed = gzip.compress(lines(tmp_path / "x", list(range(5000))).read_bytes())
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(TraceError, match=r"cut\.gz: cannot be unpacked: "):
        Trace.load(tmp_path / "cut.gz")
    pytest.importorskip("zstandard")
    (tmp_path / "bad.zst").write_bytes(b"\x28\xb5\x2f\xfd" + b"\xff" * 40)
    with pytest.raises(TraceError, match=r"bad\.zst: cannot be unpacked: "):
        Trace.load(tmp_path / "bad.zst")


def test_zstandard_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match=r"dynamo-planner\[zstd\]"):
        Trace.load(tmp_path / "x.zst")
