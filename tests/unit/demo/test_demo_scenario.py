"""What is replayed, and the engines that are made to fit it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dynamo_planner.demo.fit import IN_FLIGHT, ITL_SCALE, KV_ROOM, LONGEST_DECODE_S, PEAK_WORKERS, SLOWDOWN, fit
from dynamo_planner.demo.llamacpp import SLOTS, Speed, scaled
from dynamo_planner.demo.load import TraceRequest, prompt
from dynamo_planner.demo.scenario import LONGEST_S, from_file, generated
from dynamo_planner.workloads.trace import Trace, TraceError


def steady(requests_per_s: float, isl: int, osl: int, length_s: float = 60.0) -> tuple[TraceRequest, ...]:
    return tuple(TraceRequest(due_s, isl, osl) for due_s in np.arange(0, length_s, 1 / requests_per_s).tolist())


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """300 s with 5 requests per second."""
    arrival_s = np.arange(0, 300, 0.2)
    Trace(arrival_s, np.full(1500, 800), np.full(1500, 100)).save(tmp_path / "steady.npz")
    return tmp_path / "steady.npz"


def test_the_generated_trace_is_the_same_for_a_seed_and_rises_and_falls() -> None:
    one, same, other = generated(1), generated(1), generated(2)
    assert one == same
    assert one.requests != other.requests
    thirds = np.histogram([request.due_s for request in one.requests], 3, (0, LONGEST_S))[0]
    assert thirds[1] > 2 * max(thirds[0], thirds[2])


def test_a_file_is_replayed_for_a_minute_from_where_it_is_asked_for(trace: Path) -> None:
    scenario = from_file(trace, 100, None, None, seed=0)
    assert scenario.title == "60 s of steady (100 to 160 s at speed 1)"
    assert len(scenario.requests) == 300
    assert scenario.length_s == 60
    assert scenario.requests[0].due_s == pytest.approx(0)


def test_speed_compresses_time_and_too_much_load_is_thinned_out(trace: Path) -> None:
    scenario = from_file(trace, 0, 250, 5, seed=0)
    assert scenario.length_s == 50
    assert "250 s at speed 5), 80% of its requests" in scenario.title  # 25 requests/s, and 20 are the most
    assert len(scenario.requests) == pytest.approx(1000, rel=0.1)


def test_a_file_without_a_window_begins_a_while_before_its_busiest_moment(tmp_path: Path) -> None:
    arrival_s = np.concatenate([np.arange(0, 600, 0.25), np.arange(400, 405, 0.1)])
    Trace(arrival_s, np.full(2450, 800), np.full(2450, 100)).save(tmp_path / "peak.npz")
    title = from_file(tmp_path / "peak.npz", None, None, None, seed=0).title
    begin_s = float(title.split("(")[1].split(" ")[0])
    assert 370 <= begin_s <= 380  # the burst is somewhere in a window of 10 s, which comes 20 s later


def test_the_format_of_a_file_that_could_be_of_several_is_named(tmp_path: Path) -> None:
    """Fractions of seconds or of milliseconds: the demo names the formats, and takes one."""
    path = tmp_path / "trace.jsonl"
    rows = ({"timestamp": 10.5 * n, "input_length": 512, "output_length": 20, "hash_ids": [n]} for n in range(100))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with pytest.raises(TraceError, match=r"name one \(trace_format\): .*mooncake"):
        from_file(path, None, None, None, seed=0)
    named = from_file(path, 0, None, 1, seed=0, trace_format="mooncake")
    assert named.length_s == pytest.approx(10.5 * 99 / 1000)


def test_a_slow_trace_is_sped_up(tmp_path: Path) -> None:
    Trace(np.arange(0, 600, 2.0), np.full(300, 800), np.full(300, 100)).save(tmp_path / "slow.npz")
    assert from_file(tmp_path / "slow.npz", 0, None, None, seed=0).title == "60 s of slow (0 to 360 s at speed 6)"


@pytest.mark.parametrize(
    ("from_s", "to_s", "speed", "message"),
    [
        (0, 200, 1, "takes 200 s, which must be above 0 and at most 90"),
        (50, 40, 1, "takes -10 s"),
        (400, None, 1, "choose a window of its 299.8 s"),
        (400, 410, 1, "no request from 400"),
    ],
)
def test_a_window_that_cannot_be_replayed_is_refused(
    trace: Path, from_s: float, to_s: float | None, speed: float, message: str
) -> None:
    with pytest.raises(TraceError, match=message):
        from_file(trace, from_s, to_s, speed, seed=0)


def test_an_engine_fits_a_steady_load_as_worked_out_by_hand() -> None:
    fitted = fit(steady(8, isl=900, osl=100), disaggregated=True)
    token_s = IN_FLIGHT / (8 * 100)
    # held at once, by Little's law: 8/s x 100 tokens x the time of a token, each with 900 + 100/2 tokens of KV cache
    held = 8 * 100 * token_s * 950 / PEAK_WORKERS
    assert fitted.limits.kv_tokens == pytest.approx(KV_ROOM * held, abs=1)
    assert fitted.timing.prefill_ms_per_token == pytest.approx(1000 * PEAK_WORKERS / (8 * 900))
    assert fitted.timing.line(0, 1, int(held)).ms == pytest.approx(1000 * token_s, rel=1e-3)
    assert fitted.timing.base_ms == pytest.approx(1000 * token_s / SLOWDOWN)
    assert fitted.sla.itl_ms == pytest.approx(ITL_SCALE * 1000 * token_s, rel=0.1)
    assert fitted.requests == steady(8, isl=900, osl=100)
    assert fitted.cut == 0


def test_a_request_that_no_engine_could_take_is_cut() -> None:
    requests = (*steady(10, isl=900, osl=100), TraceRequest(59.95, 200_000, 20), TraceRequest(59.96, 900, 20_000))
    fitted = fit(requests, disaggregated=False)
    assert fitted.cut == 2
    assert all(sent.isl + sent.osl <= fitted.limits.kv_tokens / 2 for sent in fitted.requests)
    assert all(sent.isl >= 1 and sent.osl >= 1 for sent in fitted.requests)


@pytest.mark.parametrize("disaggregated", [False, True])
@pytest.mark.parametrize("requests", [(TraceRequest(0.0, 1, 1),), steady(0.1, 1, 1), steady(50, 100_000, 10_000, 10)])
def test_odd_loads_have_an_engine_too(requests: tuple[TraceRequest, ...], disaggregated: bool) -> None:
    fitted = fit(requests, disaggregated=disaggregated)
    assert fitted.sla.ttft_ms > 0
    assert all(sent.isl + sent.osl - 1 <= fitted.limits.kv_tokens for sent in fitted.requests)


def test_requests_are_scaled_to_the_speed_of_llama_cpp_as_worked_out_by_hand() -> None:
    sent, cut = scaled(steady(5, isl=800, osl=100), Speed(prompt_per_s=1000, tokens_per_s=400))
    # 1.5 workers: 35 % of their time for prompts at 1000/s, and 65 % for tokens at 400/s, over the 51 requests that
    # fall into 10 s where both of its ends have one
    assert {(request.isl, request.osl) for request in sent} == {(525 * 10 // 51, 390 * 10 // 51)}
    assert cut == 0
    assert [request.due_s for request in sent] == [request.due_s for request in steady(5, isl=800, osl=100)]


def test_a_request_that_would_hold_a_slot_of_llama_cpp_for_long_is_cut() -> None:
    speed = Speed(prompt_per_s=1000, tokens_per_s=400)
    sent, cut = scaled((*steady(5, isl=800, osl=10), TraceRequest(30.0, 800, 50_000)), speed)
    assert cut == 1
    assert max(request.osl for request in sent) == LONGEST_DECODE_S * 400 / SLOTS
    assert min(request.osl for request in sent) == 1


def test_no_two_prompts_begin_alike() -> None:
    requests = generated(0).requests
    assert len({tuple(prompt(request)[:8]) for request in requests}) == len(requests)
    assert all(len(prompt(request)) == request.isl for request in requests[:20])
