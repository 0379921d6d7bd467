"""The derived figures against calculations by hand, whose numbers stand here."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from exporter.config import Limits
from exporter.derive.capacity import Capacity, Peak, capacity, capacity_step, with_running
from exporter.derive.limits import Threshold, exporter_thresholds, thresholds
from exporter.derive.phases import unbalance
from exporter.derive.running_hour import projected
from exporter.derive.sums import EnergySum, day_sums, month_sums
from exporter.model.calendar import day_hours, day_start, month_start, next_day, next_month, weekday_and_hour
from exporter.model.obis import ObisCode
from exporter.model.reading import Measurement, Meter, Reading
from tests.support.phases import current_unbalance, fuse_load, power_factors, voltage_unbalance

OSLO = ZoneInfo("Europe/Oslo")
HOUR = 3_600_000


def reading(**values: float) -> Reading:
    """`P`, `P_out`, `Q`, `Q_out` of the total, the same with 1 to 3 behind, I1-I3, U1-U3, PF, PF1-PF3."""
    groups = {"P": (1, "W"), "P_out": (2, "W"), "Q": (3, "var"), "Q_out": (4, "var"), "PF": (13, "1")}
    groups |= {"I": (11, "A"), "U": (12, "V")}
    found = []
    for name, value in values.items():
        phase = int(name[-1]) if name[-1].isdigit() else 0
        c, unit = groups[name.rstrip("123")]
        found.append(Measurement(ObisCode(1, 0, c + 20 * phase, 7, 0), value, unit))
    return Reading(Meter("m"), None, tuple(found))


def utc(text: str) -> int:
    """`2026-10-01 22:00` in UTC -> ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def oslo(text: str) -> int:
    """`2026-10-01 22:00` in Oslo -> ms; of an hour that comes twice, the first."""
    return int(datetime.fromisoformat(text).replace(tzinfo=OSLO).timestamp()) * 1000


# Phases


def test_unbalance_by_hand() -> None:
    assert unbalance([20, 16, 9]) == pytest.approx(40)  # mean 15, farthest is 9, by 6: 6 / 15
    assert unbalance([230, 232, 225]) == pytest.approx(100 * 4 / 229)
    assert unbalance([10, 6]) == pytest.approx(25)  # mean 8, by 2
    assert unbalance([7, 7, 7]) == 0
    assert unbalance([9, 0, 0]) == pytest.approx(200)  # mean 3, by 6


@pytest.mark.parametrize("values", [[], [5], [0, 0, 0], [3, -3]])
def test_no_unbalance_of_one_value_or_around_nothing(values: list[float]) -> None:
    assert unbalance(values) is None


def test_current_unbalance_and_fuse_load_of_20_16_and_9_ampere() -> None:
    house = reading(I1=20, I2=16, I3=9, U1=230, U2=230, U3=230)
    assert current_unbalance(house) == pytest.approx(40)
    assert voltage_unbalance(house) == 0
    assert fuse_load(house, 25) == pytest.approx({"L1": 80, "L2": 64, "L3": 36})


def test_currents_without_sign() -> None:
    """Some meters send the current of a phase that feeds in with a minus."""
    house = reading(I1=-20, I2=16, I3=-9)
    assert current_unbalance(house) == pytest.approx(40)
    assert fuse_load(house, 25) == pytest.approx({"L1": 80, "L2": 64, "L3": 36})


def test_an_it_net_with_two_measured_currents_has_two() -> None:
    house = reading(I1=12, I3=8, U1=231, U3=229)
    assert current_unbalance(house) == pytest.approx(20)  # mean 10, by 2
    assert voltage_unbalance(house) == pytest.approx(100 / 230)
    assert list(fuse_load(house, 40)) == ["L1", "L3"]


def test_one_phase_has_no_unbalance() -> None:
    house = reading(I1=12, U1=231)
    assert current_unbalance(house) is None
    assert voltage_unbalance(house) is None
    assert fuse_load(house, 40) == pytest.approx({"L1": 30})


def test_below_a_mean_of_one_ampere_unbalance_means_nothing() -> None:
    assert current_unbalance(reading(I1=1.9, I2=0.5, I3=0.5)) is None  # mean 0.967
    assert current_unbalance(reading(I1=2.0, I2=0.5, I3=0.5)) == pytest.approx(100)  # mean 1


def test_a_reading_without_phases_gives_nothing() -> None:
    aidon_list_1 = reading(P=1362)
    assert current_unbalance(aidon_list_1) is None
    assert voltage_unbalance(aidon_list_1) is None
    assert fuse_load(aidon_list_1, 25) == {}
    assert power_factors(aidon_list_1) == {}


# Power factor


def test_power_factor_by_hand() -> None:
    assert power_factors(reading(P=300, P_out=0, Q=400, Q_out=0)) == pytest.approx({"": 0.6})  # S 500


def test_power_factor_of_the_net_of_import_and_export() -> None:
    sun = reading(P=0, P_out=1200, Q=100, Q_out=600)  # P -1200, Q -500, S 1300
    assert power_factors(sun) == pytest.approx({"": 12 / 13})


def test_power_factor_by_phase_where_both_powers_are_sent() -> None:
    swedish = reading(P=900, Q=0, P1=300, Q1=400, P2=500, P_out2=0, Q2=0, Q_out2=0, P3=100)
    assert power_factors(swedish) == pytest.approx({"": 1, "L1": 0.6, "L2": 1})


def test_power_factor_is_left_to_the_meter_that_sends_it() -> None:
    assert power_factors(reading(P=300, Q=400, PF=0.61)) == {}
    assert power_factors(reading(P=300, Q=400, P1=300, Q1=400, PF1=0.61)) == pytest.approx({"": 0.6})


def test_power_is_never_made_up_from_voltage_times_current() -> None:
    assert power_factors(reading(Q=400, Q1=400, U1=230, I1=2)) == {}


def test_no_power_has_no_power_factor() -> None:
    assert power_factors(reading(P=0, P_out=0, Q=0, Q_out=0)) == {}
    assert power_factors(reading(P=0, Q=50)) == {"": 0}


def test_a_value_in_another_unit_than_the_catalogues_is_no_current() -> None:
    odd = Reading(Meter("m"), None, (Measurement(ObisCode(1, 0, 31, 7, 0), 20, "V"),))
    assert fuse_load(odd, 25) == {}


# Limits


def test_every_limit_is_a_threshold() -> None:
    limits = Limits(
        main_fuse_a=25,
        fuse_warn_pct=85,
        limit_power_w=9000,
        limit_hour_wh=4500,
        limit_unbalance_pct=35,
        voltage_min=210,
        voltage_max=250,
        limit_silence_s=120,
        unbalance_from_pct=45,
    )
    assert thresholds(limits) == (
        Threshold("fuse_load", "max", 100),
        Threshold("fuse_load", "warn", 85),
        Threshold("current", "max", 25),
        Threshold("current", "warn", 21.25),
        Threshold("active_power", "max", 9000),
        Threshold("hour_energy", "max", 4500),
        Threshold("phase_unbalance", "max", 35),
        Threshold("phase_unbalance", "from", 45),
        Threshold("voltage", "min", 210),
        Threshold("voltage", "max", 250),
        Threshold("reading_age", "max", 120),
    )
    assert exporter_thresholds(600) == (Threshold("backlog_age", "max", 600),)


# The local calendar


def test_day_and_month_in_winter_and_summer() -> None:
    assert day_start(utc("2026-01-15 22:59"), OSLO) == utc("2026-01-14 23:00")
    assert day_start(utc("2026-01-15 23:00"), OSLO) == utc("2026-01-15 23:00")
    assert day_start(utc("2026-07-15 21:59"), OSLO) == utc("2026-07-14 22:00")
    assert day_start(utc("2026-07-15 22:00"), OSLO) == utc("2026-07-15 22:00")
    assert month_start(utc("2026-12-31 22:59"), OSLO) == utc("2026-11-30 23:00")
    assert next_month(utc("2026-12-31 22:59"), OSLO) == utc("2026-12-31 23:00")


def test_months_with_a_change_of_the_clock_begin_and_end_in_different_time() -> None:
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
    assert day_hours(noon, OSLO)[-1] == oslo(f"{day} 23:00") == next_day(noon, OSLO) - HOUR


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


# Hours


def test_sums_of_days_and_months_say_of_how_many_hours() -> None:
    finals = {
        utc("2026-10-31 21:00"): 100.0,  # 22:00 of the 31st in Oslo, which is in winter time by then
        utc("2026-10-31 22:00"): 250.0,
        utc("2026-10-31 23:00"): 70.0,  # the first of November
        utc("2026-11-02 11:00"): 5.0,
    }
    october, first, second = utc("2026-10-30 23:00"), utc("2026-10-31 23:00"), utc("2026-11-01 23:00")
    assert day_sums(finals, OSLO) == {october: EnergySum(350, 2), first: EnergySum(70, 1), second: EnergySum(5, 1)}
    assert month_sums(finals, OSLO) == {utc("2026-09-30 22:00"): EnergySum(350, 2), first: EnergySum(75, 2)}
    assert day_sums({}, OSLO) == {}


def test_projection_by_hand() -> None:
    assert projected(2000, 6000, 20 * 60_000) == pytest.approx(4000)  # 2 kWh and 6 kW for 20 minutes
    assert projected(4321.5, 9000, 0) == 4321.5
    assert projected(4321.5, 9000, -5) == 4321.5


def test_no_projection_while_more_than_five_minutes_are_unknown() -> None:
    assert projected(100, 600, 600_000, unknown_ms=300_000) == pytest.approx(200)
    assert projected(100, 600, 600_000, unknown_ms=300_001) is None


# The capacity charge


def test_capacity_by_hand() -> None:
    finals = {
        oslo("2026-11-02 07:00"): 4200.0,
        oslo("2026-11-02 18:00"): 6100.0,  # the day's highest
        oslo("2026-11-02 19:00"): 5900.0,  # higher than other days', but the day has its hour
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


def test_of_equal_hours_and_days_the_earlier_counts() -> None:
    finals = {oslo(f"2026-11-{day:02} {hour:02}:00"): 2000.0 for day in (4, 3, 2, 1) for hour in (9, 8)}
    found = capacity(finals, oslo("2026-11-01 00:00"), OSLO)
    assert found is not None
    assert [peak.hour for peak in found.peaks] == [oslo(f"2026-11-0{day} 08:00") for day in (1, 2, 3)]


def test_both_hours_of_the_night_when_winter_time_begins_are_of_one_day() -> None:
    twice = utc("2026-10-25 00:00"), utc("2026-10-25 01:00")  # 02:00 in Oslo, both
    found = capacity({twice[0]: 3000.0, twice[1]: 3500.0}, twice[0], OSLO)
    assert found == Capacity(utc("2026-09-30 22:00"), (Peak(twice[1], 3500),), 3500)


def test_the_running_hour_changes_the_mean_only_where_it_is_a_peak() -> None:
    finals = {oslo(f"2026-11-0{day} 08:00"): wh for day, wh in ((1, 6000.0), (2, 5000.0), (3, 4000.0))}
    assert with_running(finals, oslo("2026-11-04 17:00"), 3999, OSLO) == 5000
    assert with_running(finals, oslo("2026-11-04 17:00"), 7000, OSLO) == 6000  # 7, 6, 5
    assert with_running(finals, oslo("2026-11-01 17:00"), 9000, OSLO) == 6000  # 9, 5, 4: the first has its new peak
    assert with_running(finals, oslo("2026-12-01 00:00"), 1200, OSLO) == 1200  # a new month
    assert with_running(finals, oslo("2026-11-03 08:00"), 9999, OSLO) == 5000  # final already


def test_the_lower_bound_is_in_a_step_and_the_upper_is_not() -> None:
    steps = [2000.0, 5000.0, 10_000.0]
    means = (0, 1999.99, 2000, 4999.99, 5000, 9999.99)
    assert [capacity_step(mean, steps) for mean in means] == [2000, 2000, 5000, 5000, 10_000, 10_000]
    assert capacity_step(10_000, steps) is None
