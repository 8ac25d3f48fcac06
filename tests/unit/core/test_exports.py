"""Every public name of the package and of each room is there, in completion too, with a signature that can be read."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from dynamo_planner import SlaPolicy, Snapshot

ROOMS = (
    "conformance", "config", "evaluation", "executors", "fleet", "forecasting", "guards", "policies", "profiles",
    "runtime", "simulator", "sizing", "sources", "workloads",
)  # fmt: skip


@pytest.mark.parametrize("module", ["dynamo_planner", *(f"dynamo_planner.{room}" for room in ROOMS)])
def test_every_public_name_is_there(module: str) -> None:
    package = import_module(module)
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_a_signature_has_what_may_be_given_in_words_that_can_be_read() -> None:
    assert str(inspect.signature(Snapshot)) == (
        "(*, at_s: float, traffic: Traffic = Traffic(), pools: Mapping[str, PoolStatus] = {}, "
        "knobs: Mapping[str, bool | int | float | str] = {}, deferred: Mapping[str, Deferred] = {}, "
        "missing: Mapping[str, str] = {})"
    )
    SlaPolicy(ttft_ms=500, itl_ms=25)  # pydantic builds the model now, and with it a signature of its own
    names = inspect.signature(SlaPolicy).parameters
    told = {name: str(names[name]) for name in ("sla", "ttft_ms", "itl_ms", "attainment")}
    assert told == {
        "sla": "sla: Sla = ...",
        "ttft_ms": "ttft_ms: float = ...",
        "itl_ms": "itl_ms: float = ...",
        "attainment": "attainment: Attainment | float = KeptPromise()",
    }


@pytest.mark.parametrize("module", ["dynamo_planner", *(f"dynamo_planner.{room}" for room in ROOMS)])
def test_no_signature_shows_a_validator(module: str) -> None:
    package = import_module(module)
    public = [getattr(package, name) for name in package.__all__]
    told = [str(inspect.signature(each)) for each in public if callable(each) and not _is_error(each)]
    assert [each for each in told if "Validator" in each or "Annotated" in each] == []


def _is_error(each: object) -> bool:
    return isinstance(each, type) and issubclass(each, BaseException)
