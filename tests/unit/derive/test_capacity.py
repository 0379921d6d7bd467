"""The capacity charge, compared with calculations by hand."""

from __future__ import annotations

from exporter.derive.capacity import Capacity, Peak, capacity, capacity_step, with_running
from tests.support.moments import OSLO, oslo, utc


def test_capacity_by_hand() -> None:
    finals = {
        oslo("2026-11-02 07:00"): 4200.0,
        oslo("2026-11-02 18:00"): 6100.0,  # the day's highest
        oslo("2026-11-02 19:00"): 5900.0,  # higher than on other days, but only one hour of a day counts
        oslo("2026-11-03 20:00"): 3000.0,
        oslo("2026-11-09 17:00"): 4500.0,
        oslo("2026-11-30 23:00"): 5000.0,  # the month's last hour
        oslo("2026-10-31 23:00"): 9000.0,  # the month before
        oslo("2026-12-01 00:00"): 9000.0,  # the month after
    }
    found = capacity(finals, oslo("2026-11-15 12:00"), OSLO)
    peaks = (
        Peak(oslo("2026-11-02 18:00"), 6100),
        Peak(oslo("2026-11-30 23:00"), 5000),
        Peak(oslo("2026-11-09 17:00"), 4500),
    )
    assert found == Capacity(oslo("2026-11-01 00:00"), peaks, 5200)  # 15 600 / 3


def test_capacity_of_fewer_than_three_days_is_their_mean() -> None:
    finals = {oslo("2026-11-02 07:00"): 4200.0}
    month = oslo("2026-11-01 00:00")
    assert capacity({}, month, OSLO) is None
    assert capacity(finals, oslo("2026-12-01 00:00"), OSLO) is None
    assert capacity(finals, month, OSLO) == Capacity(month, (Peak(oslo("2026-11-02 07:00"), 4200),), 4200)
    two = capacity(finals | {oslo("2026-11-01 07:00"): 1800.0}, month, OSLO)
    assert two is not None
    assert (len(two.peaks), two.mean) == (2, 3000)


def test_the_earlier_of_equal_hours_and_days_counts() -> None:
    finals = {oslo(f"2026-11-{day:02} {hour:02}:00"): 2000.0 for day in (4, 3, 2, 1) for hour in (9, 8)}
    found = capacity(finals, oslo("2026-11-01 00:00"), OSLO)
    assert found is not None
    assert [peak.hour for peak in found.peaks] == [oslo(f"2026-11-0{day} 08:00") for day in (1, 2, 3)]


def test_the_hour_that_comes_twice_when_winter_time_begins_is_in_one_day() -> None:
    twice = utc("2026-10-25 00:00"), utc("2026-10-25 01:00")  # 02:00 in Oslo, both
    found = capacity({twice[0]: 3000.0, twice[1]: 3500.0}, twice[0], OSLO)
    assert found == Capacity(utc("2026-09-30 22:00"), (Peak(twice[1], 3500),), 3500)


def test_the_running_hour_changes_the_mean_only_if_it_is_a_peak() -> None:
    finals = {oslo(f"2026-11-0{day} 08:00"): wh for day, wh in ((1, 6000.0), (2, 5000.0), (3, 4000.0))}
    assert with_running(finals, oslo("2026-11-04 17:00"), 3999, OSLO) == 5000
    assert with_running(finals, oslo("2026-11-04 17:00"), 7000, OSLO) == 6000  # 7, 6, 5
    assert with_running(finals, oslo("2026-11-01 17:00"), 9000, OSLO) == 6000  # 9, 5, 4: the first day has a new peak
    assert with_running(finals, oslo("2026-12-01 00:00"), 1200, OSLO) == 1200  # a new month
    assert with_running(finals, oslo("2026-11-03 08:00"), 9999, OSLO) == 5000  # final already


def test_a_step_contains_its_lower_bound_and_not_its_upper_one() -> None:
    steps = [2000.0, 5000.0, 10_000.0]
    means = (0, 1999.99, 2000, 4999.99, 5000, 9999.99)
    assert [capacity_step(mean, steps) for mean in means] == [2000, 2000, 5000, 5000, 10_000, 10_000]
    assert capacity_step(10_000, steps) is None
