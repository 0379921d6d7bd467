"""The whole lines of derived points, as they are sent to InfluxDB."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from exporter.derive.capacity import Capacity, Peak
from exporter.derive.limits import Threshold
from exporter.derive.points import (
    ABOVE_STEPS,
    capacity_lines,
    day_energy_line,
    final_hour_line,
    meter_line,
    month_energy_line,
    phase_lines,
    projected_capacity_line,
    running_hour_line,
    threshold_line,
)
from exporter.derive.sums import EnergySum
from exporter.derive.values import Values, layout_of
from exporter.model.obis import ObisCode
from exporter.model.reading import Measurement, Meter, Placed, Reading

OSLO = ZoneInfo("Europe/Oslo")
NOW = 1_792_929_601_234
OCTOBER = 1_790_805_600_000  # 2026-10-01 00:00 in Oslo


def placed(time: int | None) -> Placed:
    values = ((31, 20.0, "A"), (51, 16.0, "A"), (71, 9.0, "A"), (32, 230.0, "V"), (52, 230.0, "V"), (72, 230.0, "V"))
    powers = ((1, 300.0, "W"), (3, 400.0, "var"), (21, 100.0, "W"), (23, 0.0, "var"))
    measurements = tuple(Measurement(ObisCode(1, 1, c, 7, 0), value, unit) for c, value, unit in values + powers)
    return Placed(Reading(Meter("5706"), None, measurements), "5706", time, time)


def test_the_figures_of_a_reading() -> None:
    values = Values.of(placed(NOW))
    assert values is not None
    assert phase_lines(values.layout.phases, values.values, "5706", 25, NOW) == [
        f"phase_unbalance,meter_id=5706,quantity=current value=40.0 {NOW}",
        f"phase_unbalance,meter_id=5706,quantity=voltage value=0.0 {NOW}",
        f"fuse_load,meter_id=5706,phase=L1 value=80.0 {NOW}",
        f"fuse_load,meter_id=5706,phase=L2 value=64.0 {NOW}",
        f"fuse_load,meter_id=5706,phase=L3 value=36.0 {NOW}",
        f"power_factor,meter_id=5706 value=0.6 {NOW}",
        f"power_factor,meter_id=5706,phase=L1 value=1.0 {NOW}",
    ]


def test_a_reading_without_a_time_has_no_figures() -> None:
    assert Values.of(placed(None)) is None


def test_a_meter_id_is_escaped_and_a_meaningless_unbalance_is_left_out() -> None:
    phases = layout_of(((ObisCode(1, 1, 51, 7, 0), "A"), (ObisCode(1, 1, 71, 7, 0), "A"))).phases
    assert phase_lines(phases, [0.5, 0.25], "a b,c=d", 25, NOW) == [
        f"fuse_load,meter_id=a\\ b\\,c\\=d,phase=L2 value=2.0 {NOW}",
        f"fuse_load,meter_id=a\\ b\\,c\\=d,phase=L3 value=1.0 {NOW}",
    ]


def test_the_line_that_lists_a_meter() -> None:
    assert meter_line("5706 ,x", "Europe/Oslo", OCTOBER) == (
        f'meter,meter_id=5706\\ \\,x,real=5706\\ \\,x value=1.0,timezone="Europe/Oslo" {OCTOBER}'
    )
    assert meter_line("SIMULATED-KAIFA-1", "UTC", OCTOBER) == (
        f'meter,meter_id=SIMULATED-KAIFA-1,simulated=SIMULATED-KAIFA-1 value=1.0,timezone="UTC" {OCTOBER}'
    )


def test_the_running_hour() -> None:
    assert running_hour_line("m", "import", "so_far", 1234.5, NOW) == (
        f"hour_energy,direction=import,kind=so_far,meter_id=m value=1234.5 {NOW}"
    )
    assert running_hour_line("m", "export", "projected", 0, NOW) == (
        f"hour_energy,direction=export,kind=projected,meter_id=m value=0.0 {NOW}"
    )


def test_a_final_hour_has_its_local_weekday_and_hour() -> None:
    first, second = 1_792_886_400_000, 1_792_890_000_000  # 2026-10-25 00:00 and 01:00 UTC: 02:00 twice, a Sunday
    assert [final_hour_line("m", "import", 1500, hour, OSLO) for hour in (first, second)] == [
        f"hour_energy,direction=import,hour=02,kind=final,meter_id=m,weekday=7 value=1500.0 {first}",
        f"hour_energy,direction=import,hour=02,kind=final,meter_id=m,weekday=7 value=1500.0 {second}",
    ]
    assert ",hour=00,kind=final,meter_id=m,weekday=4 " in final_hour_line("m", "import", 1, OCTOBER, OSLO)


def test_the_sums_of_a_day_and_a_month() -> None:
    assert day_energy_line("m", "import", EnergySum(24_000, 25), OCTOBER) == (
        f"day_energy,direction=import,meter_id=m value=24000.0,hours=25.0 {OCTOBER}"
    )
    assert month_energy_line("m", "export", EnergySum(0.0, 744), OCTOBER) == (
        f"month_energy,direction=export,meter_id=m value=0.0,hours=744.0 {OCTOBER}"
    )


def test_the_capacity_of_a_month() -> None:
    found = Capacity(OCTOBER, (Peak(OCTOBER + 7_200_000, 6100), Peak(OCTOBER + 90_000_000, 5000)), 5550)
    assert list(capacity_lines("m", found, [2000.0, 5000.0, 10_000.0])) == [
        f"capacity,kind=peak1,meter_id=m value=6100.0,hour={OCTOBER + 7_200_000}.0 {OCTOBER}",
        f"capacity,kind=peak2,meter_id=m value=5000.0,hour={OCTOBER + 90_000_000}.0 {OCTOBER}",
        f"capacity,kind=mean,meter_id=m value=5550.0 {OCTOBER}",
        f"capacity_step,meter_id=m value=10000.0 {OCTOBER}",
    ]
    assert projected_capacity_line("m", 5600, NOW) == f"capacity,kind=projected,meter_id=m value=5600.0 {NOW}"


def test_above_the_last_step_a_value_replaces_an_earlier_step() -> None:
    found = Capacity(OCTOBER, (Peak(OCTOBER, 6100),), 6100)
    assert list(capacity_lines("m", found, [2000.0, 5000.0]))[-1] == (
        f"capacity_step,meter_id=m value={ABOVE_STEPS!r} {OCTOBER}"
    )


def test_limits_of_a_meter_and_of_the_exporter() -> None:
    assert threshold_line(Threshold("fuse_load", "warn", 90), NOW, "m") == (
        f"threshold,bound=warn,meter_id=m,quantity=fuse_load value=90.0 {NOW}"
    )
    assert threshold_line(Threshold("backlog_age", "max", 600), NOW) == (
        f"threshold,bound=max,quantity=backlog_age value=600.0 {NOW}"
    )
