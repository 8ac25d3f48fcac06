"""What tuning found: the candidates, the one to take, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.core.snapshot import Sla
from dynamo_planner.evaluation.score import Score

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

LEAST_SAVING = 0.01
"""A saving of less is none."""

SURE = 2.0
"""Standard errors by which a saving has to be above 0."""


@dataclass(frozen=True)
class Trial:
    """One candidate over the whole trace.

    Args:
        name: Its fleet and settings.
        fleet: Its fleet.
        policy: Its policy and guards as a configuration has them, without the profile.
        costs: GPU-hours in each block.
        attained: The share of requests in time in each block; NaN where none came.
        score: The run in numbers.
    """

    name: str
    fleet: str
    policy: list[dict[str, Any]]
    costs: Floats
    attained: Floats
    score: Score


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Args:
        sla: The targets.
        trials: The candidates; the first is the default.
        best: The name of the cheapest that keeps the promise, or of the one that comes closest.
        saving: What choosing like this saves of the default's GPU-hours on blocks that had no say.
        error: The standard error of that.
        kept: The share of those blocks in which the promise was kept, by the chosen.
        kept_by_default: The same by the default.
    """

    sla: Sla
    trials: tuple[Trial, ...]
    best: str
    saving: float
    error: float
    kept: float
    kept_by_default: float

    @property
    def default_is_as_good(self) -> bool:
        """Whether nothing is surely better than the default."""
        default = self.trials[0]
        if self.best == default.name:
            return True
        if default.score.attainment < self.sla.attainment:
            return self.kept <= self.kept_by_default
        return self.saving < max(LEAST_SAVING, SURE * self.error)

    @property
    def recommended(self) -> Trial:
        """The default where it is as good, else the best."""
        name = self.trials[0].name if self.default_is_as_good else self.best
        return next(trial for trial in self.trials if trial.name == name)

    def table(self) -> str:
        """The candidates as a table in Markdown, the cheapest first."""
        header = ("candidate", "GPU-hours", "over default", "in time", "worst block", "blocks kept")
        base, rows = self.trials[0].score.gpu_hours, [header, ("---",) * len(header)]
        for trial in sorted(self.trials, key=lambda trial: trial.score.gpu_hours):
            mark = " *" if trial.name == self.recommended.name else ""
            known = trial.attained[np.isfinite(trial.attained)]
            rows.append(
                (
                    trial.name + mark,
                    f"{trial.score.gpu_hours:.2f}",
                    f"{trial.score.gpu_hours / base:.3f}" if base else "",
                    f"{trial.score.attainment:.4f}",
                    f"{known.min(initial=1.0):.4f}",
                    f"{(known >= self.sla.attainment).sum()} of {len(known)}",
                )
            )
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)

    def says(self) -> str:
        """The recommendation in words, and how sure it is."""
        blocks = f"on held-out blocks it saves {self.saving:.1%} ± {self.error:.1%} of the GPU-hours"
        held = f"and keeps the promise in {self.kept:.0%} of them (the default in {self.kept_by_default:.0%})"
        if self.best == self.trials[0].name:
            return f"The default settings are the cheapest that keep the promise: {self.best}."
        if self.default_is_as_good:
            return f"The default settings are as good: {self.best} is cheapest, but {blocks}, {held}."
        return f"Take {self.best}: {blocks}, {held}."

    def as_data(self) -> dict[str, Any]:
        """The candidates in numbers, the one to take, and how sure that is, as JSON takes them."""
        trials = {
            trial.name: {
                "fleet": trial.fleet,
                "gpu_hours": trial.costs.tolist(),
                "attained": [None if math.isnan(share) else share for share in trial.attained.tolist()],
                "score": trial.score.model_dump(mode="json"),
            }
            for trial in self.trials
        }
        return {
            "sla": self.sla.model_dump(),
            "best": self.best,
            "recommended": self.recommended.name,
            "saving": self.saving,
            "error": self.error,
            "kept": self.kept,
            "kept_by_default": self.kept_by_default,
            "trials": trials,
        }

    def plot(self, ax: Any = None) -> Figure:
        """GPU-hours against the share of requests that miss a target, a colour for each fleet (extra ``plot``).

        ``ax`` are axes of matplotlib to draw on; a new figure by default.
        """
        from dynamo_planner.evaluation.report_plot import plot_pareto  # noqa: PLC0415

        fleets: dict[str, dict[float, Score]] = {}
        for trial in self.trials:
            fleets.setdefault(trial.fleet, {})[trial.score.gpu_hours] = trial.score
        return plot_pareto(fleets, self.sla, ax=ax)


def cheapest(trials: Sequence[Trial], sla: Sla, blocks: NDArray[np.intp]) -> int:
    """The place of the cheapest trial whose mean share in time over some blocks keeps the promise; where none does, of
    the one that comes closest."""
    attained = np.array([_mean(trial.attained[blocks]) for trial in trials])
    costs = np.array([trial.costs[blocks].sum() for trial in trials])
    keeps = attained >= sla.attainment
    return int(np.where(keeps, costs, np.inf).argmin() if keeps.any() else attained.argmax())


def _mean(shares: Floats) -> float:
    known = shares[np.isfinite(shares)]
    return float(known.mean()) if len(known) else 1.0


def judged(sla: Sla, trials: tuple[Trial, ...], blocks: int) -> Tuned:
    """What choosing the cheapest gains, on blocks that had no say."""
    savings, kept, kept_by_default = [], [], []
    for held_out in range(blocks):
        chosen = trials[cheapest(trials, sla, np.delete(np.arange(blocks), held_out))]
        if trials[0].costs[held_out]:
            savings.append(1 - chosen.costs[held_out] / trials[0].costs[held_out])
        kept.append(not chosen.attained[held_out] < sla.attainment)
        kept_by_default.append(not trials[0].attained[held_out] < sla.attainment)
    spread = float(np.std(savings, ddof=1)) if len(savings) > 1 else 0.0
    best = trials[cheapest(trials, sla, np.arange(blocks))]
    return Tuned(
        sla,
        trials,
        best.name,
        float(np.mean(savings or [0.0])),
        spread / math.sqrt(max(len(savings), 1)),
        float(np.mean(kept)),
        float(np.mean(kept_by_default)),
    )
