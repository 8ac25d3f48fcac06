"""Which windows and scenarios there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.quality.blind.draw import draw
from benchmarks.quality.blind.scenarios import SCENARIOS, Scenario
from benchmarks.quality.blind.windows import Engine, Source, Window
from benchmarks.shared import SHARED

PROFILES = (
    "MEASURED_bloom-176b_h100_splitwise_tp8",
    "MEASURED_llama2-70b_a100_splitwise_tp4",
    "MEASURED_llama31-8b-fp8_h200_dynamo_tp1",
    "deepseek-v3_h200_trtllm_tp8",
    "llama31-70b_h100_vllm_tp4",
    "llama31-8b_a100_vllm_tp1",
    "llama31-8b_l40s_trtllm_tp1",
    "qwen3-32b_h100_vllm_tp2",
)
TRACES = (
    "azure2024_conv_tue_x0.2_recon",
    "azure2024_conv_week_x0.04_recon",
    "mooncake_conversation",
    "mooncake_synthetic",
    "servegen_mlarge_day0_x0.03",
    "servegen_mlarge_wk1_x0.008",
    "servegen_msmall_day1_x0.008",
)
APART_TRACES = ("azure2023_conv", "servegen_mmid_day4_x0.004")
APART_PROFILES = ("gpt-oss-120b_h100_vllm_tp2", "llama31-70b-fp8_h200_trtllm_tp2")
"""Kept out of tuning, and reported by themselves."""

DAYS = ("azure2024_conv_week_x0.04_recon", "servegen_mlarge_wk1_x0.008")
DAY_PROFILE, DAY_AT_S, DAY_HOURS = "MEASURED_llama2-70b_a100_splitwise_tp4", 172_800.0, 23.0
"""Two windows of a night and a day."""

WINDOWS, APART_WINDOWS, QUICK_WINDOWS = 24, 4, 9
QUICK_HOURS, QUICK_LEAST_HOURS, QUICK_REQUESTS = 3.0, 1.0, 3e5
QUICK = (
    ("azure2024_conv_tue_x0.2_recon", 17, 80, "llama31-70b_h100_vllm_tp4", 8, 300, True),
    ("mooncake_conversation", 0, 59, "llama31-8b_l40s_trtllm_tp1", 16, 30, False),
    ("azure2024_conv_tue_x0.2_recon", 12, 80, "llama31-8b_a100_vllm_tp1", 8, 120, True),
    ("servegen_msmall_day1_x0.008", 7.5, 80, "MEASURED_bloom-176b_h100_splitwise_tp8", 4, 120, False),
    ("mooncake_synthetic", 0, 59, "qwen3-32b_h100_vllm_tp2", 16, 30, False),
    ("servegen_mlarge_day0_x0.03", 8, 180, "MEASURED_llama2-70b_a100_splitwise_tp4", 4, 30, False),
    ("azure2024_conv_week_x0.04_recon", 145, 70, "MEASURED_llama31-8b-fp8_h200_dynamo_tp1", 4, 120, False),
    ("servegen_mlarge_wk1_x0.008", 151.5, 100, "deepseek-v3_h200_trtllm_tp8", 4, 30, True),
    ("azure2024_conv_week_x0.04_recon", 58, 180, "MEASURED_bloom-176b_h100_splitwise_tp8", 8, 300, False),
)
"""Windows of some 300,000 requests at most: trace, from which hour, minutes, profile, need, start-up, aggregated."""

QUICK_SCENARIOS = ("S3", "S9", "S13")


def planned(quick: bool, traces: Path | None = None, profiles: Path | None = None) -> list[Window | Scenario]:
    """The windows and scenarios of a suite, the largest first. With folders of one's own, windows of those only."""
    if traces or profiles:
        return _drawn(quick, _sources(traces), _engines(profiles))
    if quick:
        return [*_quick(), *(scenario for scenario in SCENARIOS if scenario.name.split()[0] in QUICK_SCENARIOS)]
    windows = _drawn(quick, _sources(None), _engines(None))
    apart = draw(APART_WINDOWS, _sources(None, APART_TRACES), _engines(None), group="apart")
    apart += draw(APART_WINDOWS, _sources(None), _engines(None, APART_PROFILES), group="apart")
    return [*_days(), *windows, *apart, *SCENARIOS]


def _drawn(quick: bool, sources: list[Source], engines: list[Engine]) -> list[Window | Scenario]:
    if quick:
        hours, least_hours = QUICK_HOURS, QUICK_LEAST_HOURS
        drawn = draw(
            QUICK_WINDOWS, sources, engines, hours=hours, least_hours=least_hours, most_requests=QUICK_REQUESTS
        )
        return [*drawn]
    return [*draw(max(WINDOWS, 2 * len(sources), 2 * len(engines)), sources, engines)]


def _quick() -> Iterator[Window]:
    for trace, hour, minutes, profile, need, startup_s, aggregated in QUICK:
        source, engine = Source(SHARED / "traces" / f"{trace}.npz"), Engine(SHARED / "profiles" / profile)
        seconds = min(60.0 * minutes, source.duration_s)
        yield engine.window(source, 3600.0 * hour, seconds, need, startup_s, aggregated=aggregated)


def _days() -> list[Window]:
    engine = Engine(SHARED / "profiles" / DAY_PROFILE)
    sources = _sources(None, DAYS)
    return [engine.window(source, DAY_AT_S, DAY_HOURS * 3600, 4.0, 120.0, aggregated=False) for source in sources]


def _sources(folder: Path | None, names: tuple[str, ...] = TRACES) -> list[Source]:
    """The traces of a folder, or those of these names; those that are too short for a decision are left out."""
    if folder is None:
        return [Source(SHARED / "traces" / f"{name}.npz") for name in names]
    return [Source(path) for path in sorted(folder.iterdir()) if path.is_file() and path.suffix != ".md"]


def _engines(folder: Path | None, names: tuple[str, ...] = PROFILES) -> list[Engine]:
    if folder is None:
        return [Engine(SHARED / "profiles" / name) for name in names]
    return [Engine(path) for path in sorted(folder.iterdir()) if path.is_dir()]
