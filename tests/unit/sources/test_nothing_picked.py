"""Labels that pick nothing are not zero: the quantity is unknown, with the values that there are."""

from __future__ import annotations

from dynamo_planner.engines.dynamo import DYNAMO_FRONTEND
from dynamo_planner.engines.vocabulary import Vocabulary
from dynamo_planner.sources.aggregation.sample import read_page
from dynamo_planner.sources.series import Page

FAST = {"lane": ("fast", "faster")}
MINE = Vocabulary.model_validate(
    {
        "engine": "Mine",
        "quantities": {
            "running": {"kind": "gauge", "names": "mine_busy", "where": FAST},
            "completions": {"kind": "counter", "names": "mine_done_total", "where": FAST},
            "rejections": {"kind": "counter", "names": "mine_done_total", "where": {"lane": "refused"}, "rare": True},
            "ttft_ms": {"kind": "histogram", "names": "mine_ttft", "where": FAST},
        },
    }
)


def page(lane: str) -> Page:
    labels = (("lane", lane),)
    return {name: {labels: 7.0} for name in ("mine_busy", "mine_done_total", "mine_ttft_count", "mine_ttft_sum")}


def test_no_metric_of_which_nothing_is_picked_is_zero() -> None:
    sample = read_page(page("slow"), MINE, at_s=0.0)
    assert (sample.gauges, sample.counters, sample.histograms) == ({}, {"rejections": {}}, {})
    for quantity, name in (("running", "mine_busy"), ("completions", "mine_done_total"), ("ttft_ms", "mine_ttft")):
        assert name in sample.unknown[quantity]
        assert "no sample with lane='fast' or 'faster'; there is lane='slow'" in sample.unknown[quantity]
    picked = read_page(page("fast"), MINE, at_s=0.0)
    assert picked.gauges == {"running": 7}
    assert sum(picked.counters["completions"].values()) == 7


def test_an_older_metric_without_the_label_counts_nothing_of_it() -> None:
    """Dynamo before 1.6 did not tell rejections from other requests that ended."""
    old: Page = {"dynamo_frontend_requests_total": {(("status", "success"),): 5.0}}
    new: Page = {"dynamo_frontend_requests_total": {(("error_type", ""), ("status", "success")): 5.0}}
    assert "has no label error_type" in read_page(old, DYNAMO_FRONTEND, at_s=0.0).unknown["rejections"]
    assert read_page(new, DYNAMO_FRONTEND, at_s=0.0).counters["rejections"] == {}
