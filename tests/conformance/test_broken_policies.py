"""Each policy that breaks a law is failed by that law, and by no other."""

from __future__ import annotations

from typing import Any

import broken
import pytest
from broken import CLOCKS, RANDOM, Reads

from dynamo_planner import Policy
from dynamo_planner.conformance import ConformanceError, check_policy


def failed(policy: Any, **options: Any) -> ConformanceError:
    with pytest.raises(ConformanceError) as caught:
        check_policy(policy, **options)
    assert isinstance(caught.value, AssertionError)
    assert repr(caught.value.law) in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("policy", "law"),
    [
        (broken.ChangesAMapping(), "input-unchanged"),
        (broken.ChangesAField(), "input-unchanged"),
        (broken.ChangesItsState(), "input-unchanged"),
        (broken.StateIsAnObject(), "state-json"),
        (broken.StateHasNumbersForKeys(), "state-json"),
        (broken.StateComesBackAsText(), "state-json"),
        (broken.StateGrows(), "state-size"),
        (broken.StateIsLarge(), "state-size"),
        (broken.ForgetsItsPeak(), "no-state"),
        (broken.FewerUnderLoad(), "monotone"),
        (broken.OnPurposeWithoutAReason(), "monotone"),
        (broken.RaisesOnNone(), "never-raises"),
        (broken.DecidesNothing(), "never-raises"),
        (broken.TakesUnknownForZero(), "missing-never-lowers"),
        (broken.TakesNoAnswerForIdle(), "missing-never-lowers"),
        (broken.BeyondBounds(), "within-bounds"),
        (broken.ActsTwice(), "actions"),
        (broken.ExpectsWhatIsNotThere(), "actions"),
        (broken.HoldsInSilence(), "actions"),
        (broken.DecidesAnewAtTheSameTime(), "same-time"),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_each_breaks_its_own_law(policy: Policy, law: str) -> None:
    assert failed(policy).law == law


@pytest.mark.parametrize("source", CLOCKS)
def test_a_clock_that_is_read_is_found(source: str) -> None:
    assert failed(Reads(source=source)).law == "no-clock"


@pytest.mark.parametrize("source", RANDOM)
def test_random_numbers_and_hidden_memory_are_found(source: str) -> None:
    assert failed(Reads(source=source)).law == "same-input"


def test_what_they_share_breaks_no_law() -> None:
    check_policy(broken.Behaves())
    check_policy(broken.OnPurpose())
    check_policy(broken.Overrides())
