"""Several processes behind one address, and restarts: a counter is believed for the time that it can have counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from dynamo_planner.core.snapshot import Observation
from dynamo_planner.sources import FrontendSource, PrometheusSource, ScrapeSource
from tests.support.sources.asked import observed, scraped_pages
from tests.support.sources.farm import Farm, Vllm

ANOTHER = "another process answers at this address"
LONG_AGO_S = 40_000.0


def read_in_turn(farm: Farm, pages: Sequence[str], every_s: float = 10.0) -> list[Observation]:
    """What a pool of one worker reports as these pages come from its address."""
    source = ScrapeSource({"chat": farm.urls("service")}, {"chat": "aggregated"})
    seen = []
    for turn, page in enumerate(pages):
        farm.pages = {"service": page}
        seen.append(source.observe(LONG_AGO_S + every_s * turn))
    return seen


def old(done: int, started_s: float | None, **more: float) -> str:
    return Vllm(done=done, isl=(50,) * 20, running=more.get("running", 4), started_s=started_s).page()


@pytest.mark.parametrize("started_s", [(10.0, 14.0), (10.0, 10.5), (None, None), (10.0, None)])
@pytest.mark.parametrize("order", ["abababab", "aabbaabb", "aaaabbbb", "bbbbaaaa", "bbaaaabb"])
def test_no_life_is_taken_for_an_interval(farm: Farm, started_s: tuple[float | None, float | None], order: str) -> None:
    """Two old workers share an address; each of them ends 3 requests in a second, and has ended thousands."""
    had = {"a": 90_000, "b": 2_000}
    pages = [old(had[who] + 30 * turn, started_s["ab".index(who)]) for turn, who in enumerate(order)]
    for observation in read_in_turn(farm, pages):
        rate = observation.traffic.requests_per_s
        assert rate is None or rate <= 2 * 3.5, observation
        if rate is None and "scrapes" not in observation.missing["traffic.requests_per_s"]:
            assert ANOTHER in observation.missing["traffic.requests_per_s"]


def test_gauges_of_one_of_two_processes_are_not_those_of_the_worker(farm: Farm) -> None:
    pages = [old(500, 1.0, running=9), old(400, 2.0, running=1)]
    pool = read_in_turn(farm, pages)[-1].pools["chat"]
    assert (pool.running, pool.queued, pool.kv_usage) == (None, None, None)
    again = read_in_turn(farm, [*pages, *[old(400 + 20 * turn, 2.0) for turn in range(6)]])[-1]
    assert again.pools["chat"].running == 4
    assert again.traffic.requests_per_s == pytest.approx(2), "one of them alone, for a window"


def test_another_set_of_series_is_another_process(farm: Farm) -> None:
    pages = [
        Vllm(done=700, engine="0").page(),
        Vllm(done=700, engine="1").page(),
    ]
    observation = read_in_turn(farm, pages)[-1]
    assert observation.traffic.requests_per_s is None
    assert ANOTHER in observation.missing["traffic.requests_per_s"]


@pytest.mark.parametrize(("running", "known"), [(5, False), (90, True)])
def test_more_requests_than_were_ever_inside_are_of_another_process(farm: Farm, running: int, known: bool) -> None:
    """3,000 first tokens after 0.3 s each in 10 s are 90 requests that wait at a time: a surge, or another process."""
    started_s = 100.25  # of both, which were started at once
    pages = [old(done, started_s, running=5) for done in (1000, 1050)]
    pages.append(Vllm(done=4050, ttft_s=(0.3,) * 3000, running=running, started_s=started_s, isl=(50,) * 20).page())
    observation = read_in_turn(farm, pages)[-1]
    assert (observation.traffic.requests_per_s is not None) == known
    assert known or ANOTHER in observation.missing["traffic.requests_per_s"]


@pytest.mark.parametrize(("running", "known"), [(5, False), (90, True)])
def test_more_requests_than_were_ever_inside_through_prometheus(running: int, known: bool) -> None:
    """As above: 3,000 first tokens after 2 s each within a minute are 100 requests at a time."""

    def page(_: Mapping[str, str], at_s: float) -> str:
        is_other = at_s > LONG_AGO_S - 20
        done = int(at_s - LONG_AGO_S + 2000) + 3000 * is_other
        return Vllm(done=done, ttft_s=(2.0,) * done, running=running if is_other else 5, started_s=100.25).page()

    store = scraped_pages([{"instance": "service:80"}], page, [LONG_AGO_S - 15 * back for back in reversed(range(9))])
    source = PrometheusSource("http://127.0.0.1:1", {"chat": "aggregated"})
    observation = observed(source, store, LONG_AGO_S)
    assert (observation.traffic.requests_per_s is not None) == known
    assert known or ANOTHER in observation.missing["traffic.requests_per_s"]


def test_a_process_that_began_while_scrapes_were_missed_began_with_nothing() -> None:
    """55 ended and 7 are inside since it began half a minute ago; in the two samples of it, 31 and 6 fewer inside."""

    def page(_: Mapping[str, str], at_s: float) -> str:
        if at_s <= LONG_AGO_S - 60:
            return Vllm(done=80_000, started_s=1.5).page()
        if at_s < LONG_AGO_S - 15:
            return ""
        is_last = at_s == LONG_AGO_S
        return Vllm(
            done=55 if is_last else 24, running=7 if is_last else 13, started_s=LONG_AGO_S - 29.5, ttft_s=(0.1,) * 37
        ).page()

    store = scraped_pages([{"instance": "a:80"}], page, [LONG_AGO_S - 15 * back for back in reversed(range(9))])
    observation = observed(PrometheusSource("http://127.0.0.1:1", {"chat": "aggregated"}), store, LONG_AGO_S)
    assert observation.traffic.requests_per_s == pytest.approx((55 + 7) / 60)


def test_a_process_younger_than_its_requests_took_has_not_begun_since(farm: Farm) -> None:
    """It says that it is 4 s old; its requests took a minute each."""
    source = ScrapeSource({"chat": farm.urls("w")}, {"chat": "aggregated"})
    farm.pages = {"w": Vllm(done=9, started_s=5).page()}
    source.observe(1000)
    farm.pages = {"w": Vllm(done=800, started_s=1006, e2e_s=(60.0,) * 800).page()}
    assert source.observe(1010).traffic.requests_per_s is None


def test_a_restart_without_a_start_time_is_unknown_for_a_window(farm: Farm) -> None:
    pages = [old(100, None), old(110, None), old(3, None), *[old(3 + 10 * turn, None) for turn in range(1, 6)]]
    rates = [each.traffic.requests_per_s for each in read_in_turn(farm, pages)]
    assert rates[1] == 1
    assert rates[2:5] == [None, None, None]
    assert rates[-1] == 1


def test_a_handover_to_a_new_process_is_unknown_for_a_window(farm: Farm) -> None:
    """A Service first leads to the old pod, and 20 s after the new one began to that."""
    started_s = LONG_AGO_S + 5
    pages = [*[old(1000 + 10 * turn, 1.0) for turn in range(3)], *[old(10 * turn, started_s) for turn in range(3, 9)]]
    observations = read_in_turn(farm, pages)
    assert observations[3].traffic.requests_per_s is None
    assert observations[-1].traffic.requests_per_s == 1


def test_frontends_behind_one_address(farm: Farm) -> None:
    source = FrontendSource([farm.url("front")])
    for turn, had in enumerate((9_000, 7_000, 9_000, 7_000)):
        farm.pages = {
            "front": f'dynamo_frontend_requests_started_total{{model="m"}} {had + turn}\n'
            'dynamo_frontend_inflight_requests{model="m"} 1\n'
        }
        observation = source.observe(100.0 + 10 * turn)
        assert observation.traffic.requests_per_s is None
    assert ANOTHER in observation.missing["traffic.requests_per_s"]


def test_a_busy_process_without_a_start_time_is_known_after_a_window(farm: Farm) -> None:
    """More requests than are believed at once, but evenly; and a surge."""
    rates = [each.traffic.requests_per_s for each in read_in_turn(farm, [old(4000 * turn, None) for turn in range(6)])]
    assert rates[-2:] == [400, 400]
    calm = [old(10 * turn, None) for turn in range(3)]
    surge = [old(3000 * turn, None) for turn in range(3, 9)]
    assert [each.traffic.requests_per_s for each in read_in_turn(farm, [*calm, *surge])][-1] == 300
