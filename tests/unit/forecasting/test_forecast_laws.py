"""Laws that hold for any samples, in any order, of any size."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner.forecasting import Forecaster, ForecastState
from tests.support.laws import examples

FORECASTER = Forecaster()
LEVELS = (0.01, 0.3, 0.5, 0.75, 0.9, 0.95, 0.99, 0.9999)

Sample = tuple[float, float | None, float]

rates = st.one_of(
    st.none(),
    st.just(0.0),
    st.sampled_from([math.nan, math.inf]),
    st.integers(0, 50).map(lambda count: count / 5),
    st.floats(0, 1e300),
    st.floats(0, 1e-300),
)
steps = st.one_of(st.just(5.0), st.floats(1e-9, 1e4), st.floats(-100, 0), st.sampled_from([0.0, 1e9, 1e12]))
spans = st.one_of(st.just(5.0), st.floats(1e-3, 600), st.just(1e9))


@st.composite
def histories(draw: st.DrawFn) -> list[Sample]:
    """Samples at times that jump, and go back now and then."""
    at_s = draw(st.sampled_from([0.0, 1.7e9, -1e6, 1e15]))
    history = []
    for step_s, rate, span_s in draw(st.lists(st.tuples(steps, rates, spans), min_size=1, max_size=60)):
        at_s += step_s
        history.append((at_s, rate, span_s))
    return history


def state_after(history: list[Sample]) -> ForecastState | None:
    state = None
    for sample in history:
        state = FORECASTER.update(state, *sample)
    return state


questions = st.tuples(st.floats(-1e6, 1e6), st.one_of(st.sampled_from([30.0, 120.0, 300.0]), st.floats(0, 1e9)))


@examples(150)
@given(histories(), questions, st.one_of(st.none(), st.floats(1e-3, 1e6)))
def test_quantiles_are_numbers_in_order_and_never_negative(
    history: list[Sample], question: tuple[float, float], window_s: float | None
) -> None:
    state = state_after(history)
    after_s, horizon_s = question
    at_s = (state.at_s if state else 0.0) + after_s
    answer = FORECASTER.forecast(state, at_s, horizon_s, window_s)
    assert (answer is None) == (state is None)
    if answer is not None:
        values = [answer.quantile(level) for level in LEVELS]
        assert all(map(math.isfinite, [*values, answer.mean]))
        assert values[0] >= 0
        assert values == sorted(values)
        assert answer.mean >= 0


@examples(100)
@given(histories(), histories())
def test_a_state_from_json_goes_on_as_if_it_had_never_left(history: list[Sample], more: list[Sample]) -> None:
    stayed = state_after(history)
    if stayed is None:
        return
    left: ForecastState | None = ForecastState.model_validate_json(stayed.model_dump_json())
    assert left == stayed
    for sample in more:
        stayed, left = FORECASTER.update(stayed, *sample), FORECASTER.update(left, *sample)
    assert left == stayed
    assert FORECASTER.forecast(left, 0, 77) == FORECASTER.forecast(stayed, 0, 77)


@examples(100)
@given(histories())
def test_the_state_is_bounded_and_its_input_untouched(history: list[Sample]) -> None:
    state = state_after(history)
    if state is None:
        return
    before = state.model_dump_json()
    FORECASTER.update(state, state.at_s + 5, 3.0, 5)
    assert state.model_dump_json() == before
    assert len(before) <= 12 * 1024
    assert all(len(track.pending) <= 18 for track in state.tracks)
