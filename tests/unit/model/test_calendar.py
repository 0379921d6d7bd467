"""The local calendar, on the days on which the clock changes too."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from exporter.model.calendar import HOUR_MS, day_hours, day_start, month_start, next_day, next_month, weekday_and_hour
from tests.support.moments import OSLO, oslo, utc


def test_day_and_month_in_winter_and_summer() -> None:
    assert day_start(utc("2026-01-15 22:59"), OSLO) == utc("2026-01-14 23:00")
    assert day_start(utc("2026-01-15 23:00"), OSLO) == utc("2026-01-15 23:00")
    assert day_start(utc("2026-07-15 21:59"), OSLO) == utc("2026-07-14 22:00")
    assert day_start(utc("2026-07-15 22:00"), OSLO) == utc("2026-07-15 22:00")
    assert month_start(utc("2026-12-31 22:59"), OSLO) == utc("2026-11-30 23:00")
    assert next_month(utc("2026-12-31 22:59"), OSLO) == utc("2026-12-31 23:00")


def test_months_with_a_clock_change_begin_and_end_at_different_offsets() -> None:
    march, october = utc("2026-03-15 12:00"), utc("2026-10-15 12:00")
    assert (month_start(march, OSLO), next_month(march, OSLO)) == (utc("2026-02-28 23:00"), utc("2026-03-31 22:00"))
    assert (month_start(october, OSLO), next_month(october, OSLO)) == (
        utc("2026-09-30 22:00"),
        utc("2026-10-31 23:00"),
    )


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-28", 24), ("2026-03-29", 23), ("2026-10-24", 24), ("2026-10-25", 25)]
)
def test_hours_of_a_day(day: str, hours: int) -> None:
    noon = oslo(f"{day} 12:00")
    assert len(day_hours(noon, OSLO)) == hours
    assert day_hours(noon, OSLO)[0] == oslo(f"{day} 00:00") == day_start(noon, OSLO)
    assert day_hours(noon, OSLO)[-1] == oslo(f"{day} 23:00") == next_day(noon, OSLO) - HOUR_MS


def test_weekday_and_hour_at_the_changes_of_the_clock() -> None:
    assert weekday_and_hour(oslo("2026-10-19 00:00"), OSLO) == (1, 0)  # a Monday
    autumn = [weekday_and_hour(hour, OSLO) for hour in day_hours(oslo("2026-10-25 12:00"), OSLO)]
    assert autumn == [(7, 0), (7, 1), (7, 2), (7, 2), *((7, hour) for hour in range(3, 24))]
    spring = [weekday_and_hour(hour, OSLO) for hour in day_hours(oslo("2026-03-29 12:00"), OSLO)]
    assert spring == [(7, 0), (7, 1), *((7, hour) for hour in range(3, 24))]


def test_a_zone_whose_clock_changes_at_midnight() -> None:
    brazil = ZoneInfo("America/Sao_Paulo")  # 2018-11-04 began at 01:00, and 2018-02-17 had 23:00 to 24:00 twice
    assert day_start(utc("2018-11-04 12:00"), brazil) == utc("2018-11-04 03:00")
    assert len(day_hours(utc("2018-11-04 12:00"), brazil)) == 23
    assert len(day_hours(utc("2018-02-17 12:00"), brazil)) == 25
