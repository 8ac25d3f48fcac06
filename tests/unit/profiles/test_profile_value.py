"""A profile is a value: immutable, equal by content, picklable, data in JSON, and a field of other models."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from dynamo_planner.core.decision import Proposal
from dynamo_planner.core.policy import Policy
from dynamo_planner.profiles import MixedPoints, PrefillPoints, Profile, ProfileError


def test_immutable_equal_and_hashable(own: Profile) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        own.name = "other"  # type: ignore[misc]
    same = Profile.model_validate(own.model_dump())
    assert same == own
    assert hash(same) == hash(own)
    assert own.replace(name="other") != own


def test_fitted_curves_are_no_part_of_the_value(own: Profile) -> None:
    fresh = Profile.model_validate_json(own.model_dump_json())
    untouched = pickle.dumps(fresh)
    fresh.decode.itl_ms(0.1, 1000)
    fresh.step_ms(10, 2, 1000)
    assert fresh == own
    assert pickle.dumps(fresh) == untouched


@pytest.mark.parametrize("deep", [False, True])
def test_copies_do_not_keep_the_curves_of_other_points(own: Profile, deep: bool) -> None:
    assert own.prefill.ttft_ms(1024) == pytest.approx(40)
    slower = PrefillPoints(isl=[128, 1024], ttft_ms=[20, 80])
    changed = own.model_copy(update={"prefill_points": slower}, deep=deep)
    assert changed.prefill.ttft_ms(1024) == pytest.approx(80)
    assert own.prefill.ttft_ms(1024) == pytest.approx(40)


def test_round_trips(each_profile: Profile) -> None:
    assert Profile.model_validate_json(each_profile.model_dump_json()) == each_profile
    for again in (pickle.loads(pickle.dumps(each_profile)), copy.copy(each_profile), copy.deepcopy(each_profile)):
        assert again == each_profile
        assert again.decode.itl_ms(0.3, 2000) == each_profile.decode.itl_ms(0.3, 2000)


class ByProfile(Policy, kind="test_by_profile"):
    profile: Profile

    def propose(self, snapshot: Any, state: Any) -> Any:
        return Proposal(), state


def test_a_policy_that_holds_one_is_data(own: Profile) -> None:
    policy = ByProfile(profile=own)
    data = policy.model_dump(mode="json")
    data.pop("kind")
    again = ByProfile.model_validate(data)
    assert again == policy
    assert again.profile.prefill.ttft_ms(1024) == pytest.approx(40)
    assert "prefill_points" in str(ByProfile.model_json_schema())
    data["profile"]["prefill_points"]["ttft_ms"][1] = None
    with pytest.raises(ValidationError, match=r"ttft_ms\[1\] is None: it takes a number"):
        ByProfile.model_validate(data)


def test_nested_fields_validate_from_json_text(own: Profile) -> None:
    class Holder(BaseModel):
        profile: Profile

    assert Holder.model_validate_json(Holder(profile=own).model_dump_json()).profile == own


def test_from_points_takes_batches_or_usage(own: Profile) -> None:
    points = own.decode_points
    common: dict[str, Any] = {
        "name": "own",
        "isl": own.prefill_points.isl,
        "ttft_ms": own.prefill_points.ttft_ms,
        "max_kv_tokens": points.max_kv_tokens,
        "context": points.context,
        "itl_ms": points.itl_ms,
        "gpus": 2,
    }
    by_batch = Profile.from_points(**common, batch=[round(batch) for batch in points.batch])
    assert by_batch == own
    wrong: tuple[dict[str, Any], ...] = ({}, {"batch": points.batch, "kv_usage": points.kv_usage})
    for load in wrong:
        with pytest.raises(ProfileError, match="either kv_usage or batch: give one of the two"):
            Profile.from_points(**common, **load)
    with pytest.raises(ProfileError, match="one batch for each context"):
        Profile.from_points(**common, batch=[1, 2])
    with pytest.raises(ProfileError, match=r"max_kv_tokens: Input should be greater than or equal to 100 \(got 0\)"):
        Profile.from_points(**common | {"max_kv_tokens": 0}, batch=points.batch)
    with pytest.raises(ProfileError, match=r"itl_ms\[2\] is 0.0001, and 0.5 to 100000 is plausible: ITL is in ms"):
        Profile.from_points(**{**common, "itl_ms": [*points.itl_ms[:2], 1e-4, *points.itl_ms[3:]]}, batch=points.batch)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([128, "x"], r"isl\[1\] is 'x'"),
        (None, r"isl\s+Input should be a valid tuple"),
        ("128", r"isl has the shape \(\)"),
        ([[1], [2, 3]], "isl is a ragged list"),
        ([128, True, None], r"isl\[2\] is None"),
    ],
)
def test_columns_that_are_no_numbers(column: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PrefillPoints(isl=column, ttft_ms=[10, 20])


def test_columns_in_any_form_that_holds_numbers() -> None:
    expected = PrefillPoints(isl=(128.0, 1024.0), ttft_ms=(10.0, 40.0))
    for isl in (
        [128, 1024],
        np.array([128, 1024]),
        [np.int64(128), np.float32(1024)],
        np.array([128, 1024], dtype="O"),
    ):
        assert PrefillPoints(isl=isl, ttft_ms=[10, 40]) == expected


def test_mixed_points_may_be_zero_but_not_twice_the_same() -> None:
    points: dict[str, Any] = {"prefill_tokens": [0, 0], "num_decode": [1, 8], "context": [500, 500], "step_ms": [6, 7]}
    assert MixedPoints(**points).step_ms == (6, 7)
    with pytest.raises(ValidationError, match=r"prefill_tokens\[1\] is a second point"):
        MixedPoints(**points | {"num_decode": [1, 1]})
