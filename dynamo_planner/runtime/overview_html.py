"""The status page of a planner: pools, what was decided and why, the promise, and pictures of the last hours.

One read-only page without scripts and without anything from elsewhere, which reloads itself. The pictures are inline
SVG: a planner should not need a plotting library for a few lines.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from dynamo_planner.core.decision import Reason
from dynamo_planner.runtime.decision_log import Step
from dynamo_planner.runtime.health import ProbeResult
from dynamo_planner.runtime.metrics import SINCE, change_of
from dynamo_planner.runtime.overview import Moment, promise

WIDTH, HEIGHT, LEFT, TOP = 420, 120, 40, 10
LEAST_REFRESH_S = 2.0
WORDS = frozenset({"role", "code", "what", "reason"})
"""Columns of words, which stand to the left."""

STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --faint: #616e7c; --line: #d9e2ec; --a: #1864ab; --b: #d9480f }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --faint: #9aa5b1; --line: #323f4b; --a: #74c0fc; --b: #ffa94d } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); margin: 1.5em auto; max-width: 1100px; padding: 0 1em }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 1.6em }
.faint { color: var(--faint) } .wide { overflow-x: auto }
table { border-collapse: collapse }
td, th { padding: .3em .8em; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top }
td:first-child, th:first-child, .words { text-align: left } code { font-size: .95em }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 1em }
figure { margin: 0 } svg { width: 100%; height: auto } text { fill: var(--faint); font-size: 12px }
polyline { fill: none; stroke-width: 2; vector-effect: non-scaling-stroke }
.a { stroke: var(--a) } .b { stroke: var(--b) }
.axis { stroke: var(--line) } .key-a { color: var(--a) } .key-b { color: var(--b) } .bad { color: var(--b) }
@media (max-width: 600px) {
  td, th { padding: .3em .4em } tr:has(th.words:last-child) { display: none }
  tr:has(td.words:last-child) { display: flex; flex-wrap: wrap; border-bottom: 1px solid var(--line) }
  tr:has(td.words:last-child) td { border: 0; padding: .1em .4em } td.words:last-child { flex-basis: 100% } }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; base-uri 'none'"


def status_html(last: Step | None, history: Sequence[Moment], health: ProbeResult, refresh_s: float) -> str:
    """The page, which reloads itself after ``refresh_s`` seconds."""
    name = "dynamo_planner" if last is None else last.name
    body = "<p>No step has been made yet.</p>" if last is None else _body(last, history)
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(name)}</title>'
        f'<meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="refresh" content="{max(refresh_s, LEAST_REFRESH_S):.0f}">'
        f"<style>{STYLE}</style></head><body><h1>{escape(name)}</h1>{_health(last, health)}{body}</body></html>\n"
    )


def _health(last: Step | None, health: ProbeResult) -> str:
    parts = [health.message if health.ok else f'<span class="bad">{escape(health.message)}</span>']
    if health.leader is not None:
        parts.append("leads" if health.leader else "stands by")
    if last is not None:
        parts.append(f"last step {_clock(last.at_s)}")
        parts += ["advisory: decides without acting"] if last.advisory else []
    return f"<p>{' · '.join(parts)}</p>"


def _body(last: Step, history: Sequence[Moment]) -> str:
    return _pools(last) + _promise(last) + _pictures(history) + _troubles(last) + _reasons(last)


def _pools(last: Step) -> str:
    rows = []
    for name, pool in last.snapshot.pools.items():
        states = ("ready", "starting", "failed", "draining")
        counts = ["?"] * 4 if pool.replicas is None else [str(getattr(pool.replicas, state)) for state in states]
        wanted, gpus = last.decision.targets.get(name), pool.gpus_held()
        change = change_of(name, last.decision)
        cells = [
            "held" if wanted is None else str(wanted),
            *counts,
            "?" if gpus is None else str(gpus),
            "" if change in {"none", "held"} else change,
        ]
        numbers = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f"<tr><td>{escape(name)}</td><td class='words'>{pool.spec.role}</td>{numbers}</tr>")
    return _table(("pool", "role", "wanted", "ready", "starting", "failed", "draining", "GPUs", "change"), rows)


def _promise(last: Step) -> str:
    told = promise(last)
    if told is None:
        return ""
    mark = ' class="bad"' if told.code == "PromiseMissed" else ""
    return f"<h2>The promise</h2><p{mark}>{escape(told.message)}.</p>"


def _pictures(history: Sequence[Moment]) -> str:
    rate = [(each.at_s, each.requests_per_s) for each in history]
    found = [_picture("Requests per second", [("a", "requests/s", rate)])]
    share = [(each.at_s, each.attained) for each in history]
    if any(value is not None for _, value in share):
        found.append(
            _picture("Share in time, over the promise's window", [("a", "in time", share)], least=0.9, most=1.0)
        )
    for name in history[-1].pools if history else ():
        of_pool = [(each.at_s, each.pools.get(name)) for each in history]
        ready = [(at_s, pool.ready if pool else None) for at_s, pool in of_pool]
        wanted = [(at_s, pool.wanted if pool else None) for at_s, pool in of_pool]
        found.append(_picture(f"Replicas of {name}", [("a", "ready", ready), ("b", "wanted", wanted)]))
    return f'<h2>The last hours</h2><div class="pictures">{"".join(found)}</div>'


Line = tuple[str, str, Sequence[tuple[float, float | None]]]


def _picture(title: str, lines: Sequence[Line], least: float = 0.0, most: float = 0.0) -> str:
    """Lines over time; a gap where a value is unknown."""
    times = [at_s for at_s, _ in lines[0][2]]
    known = [value for _, _, points in lines for _, value in points if value is not None]
    low, top = min([least, *known]), max([most, *known]) or 1.0
    floor, right = HEIGHT - 20, WIDTH - 10
    begin_s, span_s = times[0], max(times[-1] - times[0], 1.0)

    def at(at_s: float, value: float) -> str:
        x, y = (at_s - begin_s) / span_s, (top - value) / (top - low)
        return f"{LEFT + (right - LEFT) * x:.1f},{TOP + (floor - TOP) * y:.1f}"

    drawn, keys = [], []
    for css, label, points in lines:
        keys.append(f'<span class="key-{css}">{escape(label)}</span>')
        for part in _known_parts(points):
            drawn.append(f'<polyline class="{css}" points="{" ".join(at(at_s, value) for at_s, value in part)}"/>')
    return (
        f'<figure><figcaption>{escape(title)} <span class="faint">({", ".join(keys)})</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'<line class="axis" x1="{LEFT}" y1="{floor}" x2="{right}" y2="{floor}"/>'
        f'<text x="{LEFT - 4}" y="16" text-anchor="end">{top:.3g}</text>'
        f'<text x="{LEFT - 4}" y="{floor}" text-anchor="end">{low:.3g}</text>'
        f'<text x="{LEFT}" y="{HEIGHT - 4}">{_clock(begin_s)}</text>'
        f'<text x="{right}" y="{HEIGHT - 4}" text-anchor="end">{_clock(times[-1])}</text>'
        f"{''.join(drawn)}</svg></figure>"
    )


def _known_parts(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """The stretches without an unknown value, as steps: each value lasts until the next."""
    parts: list[list[tuple[float, float]]] = [[]]
    for at_s, value in points:
        if value is None:
            parts.append([])
            continue
        if parts[-1]:
            parts[-1].append((at_s, parts[-1][-1][1]))
        parts[-1].append((at_s, value))
    return [part for part in parts if part]


def _troubles(last: Step) -> str:
    rows = [
        f"<tr><td>{escape(reason.pool or 'service')}</td><td class='words'><code>{reason.code}</code></td>"
        f"<td>{_clock(float(reason.values[SINCE] or 0))}</td><td class='words'>{escape(reason.message)}</td></tr>"
        for reason in last.decision.reasons
        if SINCE in reason.values
    ]
    return f"<h2>Troubles</h2>{_table(('pool', 'code', 'since', 'what'), rows)}" if rows else ""


def _reasons(last: Step) -> str:
    rows = [
        f"<tr><td>{escape(reason.pool or 'service')}</td><td class='words'><code>{reason.code}</code></td>"
        f"<td class='words'>{escape(_words(reason))}</td></tr>"
        for reason in last.decision.reasons
        if SINCE not in reason.values
    ]
    return f"<h2>Why</h2>{_table(('pool', 'code', 'reason'), rows)}"


def _words(reason: Reason) -> str:
    return str(reason).removeprefix(f"{reason.code}: ")


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th class='{'words' if each in WORDS else 'number'}'>{each}</th>" for each in heads)
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
