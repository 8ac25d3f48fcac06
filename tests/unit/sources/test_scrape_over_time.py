"""Workers that restart, come and go, and are read at irregular times: timelines of scrapes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dynamo_planner.core.snapshot import Observation
from dynamo_planner.sources import ScrapeSource, SourceError
from tests.support.sources.farm import Farm, Vllm


class Scraped:
    """A pool whose workers are what the last call says: ``at(10, w0=Vllm(...), w1=None)``; ``None`` does not answer."""

    def __init__(self, farm: Farm, window_s: float = 30.0) -> None:
        self.farm = farm
        self.names: tuple[str, ...] = ()
        self.source = ScrapeSource(self.endpoints, {"workers": "aggregated"}, window_s=window_s)

    def endpoints(self) -> Mapping[str, Mapping[str, str]]:
        return {"workers": self.farm.urls(*self.names)}

    def at(self, at_s: float, **workers: Vllm | None) -> Observation:
        self.names = tuple(workers)
        self.farm.pages = {name: worker.page() for name, worker in workers.items() if worker is not None}
        return self.source.observe(at_s)

    def rate_at(self, at_s: float, **workers: Vllm | None) -> float | None:
        return self.at(at_s, **workers).traffic.requests_per_s


@pytest.fixture
def scraped(farm: Farm) -> Scraped:
    return Scraped(farm)


def done(count: float, *, started_s: float | None = None, isl: float = 10, running: float = 0) -> Vllm:
    return Vllm(done=count, isl=(isl,) * int(count), started_s=started_s, running=running)


def test_the_mean_of_a_window_at_irregular_times(scraped: Scraped) -> None:
    """Intervals count that lie in the window with their middle: from 8 s on at 42 s, from 31 s on at 61 s."""
    scraped.at(0, w0=done(0))
    assert scraped.rate_at(8, w0=done(80)) == pytest.approx(80 / 8)
    assert scraped.rate_at(31, w0=done(103)) == pytest.approx(103 / 31), "the middle of the first, 4 s, is in 1..31"
    observation = scraped.at(42, w0=done(158))
    assert observation.traffic.requests_per_s == pytest.approx((158 - 80) / (42 - 8))
    assert observation.traffic.window_s == 34
    assert observation.traffic.isl is not None
    assert observation.traffic.isl.count == 78
    assert scraped.rate_at(61, w0=done(196)) == pytest.approx((196 - 103) / (61 - 31))


def test_jitter_of_the_schedule_takes_nothing_in_or_out(scraped: Scraped) -> None:
    for tick in range(20):
        jitter = (-1) ** tick * 0.004
        observation = scraped.at(10 * tick + jitter, w0=done(tick * tick))
        if tick >= 3:
            isl, rate = observation.traffic.isl, observation.traffic.requests_per_s
            assert isl is not None
            assert isl.count == tick**2 - (tick - 3) ** 2
            assert rate == pytest.approx(isl.count / 30, rel=0.001)


def test_intervals_longer_than_the_window(farm: Farm) -> None:
    scraped = Scraped(farm, window_s=5)
    scraped.at(0, w0=done(0))
    for tick in (1, 2, 3):
        observation = scraped.at(60 * tick, w0=done(120 * tick))
        assert observation.traffic.requests_per_s == pytest.approx(2)
        assert observation.traffic.window_s == 60


def test_a_restart_is_told_by_the_start_of_the_process(scraped: Scraped) -> None:
    """The new process has counted more than the old one, which the counters alone would not show."""
    scraped.at(0, w0=done(5, started_s=-100, running=3))
    scraped.at(10, w0=done(6, started_s=-100, running=3))
    observation = scraped.at(20, w0=done(30, started_s=12, isl=40, running=2))
    assert observation.traffic.requests_per_s == pytest.approx((1 + 30 + 2) / 20)
    assert observation.traffic.isl is not None
    assert observation.traffic.isl.count == 31
    assert observation.traffic.isl.mean == pytest.approx((1 * 10 + 30 * 40) / 31)


def test_a_new_worker_counts_in_full_if_it_began_since_the_last_scrape(scraped: Scraped) -> None:
    old = -1000.0
    scraped.at(0, w0=done(0, started_s=old))
    assert scraped.rate_at(10, w0=done(50, started_s=old)) == pytest.approx(5)
    observation = scraped.at(20, w0=done(75, started_s=old), w1=done(25, started_s=12))
    assert observation.traffic.requests_per_s == pytest.approx((75 + 25) / 20), "it had nothing before it was there"
    assert observation.traffic.isl is not None
    assert observation.traffic.isl.count == 100


def test_a_new_worker_that_began_within_the_window_counts_in_full(scraped: Scraped) -> None:
    """It took 15 s to load its model, and was not there to be scraped meanwhile."""
    scraped.at(0, w0=done(0, started_s=-1000))
    scraped.at(10, w0=done(50, started_s=-1000))
    scraped.at(20, w0=done(100, started_s=-1000))
    assert scraped.rate_at(30, w0=done(125, started_s=-1000), w1=done(25, started_s=14)) == pytest.approx(150 / 30)


@pytest.mark.parametrize("started_s", [None, -5000.0, 1.79e9], ids=["unknown", "long ago", "of another clock"])
def test_a_new_worker_of_old_counts_from_its_second_scrape(started_s: float | None, scraped: Scraped) -> None:
    scraped.at(0, w0=done(0))
    scraped.at(10, w0=done(50))
    observation = scraped.at(20, w0=done(100), w1=done(70_000, started_s=started_s, running=3))
    assert observation.traffic.requests_per_s == pytest.approx(5)
    assert observation.pools["workers"].running == 3, "its gauges count at once"
    observation = scraped.at(30, w0=done(150), w1=done(70_020, started_s=started_s, running=3))
    assert observation.traffic.requests_per_s == pytest.approx(5 + 20 / 10)


def test_a_worker_that_began_just_before_the_very_first_scrape(scraped: Scraped) -> None:
    assert scraped.rate_at(20, w0=done(30, started_s=5)) == pytest.approx(30 / 15)


def test_what_a_worker_did_before_it_went_still_counts(scraped: Scraped) -> None:
    scraped.at(0, w0=done(0), w1=done(0))
    scraped.at(10, w0=done(50), w1=done(50, running=6))
    assert scraped.rate_at(20, w0=done(140)) == pytest.approx((140 + 50 + 6) / 20)
    observation = scraped.at(30, w0=done(240))
    assert observation.traffic.requests_per_s == pytest.approx((240 + 56) / 30)
    assert [worker.name for worker in observation.pools["workers"].workers] == ["w0"]
    assert observation.pools["workers"].coverage == 1
    assert scraped.rate_at(40, w0=done(340)) == pytest.approx((340 - 50) / 30), "out of the window"


def test_a_worker_that_does_not_answer_for_a_while(scraped: Scraped) -> None:
    scraped.at(0, w0=done(0), w1=done(0))
    scraped.at(10, w0=done(50), w1=done(50))
    observation = scraped.at(20, w0=done(100), w1=None)
    pool = observation.pools["workers"]
    assert observation.traffic.requests_per_s == pytest.approx(5 + 5), "as far as it is known"
    assert pool.coverage == 0.5
    assert [worker.observed_at_s for worker in pool.workers] == [20, 10]
    assert pool.workers[1].running is None
    assert "404" in observation.missing["pools.workers.workers.w1"]
    assert scraped.rate_at(30, w0=done(150), w1=done(180)) == pytest.approx(150 / 30 + 180 / 30), (
        "the gap is made up for"
    )


def test_a_worker_that_was_away_for_longer_than_the_window_starts_anew(scraped: Scraped) -> None:
    scraped.at(0, w0=done(0), w1=done(0))
    for at_s in range(10, 300, 10):
        scraped.at(at_s, w0=done(at_s), w1=None)
    observation = scraped.at(300, w0=done(300), w1=done(9000))
    assert observation.traffic.requests_per_s == pytest.approx(1)
    assert observation.traffic.window_s == 30
    assert scraped.rate_at(310, w0=done(310), w1=done(9020)) == pytest.approx(1 + 2)


def test_after_a_pause_of_the_planner_the_window_is_as_long_as_it_was(scraped: Scraped) -> None:
    scraped.at(0, w0=done(0))
    scraped.at(10, w0=done(10))
    observation = scraped.at(610, w0=done(1210))
    assert observation.traffic.requests_per_s == pytest.approx(2)
    assert observation.traffic.window_s == 600


def test_a_turn_at_the_same_time_loses_nothing(scraped: Scraped) -> None:
    scraped.at(0, w0=done(0))
    first = scraped.rate_at(10, w0=done(50))
    assert scraped.rate_at(10, w0=done(70)) == first
    assert scraped.rate_at(20, w0=done(100)) == pytest.approx(5)


def test_a_clock_that_goes_back_starts_the_windows_anew(scraped: Scraped) -> None:
    scraped.at(1000, w0=done(0))
    scraped.at(1010, w0=done(50))
    assert scraped.rate_at(500, w0=done(60)) is None
    assert scraped.rate_at(510, w0=done(90)) == pytest.approx(3)


def test_counts_that_are_read_at_two_moments_never_make_arrivals_negative(scraped: Scraped) -> None:
    scraped.at(0, w0=done(10, running=5))
    assert scraped.rate_at(10, w0=done(10, running=2)) == 0


def test_no_workers_is_no_error(scraped: Scraped) -> None:
    observation = scraped.at(0)
    assert observation.traffic.requests_per_s is None
    assert observation.traffic.observed_at_s is None
    assert observation.pools["workers"].coverage is None
    assert observation.missing["pools.workers"] == "there are no workers to scrape"


def test_all_workers_dead_is_an_error_that_names_them(scraped: Scraped) -> None:
    scraped.at(0, w0=done(0), w1=done(0))
    with pytest.raises(SourceError, match=r"w0/metrics: it answered 404, not 200; .*w1/metrics: it answered 404"):
        scraped.at(10, w0=None, w1=None)
    assert scraped.rate_at(20, w0=done(50), w1=done(50)) == pytest.approx(5), "and it goes on from where it was"


def test_nothing_is_kept_of_workers_that_are_gone_for_long(scraped: Scraped) -> None:
    for turn in range(50):
        scraped.at(10 * turn, **{f"w{turn}-{index}": done(turn) for index in range(3)})
    assert len(scraped.source._scraper.histories) <= 3 * 4
