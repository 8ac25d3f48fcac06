"""The results as Markdown, and beside those of an earlier run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.quality.blind.results import Row, WindowResult, rows

GROUPS: Mapping[str, str] = {
    "window": "Windows",
    "scenario": "Scenarios",
    "apart": "Kept apart: traces and profiles that no one tunes on",
}


def tables(results: Sequence[WindowResult]) -> str:
    """A table of all that may be tuned on, one of each group, and one of every window."""
    tuned_on = [result for result in results if result.group != "apart"]
    parts = [("All but those kept apart", tuned_on)]
    parts += [(title, [r for r in results if r.group == group]) for group, title in GROUPS.items()]
    texts = [f"### {title}\n\n{table(rows(part))}" for title, part in parts if any(r.best for r in part)]
    return "\n\n".join([*texts, f"### Every window\n\n{every(results)}"])


def table(found: Sequence[Row]) -> str:
    """A row for each policy, the cheapest first."""
    lines = [
        "| policy | promise held | cost (95 % interval) | GPU-hours over the best schedule | mean / worst attainment | "
        "worst hour, median | worst 5 min, median | starts |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.policy} | {row.held:.0%} of {row.windows} | **{row.cost:.2f}** ({row.low:.2f} to {row.high:.2f}) | "
        f"{row.gpu_hours:.2f} | {row.attainment:.4f} / {row.worst_window:.3f} | {row.worst_hour:.3f} | "
        f"{row.worst_5_min:.2f} | {row.starts:.0f} |"
        for row in found
    ]
    return "\n".join(lines)


def every(results: Sequence[WindowResult]) -> str:
    """GPU-hours of each policy over the best schedule's in every window, with the attainment where it missed."""
    names = [row.policy for row in rows(results)]
    lines = [f"| {' | '.join(['window', 'best schedule', 'found by', *names])} |", "|" + "---|" * (len(names) + 3)]
    for result in results:
        best = ["none", ""] if result.best is None else [f"{result.best.gpu_hours:.2f}", result.best.found_by]
        lines.append(f"| {' | '.join([result.name, *best, *(_entry(result, name) for name in names)])} |")
    return "\n".join(lines)


def _entry(result: WindowResult, name: str) -> str:
    if name not in result.outcomes or result.best is None:
        return ""
    outcome = result.outcomes[name]
    ratio = f"{outcome.gpu_hours / result.best.gpu_hours:.2f}"
    return ratio if outcome.attainment >= result.target else f"{ratio} ({100 * outcome.attainment:.1f} %)"


def against(results: Sequence[WindowResult], earlier: Sequence[WindowResult]) -> str:
    """What has changed since an earlier run, in the windows that both have and for the policies in both."""
    before = {result.name: result for result in earlier}
    now = [result for result in results if result.name in before]
    then_rows = {row.policy: row for row in rows([before[result.name] for result in now])}
    lines = [
        f"{row.policy}: cost {then_rows[row.policy].cost:.3f} -> {row.cost:.3f}, "
        f"held {then_rows[row.policy].held:.0%} -> {row.held:.0%} of {row.windows}"
        for row in rows(now)
        if row.policy in then_rows
    ]
    return "\n".join(lines) or "no policy is in both runs"
