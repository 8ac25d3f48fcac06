"""The Prophet expert (extra ``prophet``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.forecasting.experts.refit import Refit


class Prophet(Refit, kind="prophet"):
    """Prophet of the square roots, for those who come from Dynamo's ``prophet`` predictor, with that one's window of
    50.

    Each fit starts a process of Stan's optimizer and writes temporary files, so this expert gives the same for the same
    but is not free of side effects; ``logging.getLogger("cmdstanpy").disabled = True`` quietens it. Raises
    :class:`~dynamo_planner.core.extras.MissingExtraError` where prophet is not installed.
    """

    def model_post_init(self, _: Any) -> None:
        with needs_extra("prophet"):
            import prophet  # type: ignore[import-not-found, import-untyped, unused-ignore] # noqa: F401, PLC0415

    def fit(self, times_s: Sequence[float], roots: Sequence[float | None]) -> Sequence[float]:
        import pandas  # type: ignore[import-not-found, import-untyped, unused-ignore] # noqa: PLC0415
        import prophet  # noqa: PLC0415

        seen = [(at_s, root) for at_s, root in zip(times_s, roots, strict=True) if root is not None]
        next_s = [times_s[-1] + self.interval_s * step for step in range(1, self.steps + 1)]
        try:
            model = prophet.Prophet(uncertainty_samples=0)
            model.fit(_frame(pandas, [at_s for at_s, _ in seen], y=[root for _, root in seen]), seed=1)
            return [float(root) for root in model.predict(_frame(pandas, next_s))["yhat"]]
        except (ValueError, ArithmeticError, RuntimeError):
            return ()


def _frame(pandas: Any, times_s: Sequence[float], **columns: Sequence[float]) -> Any:
    return pandas.DataFrame({"ds": pandas.to_datetime(list(times_s), unit="s"), **columns})
