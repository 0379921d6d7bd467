"""Readings -> derived points, with kills, restarts and imports between them; limits; exchanged meters."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path
from random import Random

import pytest

from exporter.config import load
from exporter.derive.derivations import backlog_threshold_lines
from exporter.pipeline.pipeline import Pipeline, Purpose
from exporter.simulator.meter import SimulatedMeter
from tests.support.examples import RARE
from tests.support.years import HOUR, HOUR_MS, METER, OSLO, Exporter, Meter, Sent, Written, expected_hours, ms

NOON = datetime(2025, 10, 25, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


# Kills and restarts


HOURS = 40 if RARE else 20  # of which the 14th is the one that the longest night has twice


def some_days(maker: str, random: Random) -> list[Sent]:
    """Hourly lists over the night with an hour twice, other lists between them, and the repeats of Aidon."""
    meter = SimulatedMeter(maker, seed=31, meter_id=METER)
    sent: list[Sent] = []
    for number in range(HOURS):
        start = NOON + number * HOUR
        frames = [
            *meter.frames(start, start + 15 * SECOND),
            *meter.frames(start + 1700 * SECOND, start + 1712 * SECOND),
        ]
        sent += [Sent(frame.complete, frame.data, None) for frame in frames]
        hourly = max(frames, key=lambda frame: len(frame.data))
        if maker == "aidon" and random.random() < 0.2:
            sent.append(Sent(start + HOUR + 8 * SECOND, hourly.data, None))
    return sorted(sent, key=lambda one: one.received)


@pytest.mark.longer
@pytest.mark.parametrize("maker", ["kamstrup", "aidon", "kaifa"])
def test_kills_anywhere_change_no_point(maker: str) -> None:
    """Each list is one transaction, as live. A kill between two of them leaves what was kept."""
    random = Random(maker)
    sent = some_days(maker, random)
    whole = Exporter()
    for one in sent:
        whole.read(one.frame, one.received, keep=True)
    assert len(whole.written.finals()) == HOURS - 1
    for share in (1.0, 0.5, 0.1, 0.02):
        broken = Exporter()
        for one in sent:
            broken.read(one.frame, one.received, keep=True)
            if random.random() < share:
                broken.start()
        assert broken.written.points == whole.written.points


def test_a_kill_before_a_transaction_removes_all_of_it() -> None:
    """A list whose transaction failed leaves neither lines nor state."""
    meter, exporter = Meter("kaifa"), Exporter()
    lists = [meter.hourly(NOON + number * HOUR) for number in range(6)]
    for number, one in enumerate(lists):
        exporter.read(one.frame, one.received, keep=number != 2)
        if number == 2:
            exporter.start()
    known = {one.hour for number, one in enumerate(lists) if number != 2 and one.hour is not None}
    assert exporter.written.finals() == expected_hours(meter, known)
    assert len(exporter.written.finals()) == 3


# Imports in any order, and live in between


def parts_of(meter: Meter, count: int, hours: int) -> list[list[Sent]]:
    lists = [meter.hourly(NOON + number * HOUR) for number in range(hours)]
    size = -(-hours // count)
    return [lists[start : start + size] for start in range(0, hours, size)]


def imported(parts: list[list[Sent]], order: tuple[int, ...], live: set[int]) -> Written:
    """Each part by a process of its own, `import` or `run`, into one InfluxDB and one outbox."""
    state: dict[str, str] = {}
    written = Written()
    for number in order:
        is_live = number in live
        exporter = Exporter(state=state, purpose=Purpose.RUN if is_live else Purpose.IMPORT)
        exporter.written = written
        for one in parts[number]:
            exporter.read(one.frame, one.received, keep=is_live)
        if not is_live:
            kept = {key for key in state if not key.startswith("imported:")}
            exporter.stop()
            assert {key for key in state if not key.startswith("imported:")} == kept, "import keeps only hours"
    return written


def test_imports_and_live_in_any_order_give_the_points_of_one_run() -> None:
    meter = Meter("aidon", seed=12)
    parts = parts_of(meter, 3, 39)
    whole = imported([[one for part in parts for one in part]], (0,), {0})
    assert whole.finals() == expected_hours(meter, [ms(NOON) + number * HOUR_MS for number in range(39)])
    for order in permutations(range(3)):
        for live in (set(), {order[0]}, {order[1]}, {order[2]}):
            assert imported(parts, order, live).points == whole.points
    assert imported(parts, (2, 0, 1, 0, 2, 1), set()).points == whole.points, "a second import changes nothing"


# The list of meters


def days_of(exporter: Exporter, meter_id: str = METER) -> list[tuple[datetime, str]]:
    """Local starts of the days on which the list has the meter, and the fields of its points."""
    kind = "simulated" if meter_id.startswith("SIMULATED-") else "real"
    series = f"meter,meter_id={meter_id},{kind}={meter_id}"
    found = [(at, fields) for (name, at), fields in exporter.written.points.items() if name == series]
    assert len(found) == sum(name.startswith("meter,") for name, _ in exporter.written.points)
    return [(datetime.fromtimestamp(at / 1000, OSLO), fields) for at, fields in sorted(found)]


def test_a_meter_is_listed_once_for_each_local_day() -> None:
    """Also on the day of 25 hours. A restart writes the same again; a day without a reading has no point."""
    meter, exporter = Meter("kaifa"), Exporter()
    for number in (*range(58), *range(90, 96)):
        one = meter.hourly(NOON + number * HOUR)
        if number % 7 == 0:
            exporter.start()
        exporter.read(one.frame, one.received, keep=True)
    listed = days_of(exporter)
    assert [f"{day:%m-%d %H:%M}" for day, _ in listed] == ["10-25 00:00", "10-26 00:00", "10-27 00:00", "10-29 00:00"]
    assert {fields for _, fields in listed} == {'value=1.0,timezone="Europe/Oslo"'}


def test_the_order_of_readings_does_not_change_the_days_of_a_meter() -> None:
    meter = Meter("kaifa")
    lists = [meter.hourly(NOON + number * HOUR) for number in range(60)]
    listed = []
    for order in (lists, lists[::-1], lists[30:] + lists[:30]):
        exporter = Exporter()
        for one in order:
            exporter.read(one.frame, one.received, keep=True)
        listed.append(days_of(exporter))
    assert listed[0] == listed[1] == listed[2]


def test_a_simulated_meter_is_marked_and_days_are_those_of_the_time_zone() -> None:
    name = SimulatedMeter("kaifa").id
    exporter = Exporter(load({"timezone": "Europe/Helsinki"}))
    one = Meter("kamstrup", meter_id=name).hourly(NOON)
    exporter.read(one.frame, one.received, keep=True)
    ((day, fields),) = days_of(exporter, name)
    assert (f"{day:%m-%d %H:%M}", fields) == ("10-24 23:00", 'value=1.0,timezone="Europe/Helsinki"')


# Another meter on the source


def test_a_new_meter_is_reported_and_no_hour_is_between_the_two(caplog: pytest.LogCaptureFixture) -> None:
    old, new = Meter("kamstrup", seed=1), Meter("kamstrup", seed=2, meter_id="6970631400000000")
    lists = [old.hourly(NOON + number * HOUR) for number in range(4)]
    lists += [new.hourly(NOON + number * HOUR) for number in range(4, 8)]
    for restart in range(9):
        caplog.clear()
        exporter = Exporter()
        with caplog.at_level(logging.WARNING):
            for number, one in enumerate(lists):
                if number == restart:
                    exporter.start()
                exporter.read(one.frame, one.received, keep=True)
        for meter, hours in ((old, range(4)), (new, range(4, 8))):
            known = [ms(NOON) + number * HOUR_MS for number in hours]
            assert exporter.written.finals(meter_id=meter.meter_id) == expected_hours(meter, known)
            listed = exporter.written.values("active_energy", "direction=import", f"meter_id={meter.meter_id}")
            assert listed == {hour: meter.registers(hour)[0] for hour in known}, "it is written as sent"
        warned = [record for record in caplog.records if new.meter_id in record.getMessage()]
        assert len(warned) == (restart != 4)


def test_a_register_that_was_set_back_is_written_as_sent_and_gives_no_hour(caplog: pytest.LogCaptureFixture) -> None:
    before, after = Meter("kaifa", seed=1), Meter("kaifa", seed=2)
    back = ms(NOON + 3 * HOUR)
    base = after.house.registers(NOON + 3 * HOUR).active_import
    house = after.house.registers

    class SetBack:
        def registers(self, moment: datetime) -> object:
            now = house(moment)
            return now._replace(active_import=now.active_import - base)

    after.house = SetBack()  # type: ignore[assignment]
    lists = [(before if number < 3 else after).hourly(NOON + number * HOUR) for number in range(6)]
    exporter = Exporter()
    with caplog.at_level(logging.WARNING):
        for number, one in enumerate(lists):
            exporter.read(one.frame, one.received, keep=True)
            if number > 0:  # now it is known that registers are sent once an hour
                exporter.start()
    listed = exporter.written.values("active_energy", "direction=import")
    assert listed == {one.hour: (before if n < 3 else after).registers(one.hour or 0)[0] for n, one in enumerate(lists)}
    assert listed[back] == 0.0
    truth = expected_hours(before, [ms(NOON) + n * HOUR_MS for n in range(3)])
    truth |= expected_hours(after, [ms(NOON) + n * HOUR_MS for n in (4, 5)])
    assert exporter.written.finals() == truth
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert " to 0 Wh" in warning.getMessage()


# Limits


def thresholds(pipeline: Pipeline, now_ms: int) -> dict[tuple[str, str, str], float]:
    """The limits that are written at a moment: meter, quantity, bound -> value."""
    found = {}
    for line in pipeline.now(now_ms):
        series, fields, time = line.split(" ")
        if series.startswith("threshold,"):
            assert int(time) == now_ms
            tags = dict(tag.split("=") for tag in series.split(",")[1:])
            found[tags.get("meter_id", ""), tags["quantity"], tags["bound"]] = float(fields.removeprefix("value="))
    return found


DEFAULTS = {
    ("fuse_load", "max"): 100.0,
    ("fuse_load", "warn"): 90.0,
    ("current", "max"): 40.0,
    ("current", "warn"): 36.0,
    ("active_power", "max"): 10_000.0,
    ("hour_energy", "max"): 5_000.0,
    ("phase_unbalance", "max"): 40.0,
    ("phase_unbalance", "from"): 50.0,
    ("voltage", "min"): 207.0,
    ("voltage", "max"): 253.0,
    ("reading_age", "max"): 300.0,
}


def test_limits_are_written_at_the_first_reading_and_every_five_minutes() -> None:
    exporter = Exporter()
    start = ms(NOON)
    assert thresholds(exporter.pipeline, start) == {}, "there was no reading"
    one = Meter("kamstrup").hourly(NOON)
    exporter.read(one.frame, one.received)
    wanted = {(METER, quantity, bound): value for (quantity, bound), value in DEFAULTS.items()}
    listed = {second: thresholds(exporter.pipeline, start + 1000 * second) for second in range(0, 901, 10)}
    assert {second for second, lines in listed.items() if lines} == {0, 300, 600, 900}
    assert all(lines == wanted for lines in listed.values() if lines)


def test_limits_are_still_written_after_the_computers_clock_is_set() -> None:
    exporter = Exporter()
    one = Meter("kamstrup").hourly(NOON)
    exporter.read(one.frame, one.received)
    start = ms(NOON)
    moments = [
        start,
        start - 10 * HOUR_MS,
        start - 10 * HOUR_MS + 10_000,
        start + 10 * HOUR_MS,
        start + 10 * HOUR_MS + 1,
    ]
    assert [bool(thresholds(exporter.pipeline, at)) for at in moments] == [True, True, False, True, False]


def test_limits_of_a_meter_in_han_toml_and_after_a_change_of_settings(tmp_path: Path) -> None:
    file = tmp_path / "han.toml"
    file.write_text(f'main_fuse_a = 63\n[meter."{METER}"]\nmain_fuse_a = 25\nlimit_hour_wh = 10000\n')
    other = "6970631400000000"
    exporter = Exporter(load({}, file))
    for meter in (Meter("kamstrup"), Meter("kamstrup", meter_id=other)):
        one = meter.hourly(NOON)
        exporter.read(one.frame, one.received, keep=True)
    listed = thresholds(exporter.pipeline, ms(NOON))
    assert len(listed) == 2 * len(DEFAULTS)
    assert (listed[METER, "current", "max"], listed[other, "current", "max"]) == (25.0, 63.0)
    assert (listed[METER, "current", "warn"], listed[other, "current", "warn"]) == (22.5, 56.7)
    assert (listed[METER, "hour_energy", "max"], listed[other, "hour_energy", "max"]) == (10_000.0, 5_000.0)
    file.write_text("limit_silence_s = 60\n")  # after a restart, they are written at the next reading
    exporter.settings = load({}, file)
    exporter.start()
    one = Meter("kamstrup").hourly(NOON + HOUR)
    exporter.read(one.frame, one.received)
    again = thresholds(exporter.pipeline, ms(NOON) + 1)
    assert again == {(METER, *name): value for name, value in (DEFAULTS | {("reading_age", "max"): 60.0}).items()}


def test_the_exporters_own_limit() -> None:
    (line,) = backlog_threshold_lines(load({"limit_backlog_s": "60"}), 5)
    assert line == "threshold,bound=max,quantity=backlog_age value=60.0 5"
