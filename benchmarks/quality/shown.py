"""The results as Markdown, and beside those of an earlier run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.quality.comparing import CellResult, Row


def table(found: Sequence[Row]) -> str:
    """All cells as one table, the best policy first."""
    lines = [
        "| policy | attained the target | mean / worst attainment | GPU-hours to best schedule, where attained | "
        "to lower bound | cost, all cells (95 % interval) | starts |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        attained = f"{row.attained} of {row.cells} | {row.attainment:.4f} / {row.worst:.3f}"
        cost = f"**{row.cost:.2f}** ({row.low:.2f} to {row.high:.2f})"
        ratios = f"{_number(row.ratio)} | {_number(row.to_bound)}"
        lines.append(f"| {row.policy} | {attained} | {ratios} | {cost} | {row.starts:.0f} |")
    return "\n".join(lines)


def cells(results: Sequence[CellResult]) -> str:
    """Each cell: the yardstick, its gap, and GPU-hours to the best schedule (with the attainment where it missed)."""
    names = list(dict.fromkeys(name for result in results for name in result.outcomes))
    head = ["cell", "bound", "best schedule", "gap", "found by", *names]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for result in results:
        gap = result.feasible / result.bound if result.feasible and result.bound else None
        entries = [result.name, _number(result.bound), _number(result.feasible), _number(gap), result.found_by]
        lines.append(f"| {' | '.join([*entries, *(_entry(result, name) for name in names)])} |")
    return "\n".join(lines)


def _entry(result: CellResult, name: str) -> str:
    if name not in result.outcomes:
        return ""
    outcome = result.outcomes[name]
    ratio = _number(outcome.gpu_hours / result.feasible if result.feasible else None)
    return ratio if outcome.attainment >= result.target else f"{ratio} ({100 * outcome.attainment:.1f} %)"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def against(found: Sequence[Row], earlier: Mapping[str, Any]) -> str:
    """What has changed since an earlier run, for the policies that are in both."""
    before = {row["policy"]: row for row in earlier["rows"]}
    lines = [
        f"{row.policy}: cost {before[row.policy]['cost']:.3f} -> {row.cost:.3f}, "
        f"attained {before[row.policy]['attained']} -> {row.attained} of {row.cells}"
        for row in found
        if row.policy in before
    ]
    return "\n".join(lines) or "no policy is in both runs"
