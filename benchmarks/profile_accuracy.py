"""How well a profile foretells a point that it has not seen: every point of every profile left out once.

    python -m benchmarks.profile_accuracy [DIRECTORY OF PROFILES]

One method and one setting for all profiles, beside the method of Dynamo's planner (0.5.1, classic SLA planner): cubic
``interp1d`` over ISL with the query clamped to the measured range; cubic ``griddata`` over KV usage and context on a
100 x 100 grid with nearest filling, looked up in the nearest cell.

A point is interior for TTFT if its ISL is neither the shortest nor the longest, and for ITL if it lies in the convex
hull of the other points in the plane of KV usage and context (``scipy.spatial.Delaunay(others).find_simplex``). All
others are ends; there both extrapolate. Errors are relative to the measured value, in percent.

Exits with 1 if, on interior points, the ITL error is not lower in median and mean on every profile, or its median is
above 3 %; or if the TTFT error is lower in mean on fewer than 15 of 17 profiles, or above 1.15 times the reference's on
any, or its median is above 3 % on a profile of 20 points or more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CloughTocher2DInterpolator, NearestNDInterpolator, interp1d
from scipy.spatial import Delaunay

from benchmarks.shared import SHARED
from dynamo_planner.profiles import DecodePoints, DecodeSurface, PrefillCurve, PrefillPoints, Profile

PROFILES = SHARED / "profiles"

CELLS = 99
"""Steps of the reference's grid along each axis."""

Floats = NDArray[np.float64]


class Errors(NamedTuple):
    """Relative errors of one curve of one profile, for the points that were left out."""

    ours: Floats
    reference: Floats
    interior: NDArray[np.bool_]


def reference_ttft(isl: Floats, ttft_ms: Floats, query: float) -> float:
    """The reference's TTFT."""
    return float(interp1d(isl, ttft_ms, kind="cubic")(np.clip(query, isl.min(), isl.max())))


def reference_itl(where: Floats, itl_ms: Floats, usage: float, context: float) -> float:
    """The reference's ITL. Its table holds the interpolation at each node, so only the node asked for is computed."""
    size = np.array([1.0, where[:, 1].max()])
    node = np.clip(np.round(np.array([usage, context]) / size * CELLS), 0, CELLS) * size / CELLS
    value = CloughTocher2DInterpolator(where, itl_ms)(node)[0]
    return float(NearestNDInterpolator(where, itl_ms)(node)[0] if np.isnan(value) else value)


def ttft_errors(profile: Profile) -> Errors:
    """Leave-one-out errors of TTFT."""
    points = profile.prefill_points
    isl, ttft = np.asarray(points.isl), np.asarray(points.ttft_ms)

    def ours(rest: NDArray[np.bool_], left: int) -> float:
        curve = PrefillCurve(PrefillPoints(isl=isl[rest], ttft_ms=ttft[rest]))
        return float(curve.ttft_ms(isl[left]))

    def reference(rest: NDArray[np.bool_], left: int) -> float:
        return reference_ttft(isl[rest], ttft[rest], isl[left])

    interior = (isl > isl.min()) & (isl < isl.max())
    every = range(len(isl))
    return Errors(left_out(ours, ttft, every), left_out(reference, ttft, every), interior)


def itl_errors(profile: Profile, stride: int = 1) -> Errors:
    """Leave-one-out errors of ITL, of every ``stride``-th point."""
    points = profile.decode_points
    where, itl = np.column_stack([points.kv_usage, points.context]), np.asarray(points.itl_ms)

    def ours(rest: NDArray[np.bool_], left: int) -> float:
        usage, context = where[rest].T
        others = DecodePoints(max_kv_tokens=points.max_kv_tokens, kv_usage=usage, context=context, itl_ms=itl[rest])
        return float(DecodeSurface(others).itl_ms(*where[left].tolist()))

    def reference(rest: NDArray[np.bool_], left: int) -> float:
        return reference_itl(where[rest], itl[rest], *where[left])

    some = range(0, len(itl), stride)
    interior = [Delaunay(np.delete(where, left, axis=0)).find_simplex(where[left]) >= 0 for left in some]
    return Errors(left_out(ours, itl, some), left_out(reference, itl, some), np.array(interior))


def left_out(predict: Callable[[NDArray[np.bool_], int], float], measured: Floats, points: Sequence[int]) -> Floats:
    """The relative error at each of these points when ``predict`` knows all others."""
    everything = np.arange(len(measured))
    return np.array([abs(predict(everything != left, left) / measured[left] - 1) for left in points])


def itl_misses(errors: Errors) -> list[str]:
    """What of the ITL targets is missed on one profile."""
    ours, reference = errors.ours[errors.interior], errors.reference[errors.interior]
    missed = [
        f"ITL {name} {100 * of(ours):.2f} % is not under the reference's {100 * of(reference):.2f} %"
        for name, of in (("median", np.median), ("mean", np.mean))
        if of(ours) >= of(reference)
    ]
    return missed + [f"ITL median {100 * np.median(ours):.2f} % is above 3 %"] * bool(np.median(ours) > 0.03)


def ttft_misses(errors: Errors) -> list[str]:
    """What of the TTFT targets is missed on one profile, but for the count of profiles."""
    ours, reference = errors.ours[errors.interior], errors.reference[errors.interior]
    ratio, median = ours.mean() / reference.mean(), np.median(ours)
    missed = [f"TTFT mean is {ratio:.2f} x the reference's, above 1.15 x"] * bool(ratio > 1.15)
    return missed + [f"TTFT median {100 * median:.2f} % is above 3 %"] * bool(len(errors.ours) >= 20 and median > 0.03)


def table(title: str, rows: dict[str, Errors]) -> None:
    """One line for each profile: interior points in median, mean and maximum, ends in mean and maximum."""
    print(f"\n{title}: relative errors in %, ours / reference\n")
    heads = (
        ("points", 8),
        ("interior", 9),
        ("median", 15),
        ("mean", 15),
        ("maximum", 17),
        ("ends mean", 17),
        ("max", 17),
    )
    print(f"{'profile':42}{''.join(head.rjust(width) for head, width in heads)}")
    for name, errors in rows.items():
        inside, ends = errors.interior, ~errors.interior
        cells = [f"{len(inside):>8}{inside.sum():>9}"]
        for where, of, width in ((inside, np.median, 15), (inside, np.mean, 15), (inside, np.max, 17)):
            cells.append(f"{100 * of(errors.ours[where]):.2f} / {100 * of(errors.reference[where]):.2f}".rjust(width))
        for of in (np.mean, np.max):
            cells.append(f"{100 * of(errors.ours[ends]):.1f} / {100 * of(errors.reference[ends]):.1f}".rjust(17))
        print(f"{name:42}{''.join(cells)}")


def main(directory: Path) -> int:
    """Print both tables and what is missed."""
    profiles = [Profile.load(path) for path in sorted(directory.iterdir()) if path.is_dir()]
    ttft = {profile.name: ttft_errors(profile) for profile in profiles}
    table("TTFT", ttft)
    itl = {profile.name: itl_errors(profile) for profile in profiles}
    table("ITL", itl)

    missed = [f"{name}: {problem}" for name, errors in ttft.items() for problem in ttft_misses(errors)]
    missed += [f"{name}: {problem}" for name, errors in itl.items() for problem in itl_misses(errors)]
    better = sum(e.ours[e.interior].mean() < e.reference[e.interior].mean() for e in ttft.values())
    print(f"\nTTFT: lower mean error than the reference on {better} of {len(ttft)} profiles")
    if better < len(ttft) - 2:
        missed.append(f"TTFT mean is lower on {better} of {len(ttft)} profiles, not on {len(ttft) - 2}")
    print("\n".join(["", "missed:", *missed]) if missed else "all targets met")
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else PROFILES))
