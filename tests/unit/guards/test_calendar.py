"""Calendar and time zones: weekdays, nights, exceptions, and the days on which clocks change."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dynamo_planner import Hold, PoolSpec, PoolStatus, Proposal, Replicas, Schedule, Snapshot, Want
from dynamo_planner.core import zones
from dynamo_planner.core.zones import Zone
from dynamo_planner.guards import Calendar, CalendarEntry
from tests.support.laws import examples

THREE = Want(3)
BERLIN = ZoneInfo("Europe/Berlin")
OFFICE = CalendarEntry(days=("mon", "fri"), start="08:00", end="18:00", replicas=6, reason="office hours")
NIGHT = CalendarEntry(days=("sat",), start="22:00", end="06:00", replicas=6, reason="batch jobs")
WHOLE_DAY = CalendarEntry(days=("sat",), start="08:00", end="08:00", replicas=6, reason="until the same hour")
SKIPPED = CalendarEntry(start="02:30", end="04:00", replicas=6, reason="clocks go forward at 2:00")
TWICE = CalendarEntry(start="02:00", end="02:30", replicas=6, reason="clocks go back at 3:00")


def berlin(text: str, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).timestamp()


def granted(guard: Calendar, at_s: float, entry: Want | Hold = THREE, present: int = 4) -> int | None:
    pool = PoolStatus(spec=PoolSpec(role="decode", min_replicas=0), replicas=Replicas(ready=present))
    snapshot = Snapshot(at_s=at_s, pools={"decode": pool})
    proposal, _ = guard.limit(snapshot, Proposal(pools={"decode": entry}), None)
    return proposal.wanted(snapshot, "decode")


@pytest.mark.parametrize(
    ("entry", "moment", "replicas"),
    [
        (OFFICE, "2026-11-27 07:59:59", 3),  # a Friday
        (OFFICE, "2026-11-27 08:00", 6),
        (OFFICE, "2026-11-27 17:59:59", 6),
        (OFFICE, "2026-11-27 18:00", 3),
        (OFFICE, "2026-11-26 12:00", 3),  # a Thursday
        (OFFICE, "2026-07-06 08:00", 6),  # a Monday in summer: 06:00 UTC
        (NIGHT, "2026-11-28 21:59", 3),
        (NIGHT, "2026-11-28 23:00", 6),
        (NIGHT, "2026-11-29 05:59", 6),  # Sunday, of the night that began on Saturday
        (NIGHT, "2026-11-29 06:00", 3),
        (NIGHT, "2026-11-29 23:00", 3),
        (WHOLE_DAY, "2026-11-28 07:59", 3),
        (WHOLE_DAY, "2026-11-28 08:00", 6),
        (WHOLE_DAY, "2026-11-29 07:59", 6),
        (WHOLE_DAY, "2026-11-29 08:00", 3),
        (SKIPPED, "2026-03-29 01:59", 3),
        (SKIPPED, "2026-03-29 03:00", 6),  # the minute after 01:59
        (SKIPPED, "2026-03-29 04:00", 3),
    ],
)
def test_by_the_wall_clock(entry: CalendarEntry, moment: str, replicas: int) -> None:
    assert granted(Calendar(zone="Europe/Berlin", entries=(entry,)), berlin(moment)) == replicas


def test_an_hour_that_comes_twice_belongs_to_an_entry_twice() -> None:
    guard = Calendar(zone="Europe/Berlin", entries=(TWICE,))
    first, second = (berlin("2026-10-25 02:15", fold=fold) for fold in (0, 1))
    assert second - first == 3600
    assert [granted(guard, at_s) for at_s in (first, first + 1800, second, second + 1800)] == [6, 3, 6, 3]


def test_dates_add_and_except() -> None:
    entry = OFFICE.model_copy(update={"dates": ("2026-11-26",), "except_dates": ("2026-11-27",)})
    guard = Calendar(zone="Europe/Berlin", entries=(entry,))
    assert [granted(guard, berlin(f"2026-11-{day} 12:00")) for day in (26, 27, 30)] == [6, 3, 6]


@pytest.mark.parametrize(
    ("entries", "wanted", "replicas", "code"),
    [
        ([{"min_replicas": 5}], 3, 5, "CalendarFloor"),
        ([{"min_replicas": 5}], 5, 5, None),
        ([{"min_replicas": 5}], 7, 7, None),
        ([{"max_replicas": 2}], 3, 2, "CalendarCeiling"),
        ([{"max_replicas": 2}], 2, 2, None),
        ([{"min_replicas": 2}, {"min_replicas": 5}, {"max_replicas": 4}], 9, 5, "CalendarFloor"),
        ([{"min_replicas": 5}, {"max_replicas": 4}], 5, 5, None),
        ([{"min_replicas": 4}, {"max_replicas": 4}], 9, 4, "CalendarCeiling"),
        ([{"min_replicas": 4, "max_replicas": 4}], 3, 4, "CalendarFloor"),
        ([{"min_replicas": 2}, {"max_replicas": 6}, {"max_replicas": 4}], 9, 4, "CalendarCeiling"),
        ([{"replicas": 1}, {"min_replicas": 5}], 9, 1, "CalendarPin"),
        ([{"replicas": 1}, {"replicas": 2}], 9, 2, "CalendarPin"),
        ([{"replicas": 1}, {"replicas": 2}], 2, 2, None),
    ],
)
def test_several_at_once(entries: list[dict[str, int]], wanted: int, replicas: int, code: str | None) -> None:
    guard = Calendar(entries=tuple(CalendarEntry(reason="x", **entry) for entry in entries))
    snapshot = Snapshot(at_s=0, pools={"decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=4)})
    proposal, _ = guard.limit(snapshot, Proposal(pools={"decode": Want(wanted, 1.5)}), None)
    assert proposal.pools["decode"] == Want(replicas, 1.5)
    assert [reason.code for reason in proposal.reasons] == ([code] if code else [])


def test_an_entry_is_of_the_pools_that_it_names() -> None:
    guard = Calendar(entries=(CalendarEntry(replicas=6, pools=("prefill",), reason="x"),))
    pools = {role: PoolStatus(spec=PoolSpec(role=role), replicas=4) for role in ("prefill", "decode")}
    pools["unread"] = PoolStatus(spec=PoolSpec(role="prefill"), replicas=None)
    proposal = Proposal(pools=dict.fromkeys(pools, THREE))
    limited, _ = guard.limit(Snapshot(at_s=0, pools=pools), proposal, None)
    assert limited.pools == {"prefill": Want(6), "decode": THREE, "unread": THREE}


def test_a_held_pool_is_moved_and_another_pool_is_not() -> None:
    floor = CalendarEntry(min_replicas=6, reason="launch")
    assert granted(Calendar(entries=(floor,)), 0.0, Hold("blind")) == 6
    assert granted(Calendar(entries=(floor.model_copy(update={"pools": ("prefill",)}),)), 0.0) == 3


@given(
    at_s=st.floats(1_590_000_000, 2_390_000_000),
    name=st.sampled_from(["Europe/Berlin", "Asia/Kolkata", "America/New_York"]),
)
@examples(60)
def test_offsets_are_those_of_the_database(at_s: float, name: str) -> None:
    offset = datetime.fromtimestamp(at_s, ZoneInfo(name)).utcoffset()
    assert offset is not None
    assert Zone.of(name).local_s(at_s) - at_s == pytest.approx(offset.total_seconds(), abs=1e-3)


def test_data_carries_the_offsets_and_yaml_forms_are_read() -> None:
    guard = Calendar.model_validate(
        {
            "zone": "Europe/Berlin",
            "entries": [
                {"start": 1110, "end": "24:00", "dates": [datetime(2026, 12, 24).date()], "replicas": 2, "reason": "x"}
            ],
        }
    )
    assert (guard.entries[0].start, guard.entries[0].dates) == ("18:30", ("2026-12-24",))
    data = guard.model_dump(mode="json")
    assert data["zone"]["offsets"][1][1] == 7200
    assert Calendar.model_validate({key: value for key, value in data.items() if key != "kind"}) == guard


def test_a_machine_without_time_zones_names_the_extra_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zones, "available_timezones", set)
    with pytest.raises(ValidationError, match=r"pip install 'dynamo-planner\[tzdata\]'"):
        Schedule(plan={"decode": ((0.0, 1),)}, zone="Asia/Kathmandu")


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="'Europe/Berln' is no time zone: did you mean 'Europe/Berlin'"):
        Calendar(zone="Europe/Berln", entries=())
    with pytest.raises(ValidationError, match="'25:00' is no time of day"):
        CalendarEntry(start="25:00", replicas=1, reason="x")
    with pytest.raises(ValidationError, match="give either replicas"):
        CalendarEntry(reason="x")
    with pytest.raises(ValidationError, match="'Christmas' is no date"):
        CalendarEntry(dates=("Christmas",), replicas=1, reason="x")


def test_years_beyond_the_table_are_reported() -> None:
    guard = Calendar(zone="Europe/Berlin", entries=(CalendarEntry(replicas=2, reason="x"),))
    pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=4)
    decision = ((lambda _: {"decode": 4}) | guard).decide(Snapshot(at_s=2.5e9, pools={"decode": pool}))
    assert [reason.code for reason in decision.reasons] == ["ZoneNotCovered", "CalendarPin"]
    never = Calendar(zone="Europe/Berlin", entries=(CalendarEntry(days=(), replicas=2, reason="x"),))
    assert not ((lambda _: {"decode": 4}) | never).decide(Snapshot(at_s=2.5e9, pools={"decode": pool})).reasons


def test_a_schedule_keeps_its_hours_through_daylight_saving() -> None:
    plan = {"decode": ((0.0, 2), (8 * 3600.0, 5))}
    schedule = Schedule(plan=plan, every_s=86_400, zone="Europe/Berlin")
    pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=2)
    for moment, replicas in (
        ("2026-01-07 07:59", 2),
        ("2026-01-07 08:00", 5),
        ("2026-07-07 07:59", 2),
        ("2026-07-07 08:00", 5),
    ):
        snapshot = Snapshot(at_s=berlin(moment), pools={"decode": pool})
        assert schedule.decide(snapshot).targets["decode"] == replicas, moment
