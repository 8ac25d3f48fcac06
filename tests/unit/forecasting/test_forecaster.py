"""The forecaster at its surface: what it says in the situations that services are in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from dynamo_planner import ConfigError, SlaPolicy, load_policy, policy_schema
from dynamo_planner.forecasting import (
    Constant,
    Expert,
    Forecast,
    Forecaster,
    ForecastState,
    Seasonal,
    Step,
    Trend,
)

DEFAULT = Forecaster()
HORIZONS_S = (30.0, 120.0, 300.0)


def quantile(state: ForecastState | None, horizon_s: float = 120.0, level: float = 0.9, after_s: float = 0.0) -> float:
    assert state is not None
    forecast = DEFAULT.forecast(state, state.at_s + after_s, horizon_s)
    assert forecast is not None
    return forecast.quantile(level)


def test_nothing_seen_is_unknown() -> None:
    assert DEFAULT.update(None, 5, None, 5) is None
    assert DEFAULT.forecast(None, 5, 30) is None


def test_outside_the_calibrated_levels_scores_are_as_far_apart_as_normal_ones() -> None:
    forecast = Forecast(3.0, 0.5, levels=(0.3, 0.9), scores=(-0.6, 1.4))
    assert forecast.score(0.99) == pytest.approx(1.4 + 2.3263 - 1.2816, abs=1e-4)
    assert forecast.score(0.1) == pytest.approx(-0.6 - (1.2816 - 0.5244), abs=1e-4)


def test_one_sample_is_enough_for_a_forecast() -> None:
    state = DEFAULT.update(None, 5, 4.0, 5)
    forecast = DEFAULT.forecast(state, 5, 60)
    assert forecast is not None
    assert 4.0 <= forecast.mean < 4.2
    assert 4.0 < forecast.quantile(0.9) < 8.0


def test_idle_start_counts_as_not_begun(feed: Any) -> None:
    """An hour of zeros before the first request does not drag the level down once there are some."""
    idle = feed(DEFAULT, [0.0] * 720)
    assert quantile(idle) == 0
    begun = feed(DEFAULT, [6.0] * 6, idle, begin_s=3600)
    fresh = feed(DEFAULT, [6.0] * 6, begin_s=3600)
    assert begun == fresh
    assert quantile(begun) == pytest.approx(6.0, rel=0.3)


def test_zero_traffic_brings_the_forecast_down_to_nothing(feed: Any, poisson: Callable[..., list[float]]) -> None:
    state = feed(DEFAULT, poisson(np.full(720, 6.0)))
    assert quantile(state) > 6
    state = feed(DEFAULT, [0.0] * 720, state, begin_s=3600)
    assert quantile(state, 300) < 0.3
    state = feed(DEFAULT, [0.0] * 5000, state, begin_s=7200)
    assert quantile(state, 300) < 1e-3


def test_traffic_that_returns_after_an_idle_night_is_covered_again_at_once(
    feed: Any, poisson: Callable[..., list[float]]
) -> None:
    state = feed(DEFAULT, poisson(np.full(2000, 6.0)))
    before = quantile(state, 30)
    state = feed(DEFAULT, [0.0] * 5760, state, begin_s=10_000)
    state = feed(DEFAULT, poisson(np.full(120, 6.0), seed=2), state, begin_s=38_800)
    assert 0.95 * before < quantile(state, 30) < 1.5 * before


@pytest.mark.parametrize("rate", [0.2, 7.0, 5e5])
def test_a_constant_series_is_forecast_as_itself(feed: Any, rate: float) -> None:
    state = feed(DEFAULT, [rate] * 2000)
    for horizon_s in HORIZONS_S:
        for level in (0.5, 0.9, 0.99):
            assert quantile(state, horizon_s, level) == pytest.approx(rate, rel=0.01)


def test_a_step_is_followed_within_minutes(feed: Any, poisson: Callable[..., list[float]]) -> None:
    state = feed(DEFAULT, poisson(np.full(1440, 4.0)))
    assert quantile(state, 120, 0.5) == pytest.approx(4.0, rel=0.1)
    state = feed(DEFAULT, poisson(np.full(60, 12.0)), state, begin_s=7200)
    assert quantile(state, 120, 0.9) > 9
    state = feed(DEFAULT, poisson(np.full(120, 12.0), seed=2), state, begin_s=7500)
    assert quantile(state, 30, 0.5) == pytest.approx(12.0, rel=0.1)
    assert quantile(state, 120, 0.9) > 12.0


def test_a_spike_of_one_sample_is_soon_forgotten(feed: Any, poisson: Callable[..., list[float]]) -> None:
    calm = feed(DEFAULT, poisson(np.full(1440, 4.0)))
    spiked = feed(DEFAULT, [40.0], calm, begin_s=7200)
    later = feed(DEFAULT, poisson(np.full(60, 4.0), seed=2), spiked, begin_s=7205)
    assert quantile(spiked, 300, 0.5) < 8
    assert quantile(later, 300, 0.5) == pytest.approx(4.0, rel=0.15)


def test_a_ramp_is_extrapolated(feed: Any, poisson: Callable[..., list[float]]) -> None:
    """Every two hours the rate climbs from 2 to 8 in 20 minutes. Two minutes ahead, a mean of the last minute lags."""
    phase_s = np.arange(2 * 1440 + 200) * 5 % 7200
    truth = 2 + 6 * (np.clip(phase_s / 1200, 0, 1) - np.clip((phase_s - 3600) / 1200, 0, 1))
    rates, lagging = poisson(truth), Forecaster(experts=(Constant(half_life_s=60),))
    biases = []
    for forecaster in (DEFAULT, lagging):
        state, misses = feed(forecaster, rates[:2960]), []
        for number in range(2961, 3050):
            state = forecaster.update(state, 5.0 * number, rates[number - 1], 5)
            forecast = forecaster.forecast(state, 5.0 * number, 120)
            assert forecast is not None
            misses.append(truth[number + 24] - forecast.mean)
        biases.append(abs(np.mean(misses)))
    assert biases[0] < 0.5 * biases[1]


def test_a_gap_leaves_the_level_and_is_not_learned_from(feed: Any, poisson: Callable[..., list[float]]) -> None:
    state = feed(DEFAULT, poisson(np.full(1440, 4.0)))
    resumed = feed(DEFAULT, poisson(np.full(6, 4.0), seed=3), state, begin_s=7200 + 3600)
    assert quantile(resumed, 30, 0.5) == pytest.approx(4.0, rel=0.15)
    assert [track.settled for track in resumed.tracks] == [track.settled for track in state.tracks]


def test_missing_values_leave_the_state_as_it_is(feed: Any) -> None:
    state = feed(DEFAULT, [4.0] * 100)
    for missing in (None, math.nan, math.inf):
        assert DEFAULT.update(state, 1000, missing, 5) is state


def test_a_clock_that_goes_back_is_ignored(feed: Any) -> None:
    state = feed(DEFAULT, [4.0] * 100)
    assert DEFAULT.update(state, 500, 9.0, 5) is state
    assert DEFAULT.update(state, 100, 9.0, 5) is state
    assert DEFAULT.forecast(state, 100, 30) == DEFAULT.forecast(state, 500, 30)


def test_a_shifted_clock_changes_nothing_but_the_season(feed: Any, poisson: Callable[..., list[float]]) -> None:
    rates = poisson(np.full(500, 4.0))
    early, late = feed(DEFAULT, rates), feed(DEFAULT, rates, begin_s=86_400 * 19_000)
    for horizon_s in HORIZONS_S:
        assert quantile(early, horizon_s) == pytest.approx(quantile(late, horizon_s), rel=1e-6)


def test_a_stale_state_looks_further_ahead(feed: Any, poisson: Callable[..., list[float]]) -> None:
    """What is 30 s ahead of a state 270 s old is 300 s ahead of the last sample."""
    state = feed(DEFAULT, poisson(5 + 4 * np.sin(np.arange(3000) / 200)))
    assert quantile(state, 30, after_s=270) == quantile(state, 300)


def test_beyond_the_last_horizon_a_forecast_is_no_surer_than_at_it(feed: Any) -> None:
    """The errors of the last horizons were 0.8 and 0.7 by chance: less than 0.7 is not to be had further ahead."""
    state = feed(DEFAULT, [4.0] * 50)
    *near, before, last = state.tracks
    errors = (before._replace(settled=9.0, spread=0.64), last._replace(settled=9.0, spread=0.49))
    forecast = DEFAULT.forecast(state.replace(tracks=(*near, *errors)), state.at_s, 1.5 * DEFAULT.horizons_s[-1])
    assert forecast is not None and forecast.error == pytest.approx(0.7)


def test_irregular_sampling_gives_the_same_picture(poisson: Callable[..., list[float]]) -> None:
    """The same traffic in windows of 5 to 20 s, cut at random: same level, same quantile for a window of 10 s."""
    draw = np.random.default_rng(4)
    second_counts = draw.poisson(6.0, size=7200)
    regular = irregular = None
    for end in range(10, 7201, 10):
        regular = DEFAULT.update(regular, end, float(second_counts[end - 10 : end].mean()), 10)
    at = 0
    while at < 7180:
        span = int(draw.integers(5, 20))
        at += span
        irregular = DEFAULT.update(irregular, at, float(second_counts[at - span : at].mean()), span)
    one, other = DEFAULT.forecast(regular, 7200, 60, 10), DEFAULT.forecast(irregular, 7200, 60, 10)
    assert one and other
    assert other.mean == pytest.approx(one.mean, rel=0.05)
    assert other.quantile(0.9) == pytest.approx(one.quantile(0.9), rel=0.08)


def test_sparse_samples_still_settle(feed: Any) -> None:
    """Spans of 5 s seen every 30 s: forecasts find an outcome although most intervals were never observed."""
    draw = np.random.default_rng(5)
    state = None
    for number in range(1, 400):
        state = DEFAULT.update(state, 30.0 * number, float(draw.poisson(30)) / 5, 5)
    assert state is not None
    assert all(track.settled > 200 for track in state.tracks)
    assert quantile(state, 30) == pytest.approx(37 / 5, rel=0.12)


def test_overlapping_windows_are_not_counted_twice() -> None:
    """A mean over 60 s, read every 10 s, weighs as much per second as one read every 60 s."""
    often = rarely = None
    expert = Forecaster(experts=(Constant(half_life_s=300),))
    for at in range(60, 3601, 10):
        rate = 4.0 if at < 3000 else 8.0
        often = expert.update(often, at, rate, 60)
        if at % 60 == 0:
            rarely = expert.update(rarely, at, rate, 60)
    one, other = expert.forecast(often, 3600, 60), expert.forecast(rarely, 3600, 60)
    assert one and other
    assert one.root == pytest.approx(other.root, rel=0.03)


def test_the_quantiles_of_steady_poisson_traffic_are_those_of_poisson(
    feed: Any, poisson: Callable[..., list[float]]
) -> None:
    """6 requests/s: the mean of 300 s has a standard deviation of sqrt(6 / 300)."""
    state = feed(DEFAULT, poisson(np.full(4000, 6.0)))
    span, window = DEFAULT.forecast(state, 20_000, 120), DEFAULT.forecast(state, 20_000, 120, window_s=300)
    assert span and window
    assert window.mean == pytest.approx(span.mean, rel=0.02)
    assert window.quantile(0.9) < span.quantile(0.9)
    assert window.quantile(0.9) == pytest.approx(6 + 1.28 * math.sqrt(6 / 300), rel=0.04)


def test_one_forecaster_serves_many_series(feed: Any) -> None:
    low, high = feed(DEFAULT, [1.0] * 50), feed(DEFAULT, [100.0] * 50)
    assert quantile(low) == pytest.approx(1.0, rel=0.2)
    assert quantile(high) == pytest.approx(100.0, rel=0.05)


def test_the_state_is_a_value_that_survives_json(feed: Any, poisson: Callable[..., list[float]]) -> None:
    state = feed(DEFAULT, poisson(np.full(500, 3.0)))
    again = ForecastState.model_validate_json(state.model_dump_json())
    assert again == state
    rates = poisson(np.full(200, 3.0), seed=9)
    assert feed(DEFAULT, rates, again, begin_s=2500) == feed(DEFAULT, rates, state, begin_s=2500)


def test_a_state_of_another_forecaster_starts_anew(feed: Any) -> None:
    state = feed(Forecaster(experts=(Constant(), Trend())), [4.0] * 50)
    assert not DEFAULT.accepts(state)
    assert DEFAULT.forecast(state, 250, 30) is None
    fresh = DEFAULT.update(state, 255, 8.0, 5)
    assert fresh == DEFAULT.update(None, 255, 8.0, 5)
    assert Forecaster(horizons_s=(60,)).forecast(feed(DEFAULT, [4.0] * 5), 25, 30) is None
    assert (
        Forecaster(experts=(Seasonal(slots=24),)).forecast(feed(Forecaster(experts=(Seasonal(),)), [1.0]), 5, 5) is None
    )


def test_a_state_whose_rows_do_not_match_is_refused(feed: Any) -> None:
    data = feed(DEFAULT, [4.0] * 50).model_dump(mode="json")
    data["tracks"][0][1] = data["tracks"][0][1][:-1]
    with pytest.raises(ValidationError, match="not of one number of experts"):
        ForecastState.model_validate(data)


def test_a_forecaster_is_data() -> None:
    data = {"experts": [{"kind": "constant", "half_life_s": 60}, {"kind": "seasonal", "slots": 48}], "horizons_s": [60]}
    forecaster = Forecaster.model_validate(data)
    assert forecaster.experts == (Constant(half_life_s=60), Seasonal(slots=48))
    assert Forecaster.model_validate_json(forecaster.model_dump_json()) == forecaster
    assert Forecaster.model_validate_json(DEFAULT.model_dump_json()) == DEFAULT


def test_a_copy_with_other_fields_is_like_one_built_so(feed: Any) -> None:
    state = feed(DEFAULT, [4.0, 5.0, 6.0])
    copy = DEFAULT.replace(horizons_s=(60.0,))
    assert copy == Forecaster(horizons_s=(60,))
    assert not copy.accepts(state)
    assert feed(copy, [4.0, 5.0, 6.0]) == feed(Forecaster(horizons_s=(60,)), [4.0, 5.0, 6.0])


def test_numpy_numbers_are_numbers() -> None:
    state = DEFAULT.update(None, np.float32(5), np.float32(4.0), np.int64(5))  # type: ignore[arg-type]
    assert state == DEFAULT.update(None, 5.0, 4.0, 5.0)
    assert state is not None
    assert type(state.at_s) is type(state.span_s) is float


class Largest(Expert, kind="largest"):
    """A user's own expert: nothing is ever less than the largest root seen."""

    def start(self) -> tuple[float, ...]:
        return (0.0,)

    def update(
        self, memory: tuple[float, ...], at_s: float, elapsed_s: float, span_s: float, root: float
    ) -> tuple[float, ...]:
        return (max(memory[0], root),)

    def ahead(self, memory: tuple[float, ...], at_s: float, ahead_s: Sequence[float]) -> list[float]:
        return [memory[0]] * len(ahead_s)


def test_an_expert_of_ones_own(feed: Any) -> None:
    forecaster = Forecaster(experts=(Largest(), Constant()))
    state = feed(forecaster, [9.0, 4.0, 4.0, 4.0])
    assert state.kinds == ("largest", "constant")
    forecast = forecaster.forecast(state, 20, 30)
    assert forecast is not None
    assert forecast.root > 2.5
    assert '"kind":"largest"' in forecaster.model_dump_json()


def test_an_expert_of_another_package_is_built_from_data_where_that_is_allowed() -> None:
    policy = {"kind": "sla", "sla": {"ttft_ms": 500, "itl_ms": 25}, "profile": "llama31-8b_h100_vllm_tp1"}
    own = {**policy, "forecaster": {"experts": [{"kind": f"{__name__}:Largest"}, {"kind": "constant"}]}}
    loaded = load_policy(own, allow_custom=True)
    assert isinstance(loaded, SlaPolicy)
    assert isinstance(loaded.forecaster, Forecaster)
    assert loaded.forecaster.experts == (Largest(), Constant())
    with pytest.raises(ConfigError, match=r"forecaster.experts\[0\].kind: .*not allowed here"):
        load_policy(own)


def test_the_schema_of_policies_has_every_expert() -> None:
    expert = policy_schema()["$defs"]["Expert"]
    named = {choice["$ref"].rpartition("/")[2] for choice in expert["anyOf"] if "$ref" in choice}
    assert named == {"Constant", "Step", "Trend", "Seasonal", "Arima", "Prophet"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"experts": ()}, "at least 1"),
        ({"experts": [{"kind": "oracle"}]}, "'oracle'"),
        ({"experts": [{"kind": "trend", "half_life_s": 0}]}, "greater than 0"),
        ({"horizons_s": (120, 30)}, "horizons_s must ascend"),
        ({"levels": (0.9, 0.9)}, "levels must ascend"),
        ({"levels": (0.9, 1.0)}, "less than 1"),
        ({"weights": 1}, "did you mean 'weight_rate'"),
    ],
)
def test_a_wrong_configuration_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Forecaster(**fields)


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        ((5, -1.0, 5), "rate_per_s must be at least 0"),
        ((5, 1.0, 0), "span_s"),
        ((5, 1.0, math.inf), "span_s"),
        ((math.nan, 1.0, 5), "at_s"),
    ],
)
def test_what_is_no_sample_is_refused(sample: tuple[float, float, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        DEFAULT.update(None, *sample)


def test_what_is_no_question_is_refused(feed: Any) -> None:
    state = feed(DEFAULT, [4.0] * 5)
    with pytest.raises(ValueError, match="horizon_s must be 0 to"):
        DEFAULT.forecast(state, 25, -1)
    with pytest.raises(ValueError, match="window_s must be positive"):
        DEFAULT.forecast(state, 25, 30, window_s=0)
    forecast = DEFAULT.forecast(state, 25, 30)
    assert forecast is not None
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        forecast.quantile(1.0)


def test_a_step_is_found_however_long_it_was_quiet() -> None:
    """An expert alone: a mean with an hour's memory would still be halfway; a new level is found from a few samples."""
    expert, memory = Step(half_life_s=3600), Step().start()
    draw = np.random.default_rng(6)
    for number in range(2000):
        root = (2.0 if number < 1980 else 4.0) + 0.3 * float(draw.standard_normal())
        memory = expert.update(memory, 5.0 * number, 5, 5, root)
    assert expert.ahead(memory, 9995, [60])[0] == pytest.approx(4.0, abs=0.25)


def test_the_level_of_the_seasonal_expert_is_as_old_as_what_it_was_made_of() -> None:
    """The root rises by 1/12 an hour for half of the day. At 6 h it is 2.5, and a mean with a half-life of half an hour
    is that of 43 minutes before: 2.44, which the shape carries on to 2.5."""
    expert, memory = Seasonal(slots=24, half_life_s=1800), Seasonal(slots=24).start()
    for second in range(300, 2 * 86_400 + 6 * 3600 + 300, 300):
        hour = second / 3600 % 24
        memory = expert.update(memory, second, 300, 300, root=2 + min(hour, 24 - hour) / 12)
    assert memory[0] == pytest.approx(2.44, abs=0.005)
    assert expert.ahead(memory, second, [0, 3600]) == pytest.approx([2.5, 2.5 + 1 / 12], abs=0.01)
