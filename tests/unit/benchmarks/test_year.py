"""The benchmark's year is what `run` writes: its lines are compared with those of the simulated meter's frames."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from exporter.config import Settings
from exporter.derive import points
from exporter.derive.derivations import Derivations
from exporter.derive.values import Values
from exporter.model.calendar import from_ms, to_ms
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.pipeline import NoState, Pipeline
from exporter.simulator.meter import OSLO, SimulatedMeter
from exporter.sources.contract import Chunk
from tests.benchmarks.year import HOURLY_MS, LIST_SIZES, Readings, RunningHour, Year

SETTINGS = Settings(main_fuse_a=32)
START = datetime(2026, 3, 28, 22, 30, tzinfo=UTC)  # half an hour before a local midnight
HOURS = 3.5


def in_ms(hours: float) -> int:
    return to_ms(START + timedelta(hours=hours))


def of_frames(hours: float) -> tuple[list[str], list[str]]:
    """The lines of readings, and of the running hour, from frames through the pipeline."""
    readings = Readings(1, OSLO)
    now = [0.0]
    clock = HostClock(lambda: START, lambda: now[0])
    pipeline = Pipeline("kamstrup", SETTINGS, NoState(), clock)
    lines: list[str] = []
    running: list[str] = []
    for frame in SimulatedMeter("kamstrup").frames(START - timedelta(seconds=5), START + timedelta(hours=hours)):
        hourly = len(frame.data) == LIST_SIZES[True]
        sent = round(frame.complete.timestamp() * 1000 - len(frame.data) * 10 / 2.4)
        received = readings.received(sent, hourly=hourly)
        now[0] = to_ms(received) / 1000
        fed = pipeline.feed((Chunk(frame.data, received),))
        assert not fed.outcomes
        lines += [line for row in fed.rows for line in row.body.decode().split("\n")]
        now[0] = to_ms(received) / 1000 + 2.0004
        running += [line for line in pipeline.now(to_ms(received) + 2000) if not line.startswith("threshold")]
    return lines, running


def test_frames_are_as_long_as_the_benchmark_says() -> None:
    frames = SimulatedMeter("kamstrup").frames(START, START + timedelta(hours=1))
    assert {len(frame.data) for frame in frames} == set(LIST_SIZES.values())


def test_readings_and_running_hours_are_those_of_the_simulated_meters_frames() -> None:
    lines, running = of_frames(HOURS)
    readings = Readings(1, OSLO)
    state: dict[str, str] = {}
    derivations, hour = Derivations(SETTINGS, state.get), RunningHour("SIMULATED-KAMSTRUP-1", OSLO)
    mine: list[str] = []
    my_running: list[str] = []
    for placed in readings.between(in_ms(0), in_ms(HOURS)):
        values = Values.of(placed)
        assert values is not None
        mine += [*points.lines(placed), *derivations.of(values), *derivations.sums()]
        hour.take(placed)
        assert placed.time is not None
        my_running += hour.lines(placed.time + 2000)
    assert len(mine) > 1000 and sum("kind=final" in line for line in mine) == 2 * 2
    assert sorted(mine) == sorted(lines)
    assert sorted(my_running) == sorted(running)


def test_it_has_every_measurement_that_run_writes_for_a_meter_that_sends_no_frequency() -> None:
    found = {line.partition(",")[0] for lines in Year(SETTINGS, 1, in_ms(0), in_ms(2.6)).lines() for line in lines}
    assert found == {
        *("active_power", "reactive_power", "current", "voltage", "active_energy", "reactive_energy"),
        *("power_factor", "phase_unbalance", "fuse_load", "hour_energy", "day_energy", "month_energy"),
        *("capacity", "capacity_step", "threshold", "meter", "meter_clock_offset", "reading_age", "exporter", "event"),
    }


def test_it_is_the_same_each_time_and_ends_at_the_given_time() -> None:
    def made(seed: int) -> list[str]:
        return [line for lines in Year(SETTINGS, seed, in_ms(0), in_ms(0.1)).lines() for line in lines]

    assert made(1) == made(1) != made(2)
    times = [int(line.rpartition(" ")[2]) for line in made(1) if not line.startswith("meter,")]
    assert in_ms(0) <= min(times) < in_ms(0) + 2000
    assert in_ms(0.1) - 12_000 < max(times) < in_ms(0.1)


def test_no_two_readings_have_the_same_time() -> None:
    placed = list(Readings(1, OSLO).between(in_ms(0.5), in_ms(0.5) + 30_000))
    assert [one.is_hour for one in placed] == [False, True, False, False]
    times = [one.time for one in placed if one.time is not None]
    assert times == sorted(set(times))
    assert from_ms(in_ms(0.5) + HOURLY_MS) < from_ms(times[1])
