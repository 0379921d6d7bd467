"""Which meter and which time a list gets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from exporter.derive import points
from exporter.meters import to_utc
from exporter.model.calendar import from_ms, to_ms
from exporter.model.obis import ObisCode
from exporter.model.reading import ClockHabit, Measurement, Meter, MeterClock, Placed, Reading
from exporter.pipeline.identity import NAMELESS_WAIT_MS
from exporter.service import own_points
from tests.support.pipeline import Placer

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
POWER = Measurement(ObisCode(1, 0, 1, 7, 0), 100.0, "W")


def energy(value: float) -> Measurement:
    return Measurement(ObisCode(1, 0, 1, 8, 0), value, "Wh")


def shown(moment: datetime) -> MeterClock:
    """A clock in standard time (UTC+1) that shows `moment`."""
    local = moment + timedelta(hours=1)
    return MeterClock(
        local.year, local.month, local.day, None, local.hour, local.minute, local.second, None, None, None
    )


def reading(
    received: datetime | None,
    meter_id: str | None = "A",
    *,
    clock: datetime | None = None,
    register: float | None = None,
) -> Reading:
    meter_clock = None if clock is None else shown(clock)
    return Reading(
        Meter(meter_id, None, None),
        None,
        (POWER,) if register is None else (POWER, energy(register)),
        meter_clock,
        None if meter_clock is None else to_utc(meter_clock, ClockHabit.STANDARD),
        ClockHabit.STANDARD,
        register is not None and clock is not None,
        received,
    )


def placer(**options: object) -> Placer:
    return Placer("test", now=lambda: NOON + timedelta(days=365), **options)  # type: ignore[arg-type]


def at(placed: Placed) -> tuple[datetime | None, datetime | None]:
    return (
        None if placed.time is None else from_ms(placed.time),
        None if placed.register_time is None else from_ms(placed.register_time),
    )


def one(given: list[Placed]) -> Placed:
    (placed,) = given
    return placed


# --- time -----------------------------------------------------------------------------------------------------------


def test_instantaneous_values_carry_received() -> None:
    moment = NOON + timedelta(milliseconds=123, microseconds=456)
    assert at(one(placer().place(reading(moment)))) == (NOON + timedelta(milliseconds=123),) * 2


def test_no_two_readings_share_a_millisecond() -> None:
    there = placer()
    times = [one(there.place(reading(NOON))).time for _ in range(3)]
    assert times == [to_ms(NOON), to_ms(NOON) + 1, to_ms(NOON) + 2]


def test_the_hours_register_carries_the_full_hour() -> None:
    received = NOON + timedelta(seconds=12)
    placed = one(placer().place(reading(received, clock=NOON + timedelta(seconds=5), register=1.0)))
    assert at(placed) == (received, NOON)
    assert placed.clock_offset == -7.0


def test_only_the_first_list_of_an_hour_starts_it() -> None:
    there = placer()
    for seconds, expected in ((5, NOON), (15, NOON + timedelta(seconds=15)), (55, NOON + timedelta(seconds=55))):
        moment = NOON + timedelta(seconds=seconds)
        assert at(one(there.place(reading(moment, clock=moment, register=float(seconds)))))[1] == expected
    later = NOON + timedelta(minutes=1)
    assert at(one(there.place(reading(later, clock=later, register=99.0))))[1] == later


def test_a_restart_in_the_first_minute_starts_no_second_hour() -> None:
    there = placer()
    there.place(reading(NOON, clock=NOON, register=1.0))
    again = placer(state=there.new_state())
    moment = NOON + timedelta(seconds=30)
    assert at(one(again.place(reading(moment, clock=moment, register=2.0))))[1] == moment


def test_a_repeated_hourly_list_is_stamped_as_the_first() -> None:
    there = placer()
    there.place(reading(NOON + timedelta(seconds=12), clock=NOON, register=1.0))
    hour_later = NOON + timedelta(hours=1, seconds=12)
    assert at(one(there.place(reading(hour_later, clock=NOON, register=1.0)))) == (hour_later, NOON)


@pytest.mark.parametrize("hours", [-2, -1, 1, 2])
def test_a_clock_off_by_whole_hours_starts_no_hour(hours: int) -> None:
    received = NOON + timedelta(seconds=12)
    placed = one(placer().place(reading(received, clock=NOON + timedelta(hours=hours), register=1.0)))
    assert at(placed)[1] == received


@pytest.mark.parametrize("minutes", [-4, 4])
def test_a_clock_a_little_off_is_its_own_hour(minutes: int) -> None:
    received = NOON + timedelta(minutes=minutes)
    assert at(one(placer().place(reading(received, clock=NOON, register=1.0))))[1] == NOON


def test_a_clock_that_is_simply_wrong_takes_the_nearest_hour(caplog: pytest.LogCaptureFixture) -> None:
    received = NOON + timedelta(minutes=3)
    placed = one(placer().place(reading(received, clock=datetime(2000, 1, 1, 4, tzinfo=UTC), register=1.0)))
    assert at(placed) == (received, NOON)
    assert "is wrong by" in caplog.text


def test_registers_far_from_any_hour_carry_received() -> None:
    received = NOON + timedelta(minutes=30)
    placed = one(placer().place(reading(received, clock=datetime(2000, 1, 1, 4, tzinfo=UTC), register=1.0)))
    assert at(placed)[1] == received


def test_without_time_stamps_the_clock_is_the_time() -> None:
    clock = NOON + timedelta(seconds=5)
    assert at(one(placer().place(reading(None, clock=clock, register=1.0)))) == (clock, NOON)


@pytest.mark.parametrize("clock", [datetime(2014, 12, 31, tzinfo=UTC), NOON + timedelta(days=370)])
def test_an_unbelievable_clock_is_no_time(clock: datetime) -> None:
    assert at(one(placer().place(reading(None, clock=clock)))) == (None, None)


def test_without_clock_and_time_stamp_there_is_no_time() -> None:
    placed = one(placer().place(reading(None)))
    assert at(placed) == (None, None)
    assert list(points.lines(placed)) == ["active_power,direction=import,meter_id=A,obis=1-0:1.7.0 value=100.0"]


# --- meter ----------------------------------------------------------------------------------------------------------


def test_nameless_lists_get_the_id_last_heard() -> None:
    there = placer()
    there.place(reading(NOON))
    assert one(there.place(reading(NOON + timedelta(seconds=2), None))).meter_id == "A"


def test_nameless_lists_wait_for_an_id_and_keep_their_time() -> None:
    there = placer()
    assert there.place(reading(NOON, None)) == []
    assert there.waits
    given = there.place(reading(NOON + timedelta(seconds=8)))
    assert [(placed.meter_id, from_ms(placed.time or 0)) for placed in given] == [
        ("A", NOON),
        ("A", NOON + timedelta(seconds=8)),
    ]
    assert not there.waits


def test_after_a_minute_they_are_of_a_meter_that_is_not_known() -> None:
    there = placer()
    there.place(reading(NOON, None))
    late = NOON + timedelta(milliseconds=NAMELESS_WAIT_MS)
    assert [placed.meter_id for placed in there.place(reading(late, None))] == ["unknown-test", "unknown-test"]
    assert [placed.meter_id for placed in there.place(reading(late + timedelta(seconds=1), None))] == ["unknown-test"]


def test_han_meter_id_names_them() -> None:
    there = placer(fallback="mine")
    there.place(reading(NOON, None))
    assert [placed.meter_id for placed in there.give_up()] == ["mine"]


def test_the_last_id_outlives_a_restart() -> None:
    there = placer()
    there.place(reading(NOON))
    again = placer(state=there.new_state())
    assert one(again.place(reading(NOON + timedelta(hours=1), None))).meter_id == "A"


def test_a_new_meter_on_the_source_takes_over() -> None:
    there = placer()
    there.place(reading(NOON, "A"))
    there.place(reading(NOON + timedelta(days=1), "B"))
    assert one(there.place(reading(NOON + timedelta(days=1, seconds=2), None))).meter_id == "B"


def test_two_meters_on_one_source_leave_the_nameless_out() -> None:
    there = placer()
    for seconds, meter in enumerate(("A", "B", "A", "B")):
        assert one(there.place(reading(NOON + timedelta(seconds=seconds), meter))).meter_id == meter
    assert there.place(reading(NOON + timedelta(seconds=5), None)) == []
    assert there.left_out == 1
    alone = NOON + timedelta(minutes=11)
    there.place(reading(alone, "B"))
    assert one(there.place(reading(alone + timedelta(seconds=1), None))).meter_id == "B"


# --- lines ----------------------------------------------------------------------------------------------------------


def lines_of(*measurements: Measurement, meter_id: str = "A") -> list[str]:
    told = Reading(Meter(meter_id), None, measurements, received=NOON)
    return list(points.lines(Placed(told, meter_id, 1000, 0)))


def measured(obis: str, value: float, unit: str) -> Measurement:
    return Measurement(ObisCode.parse(obis), value, unit)


def test_lines_follow_the_schema() -> None:
    assert lines_of(
        measured("1-1:2.7.0", 5.0, "W"),
        measured("1-1:4.7.0", 5.5, "var"),
        measured("1-1:41.7.0", 6.0, "W"),
        measured("1-1:51.7.0", -5.1, "A"),
        measured("1-1:72.7.0", 230.0, "V"),
        measured("1-1:1.8.0", 10.0, "Wh"),
        measured("1-1:13.7.0", 0.99, "1"),
        measured("1-1:33.7.0", 0.98, "1"),
        measured("1-1:14.7.0", 49.98, "Hz"),
    ) == [
        "active_power,direction=export,meter_id=A,obis=1-1:2.7.0 value=5.0 1000",
        "reactive_power,direction=export,meter_id=A,obis=1-1:4.7.0 value=5.5 1000",
        "active_power,direction=import,meter_id=A,obis=1-1:41.7.0,phase=L2 value=6.0 1000",
        "current,meter_id=A,obis=1-1:51.7.0,phase=L2 value=-5.1 1000",
        "voltage,meter_id=A,obis=1-1:72.7.0,phase=L3 value=230.0 1000",
        "active_energy,direction=import,meter_id=A,obis=1-1:1.8.0 value=10.0 0",
        "power_factor,meter_id=A,obis=1-1:13.7.0 value=0.99 1000",
        "power_factor,meter_id=A,obis=1-1:33.7.0,phase=L1 value=0.98 1000",
        "frequency,meter_id=A,obis=1-1:14.7.0 value=49.98 1000",
    ]


def test_what_the_catalogue_does_not_know_is_kept_apart() -> None:
    assert lines_of(measured("1-0:99.7.0", 7.0, ""), measured("1-0:1.7.0", 7.0, "Wh")) == [
        "other,meter_id=A,obis=1-0:99.7.0 value=7.0 1000",
        "other,meter_id=A,obis=1-0:1.7.0,unit=Wh value=7.0 1000",
    ]


def test_a_past_value_is_not_taken_for_a_present_one() -> None:
    (line,) = lines_of(measured("1-0:1.8.0*101", 7.0, "Wh"))
    assert line.startswith("other,meter_id=A,obis=1-0:1.8.0*101,unit=Wh ")


def test_tags_are_escaped() -> None:
    (line,) = lines_of(measured("1-0:1.7.0", 1.0, "W"), meter_id='a,b c="d"')
    assert line == 'active_power,direction=import,meter_id=a\\,b\\ c\\="d",obis=1-0:1.7.0 value=1.0 1000'


def test_the_exporters_own_lines() -> None:
    assert own_points.exporter_line("pi 4", {"frames": 3}, 5) == "exporter,instance=pi\\ 4 frames=3.0 5"
    assert own_points.event_line("pi", "start", 'say "hi"\n\\o/', 5) == (
        'event,instance=pi,kind=start text="say \\"hi\\" \\\\o/" 5'
    )
    assert own_points.reading_age_line("A", 1.5, 5) == "reading_age,meter_id=A value=1.5 5"
