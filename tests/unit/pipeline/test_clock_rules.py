"""Which hour the registers of a list belong to, and how the rule of a clock is learned."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from exporter.meters import OSLO
from exporter.model.obis import ObisCode
from exporter.model.reading import ClockHabit, Measurement, Meter, MeterClock, Reading
from exporter.pipeline.arrival import arrival_of
from exporter.pipeline.clock_rules import ClockRules

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECONDS = timedelta(seconds=1)


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def hourly(
    received: datetime, shown: datetime, register: float, *, meter_id: str | None = "A", habit: ClockHabit | None = None
) -> Reading:
    """A list received at a moment, whose own clock shows `shown` (written as if it were UTC)."""
    clock = MeterClock(
        shown.year, shown.month, shown.day, None, shown.hour, shown.minute, shown.second, None, None, None
    )
    return Reading(
        Meter(meter_id, None, None),
        None,
        (Measurement(ObisCode(1, 0, 1, 8, 0), register, "Wh"),),
        clock,
        None,
        habit or ClockHabit.STANDARD,
        True,
        received,
    )


class Rules:
    """Clock rules of one source, that can be restarted."""

    def __init__(self) -> None:
        self.state: dict[str, str] = {}
        self.rules = ClockRules(self.state)

    def restart(self) -> None:
        self.state |= self.rules.new_state()
        self.rules = ClockRules(self.state)

    def hour(self, reading: Reading, meter_id: str = "A") -> datetime | None:
        """The hour that the list's registers carry; None when they carry the time of the list."""
        assert reading.received is not None
        self.rules.learn(arrival_of(reading, OSLO), meter_id)
        given, starts = self.rules.register_hour(arrival_of(reading, OSLO), meter_id, ms(reading.received))
        assert starts or given == ms(reading.received) or given % 3_600_000 == 0
        return datetime.fromtimestamp(given / 1000, UTC) if starts else None

    def heard(self, off: timedelta, *received: datetime) -> list[datetime | None]:
        """Lists at these moments, of a clock that shows standard time and `off`."""
        return [self.hour(hourly(at, at + HOUR + off, ms(at))) for at in received]


@pytest.fixture
def rules() -> Rules:
    return Rules()


def at(hour: int, second: float = 11) -> datetime:
    return NOON + hour * HOUR + timedelta(seconds=second)


@pytest.mark.parametrize("second", [0, 5, 10, 25, 35, 59])
def test_the_first_minute_of_an_hour_is_the_hour(rules: Rules, second: int) -> None:
    """Kamstrup has been seen to send at xx:00:25 and xx:00:35."""
    assert rules.heard(timedelta(), at(0, second)) == [NOON]


@pytest.mark.parametrize("second", [60, 600, 3599])
def test_any_other_minute_starts_no_hour(rules: Rules, second: int) -> None:
    assert rules.heard(timedelta(), at(0, second)) == [None]


@pytest.mark.parametrize("minutes", [-4.5, -3, 3, 4.5])
def test_a_clock_that_is_off_by_minutes_says_the_hour(rules: Rules, minutes: float) -> None:
    off = timedelta(minutes=minutes)
    received = [at(hour) - off for hour in range(3)]
    assert rules.heard(off, *received) == [at(hour, 0) for hour in range(3)]


def test_a_repeat_carries_the_time_of_the_first_over_a_restart_too(rules: Rules) -> None:
    first = hourly(at(0), at(0, 0) + HOUR, 100.0)
    again = hourly(at(1), at(0, 0) + HOUR, 100.0)
    assert rules.hour(first) == NOON
    rules.restart()
    assert rules.rules.register_hour(arrival_of(again, OSLO), "A", ms(at(1))) == (ms(NOON), False)
    assert rules.hour(hourly(at(1, 14), at(1, 0) + HOUR, 150.0)) == NOON + HOUR
    for repeated in (again, hourly(at(2), at(1, 0) + HOUR, 150.0)):  # the last two are known
        assert rules.rules.register_hour(arrival_of(repeated, OSLO), "A", ms(at(2)))[1] is False
    assert rules.hour(hourly(at(2, 15), at(2, 0) + HOUR, 170.0)) == NOON + 2 * HOUR


def test_a_repeat_as_the_first_list_ever_teaches_nothing(rules: Rules) -> None:
    """Aidon's list of 12:00 at 13:00 would be UTC's, but the next right one says otherwise."""
    assert rules.hour(hourly(at(1), at(0, 0) + HOUR, 100.0)) is None
    rules.restart()
    assert rules.heard(timedelta(), at(2), at(3)) == [NOON + 2 * HOUR, NOON + 3 * HOUR]


def test_a_rule_changes_when_two_lists_in_a_row_say_so(rules: Rules, caplog: pytest.LogCaptureFixture) -> None:
    assert rules.heard(-HOUR, at(0)) == [None]
    rules.restart()  # in the middle of learning
    with caplog.at_level(logging.WARNING):
        assert rules.heard(-HOUR, at(1), at(2), at(3)) == [NOON + HOUR, NOON + 2 * HOUR, NOON + 3 * HOUR]
    assert [record.getMessage() for record in caplog.records] == [
        "the clock of meter A is -1.0 h off when read as its maker's habit; it is read as UTC from now on"
    ]
    rules.restart()
    assert rules.heard(-HOUR, at(4)) == [NOON + 4 * HOUR]


def test_one_list_in_between_ends_the_doubt(rules: Rules) -> None:
    assert rules.heard(-HOUR, at(0)) == [None]
    assert rules.heard(timedelta(), at(1)) == [NOON + HOUR]
    assert rules.heard(-HOUR, at(2)) == [None]


def test_the_same_clock_twice_is_no_second_witness(rules: Rules) -> None:
    """Swedish meters send the first minute's list six times."""
    for second in (0, 10, 20, 30):
        received = at(0, second)
        assert rules.hour(hourly(received, received, 100.0 + second)) is None
    assert rules.hour(hourly(at(1, 0), at(1, 0), 200.0)) == NOON + HOUR


def test_a_clock_off_by_hours_that_no_rule_reads_starts_none(rules: Rules) -> None:
    assert rules.heard(HOUR, *map(at, range(4))) == [None] * 4


def test_a_wrong_clock_gives_the_nearest_hour(rules: Rules, caplog: pytest.LogCaptureFixture) -> None:
    years = datetime(2000, 1, 1, tzinfo=UTC) - NOON
    near, far = timedelta(minutes=4), timedelta(minutes=6)
    assert rules.heard(years - near, at(1) + near, at(2) + near) == [NOON + HOUR, NOON + 2 * HOUR]
    assert "-821793840 s" in caplog.text
    assert "2026-01-15 13:00 UTC" in caplog.text
    assert Rules().heard(years - far, at(1) + far, at(2) + far) == [None, None]
    assert Rules().heard(years + near, at(1) - near, at(2) - near) == [NOON + HOUR, NOON + 2 * HOUR]


def test_a_stuck_clock_with_new_registers_is_wrong_not_repeated(rules: Rules) -> None:
    stuck = datetime(2000, 1, 1, tzinfo=UTC)
    found = [rules.hour(hourly(at(hour), stuck, 100.0 + hour)) for hour in range(3)]
    assert found == [at(hour, 0) for hour in range(3)]


# Registers every ten seconds


def test_registers_that_come_all_the_time_are_an_hours_only_at_its_beginning(rules: Rules) -> None:
    def named(received: datetime) -> datetime | None:
        return rules.hour(hourly(received, received + HOUR, ms(received)))

    assert [named(at(0, second)) for second in (1500, 1510)] == [None, None]
    rules.restart()  # and the next is heard in the middle of the first minute
    assert [named(at(1, second)) for second in (10, 20, 30)] == [None, None, None]
    assert [named(at(2, second)) for second in (0, 10, 20)] == [NOON + 2 * HOUR, None, None]


def test_only_the_next_list_tells_of_a_late_first_one(rules: Rules) -> None:
    late, early = hourly(at(0, 20), at(1, 20), ms(at(0, 20))), hourly(at(0, 5), at(1, 5), ms(at(0, 5)))
    assert rules.rules.is_unsure(arrival_of(late, OSLO), "A")
    assert not rules.rules.is_unsure(arrival_of(early, OSLO), "A")
    power = Measurement(ObisCode(1, 0, 1, 7, 0), 5.0, "W")
    without = replace(late, measurements=(power,), list_clock=False)
    rules.rules.learn(arrival_of(without, OSLO), "A")  # lists without registers come too, so those with are the hours'
    assert not rules.rules.is_unsure(arrival_of(late, OSLO), "A")


def test_one_extra_list_is_no_habit(rules: Rules) -> None:
    def named(received: datetime) -> datetime | None:
        return rules.hour(hourly(received, received + HOUR, ms(received)))

    assert [named(at(hour)) for hour in (0, 1)] == [NOON, NOON + HOUR]
    assert named(at(1, 21)) is None
    assert [named(at(hour)) for hour in (2, 3)] == [NOON + 2 * HOUR, NOON + 3 * HOUR]


def test_a_repeat_beside_the_right_list_does_not_make_a_meter_swedish(rules: Rules) -> None:
    assert rules.hour(hourly(at(1, 22), at(0, 0) + HOUR, 100.0)) is None
    assert rules.hour(hourly(at(1, 25), at(1, 25) + HOUR, 150.0)) == NOON + HOUR
    assert rules.hour(hourly(at(2, 25), at(2, 25) + HOUR, 170.0)) == NOON + 2 * HOUR


# Without time stamps


def test_the_hour_that_comes_twice_in_a_file_without_time_stamps(rules: Rules) -> None:
    midnight = datetime(2026, 10, 24, 23, tzinfo=UTC)  # 01:00 in Oslo
    found = []
    for number, shown in enumerate((1, 2, 2, 3)):
        clock = datetime(2026, 10, 25, shown, 0, 10, tzinfo=UTC)
        reading = hourly(midnight, clock, 100.0 + number, habit=ClockHabit.CIVIL)
        timeless = Reading(reading.meter, None, reading.measurements, reading.meter_clock, None, reading.habit, True)
        given, starts = rules.rules.register_hour(arrival_of(timeless, OSLO), "A", ms(midnight + HOUR * min(number, 1)))
        found.append((datetime.fromtimestamp(given / 1000, UTC), starts))
    assert found == [(midnight + number * HOUR, True) for number in range(4)]
