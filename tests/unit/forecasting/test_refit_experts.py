"""ARIMA and Prophet, for those who come from Dynamo; run where they are installed."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from dynamo_planner.core.extras import MissingExtraError
from dynamo_planner.forecasting import Arima, Prophet
from dynamo_planner.forecasting.experts.refit import Refit


class Doubling(Refit, kind="doubling"):
    """Stands for a library's model: foretells twice the last interval, and records nothing."""

    def fit(self, times_s: Sequence[float], roots: Sequence[float | None]) -> Sequence[float]:
        assert len(times_s) == len(roots)
        last = next(root for root in reversed(roots) if root is not None)
        return [1.5 * last] * self.steps


class Failing(Refit, kind="failing"):
    def fit(self, times_s: Sequence[float], roots: Sequence[float | None]) -> Sequence[float]:
        return [math.nan] * self.steps


def fed(expert: Refit, roots: Sequence[float], step_s: float = 30.0) -> tuple[tuple[float, ...], float]:
    memory, at_s = expert.start(), 0.0
    for root in roots:
        at_s += step_s
        memory = expert.update(memory, at_s, step_s, step_s, root)
        assert len(memory) == len(expert.start())
    return memory, at_s


def test_few_intervals_are_constant_and_more_are_fitted() -> None:
    expert = Doubling(interval_s=60)
    memory, at_s = fed(expert, [2.0, 2.0, 3.0, 3.0, 2.0])
    assert expert.ahead(memory, at_s, [30, 600]) == [3.0, 3.0]
    memory, at_s = fed(expert, [2.0, 2.0, 3.0, 3.0] * 4)
    assert expert.ahead(memory, at_s, [30, 600]) == [3.0, 3.0]
    memory, at_s = fed(expert, [2.0, 2.0, 3.0, 3.0] * 4 + [2.0])
    assert expert.ahead(memory, at_s, [30, 6000]) == [4.5, 4.5]


def test_an_interval_without_requests_counts_as_seen() -> None:
    expert = Doubling(interval_s=60)
    memory, at_s = fed(expert, [0.0, 0.0, 3.0, 3.0] * 4 + [0.0])
    assert expert.ahead(memory, at_s, [30]) == [4.5]


def test_a_gap_is_left_open_and_a_failed_fit_is_constant() -> None:
    expert = Failing(interval_s=60, window=8)
    memory, at_s = fed(expert, [2.0, 3.0] * 10)
    memory = expert.update(memory, at_s + 180, 180, 30, 7.0)
    assert memory[4:12].count(-1.0) == 2
    assert expert.ahead(memory, at_s + 180, [30]) == [2.5]


@pytest.mark.parametrize("kind", [Arima, Prophet])
def test_a_missing_extra_is_told_by_name(kind: type[Refit], monkeypatch: pytest.MonkeyPatch) -> None:
    extra = kind.__name__.lower()
    package = {"arima": "statsmodels", "prophet": "prophet"}[extra]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)

    class Absent:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=rf"dynamo-planner\[{extra}\]"):
        kind()
