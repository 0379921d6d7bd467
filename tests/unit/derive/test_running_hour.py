"""The running hour of simulated meters, as `run` writes it every 10 s, compared with the registers at its end.

Properties of the projection are in tests/property/test_derived.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from exporter.derive.running_hour import projected
from exporter.simulator.meter import SimulatedMeter
from tests.support.years import HOUR, HOUR_MS, METER, Exporter, Meter, household, ms

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TICK = timedelta(seconds=10)
MAKERS = ("kamstrup", "aidon", "kaifa")


@dataclass
class Hour:
    """What was written at a moment: so_far and projected by direction."""

    at: datetime
    so_far: dict[str, float] = field(default_factory=dict)
    projected: dict[str, float] = field(default_factory=dict)
    capacity: float | None = None


class Running:
    """An exporter that reads a meter and writes the running hour every 10 s, with clocks that the test sets."""

    def __init__(self) -> None:
        self.now = NOON
        self.exporter = Exporter(monotonic=self._monotonic)
        self.written: list[Hour] = []

    def _monotonic(self) -> float:
        return self.now.timestamp()

    def read(self, frames: Iterator[tuple[datetime, bytes]], until: datetime) -> None:
        """Read all frames, and write every 10 s."""
        at = self.now
        for received, frame in frames:
            while at + TICK <= received:
                at += TICK
                self._write(at)
            self.now = received
            self.exporter.read(frame, received, keep=True)
        while at + TICK < until:
            at += TICK
            self._write(at)
        self.now = until

    def _write(self, at: datetime) -> None:
        self.now = at
        hour = Hour(at)
        for line in self.exporter.pipeline.now(ms(at)):
            series, fields, time = line.rsplit(" ", 2)
            if series.startswith(("hour_energy,", "capacity,")):
                assert abs(int(time) - ms(at)) <= 1, "its time is now"
                value = float(fields.removeprefix("value="))
                direction = "import" if "direction=import" in series else "export"
                if series.startswith("capacity,"):
                    hour.capacity = value
                elif "kind=so_far" in series:
                    hour.so_far[direction] = value
                else:
                    assert "kind=projected" in series
                    hour.projected[direction] = value
        self.written.append(hour)

    def between(self, start: datetime, end: datetime) -> list[Hour]:
        return [hour for hour in self.written if start <= hour.at < end]


def frames(maker: str, start: datetime, end: datetime, *, solar: bool = False) -> Iterator[tuple[datetime, bytes]]:
    for frame in SimulatedMeter(maker, seed=21, meter_id=METER, solar=solar).frames(start, end):
        yield frame.complete, frame.data


def truth(at: datetime, *, solar: bool = False) -> tuple[float, float]:
    """Import and export of the hour from noon up to a moment, Wh, to a fraction."""
    house = household(21, solar)
    now, then = house.energies(at), house.energies(at.replace(hour=12, minute=0, second=0, microsecond=0))
    return (now[0] - then[0]) / 3600, (now[1] - then[1]) / 3600


@pytest.mark.parametrize("maker", MAKERS)
def test_at_the_end_of_the_hour_it_is_the_difference_of_the_registers(maker: str) -> None:
    """A power is known some seconds late, so after a change of 3 kW some Wh are wrong: at most 1 % here."""
    running = Running()
    running.read(frames(maker, NOON - 2 * MINUTE, NOON + HOUR), NOON + HOUR)
    found = running.between(NOON + MINUTE, NOON + HOUR)
    assert len(found) == 354 and all(one.so_far and one.projected for one in found)
    for one in found:
        assert one.so_far["import"] == pytest.approx(truth(one.at)[0], rel=0.01, abs=12)
        left = NOON + HOUR - one.at
        power = (one.projected["import"] - one.so_far["import"]) * (HOUR / left) if left else 0.0
        assert 0 <= power <= 20_000, "so far, and the power for the rest of the hour"
    last = found[-1]
    assert last.so_far["import"] == pytest.approx(truth(NOON + HOUR)[0], rel=0.01, abs=12)
    assert last.projected["import"] == pytest.approx(truth(NOON + HOUR)[0], rel=0.01, abs=12)
    assert last.capacity == last.projected["import"], "the only hour of the month"


def test_solar_power_is_exported() -> None:
    summer, running = NOON.replace(month=6), Running()
    running.now = summer
    running.read(frames("kaifa", summer - 2 * MINUTE, summer + HOUR, solar=True), summer + HOUR)
    last = running.between(summer + 59 * MINUTE, summer + HOUR)[-1]
    imported, exported = truth(summer + HOUR, solar=True)
    assert exported > 100
    assert last.so_far["export"] == pytest.approx(exported, rel=0.02, abs=12)
    assert last.so_far["import"] == pytest.approx(imported, rel=0.02, abs=12)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("kill", [False, True])
def test_after_a_restart_the_hour_continues(maker: str, kill: bool) -> None:
    """Of two minutes without readings, the last power is used for one minute; the rest is unknown."""
    running = Running()
    down, up = NOON + 20 * MINUTE, NOON + 22 * MINUTE
    running.read(frames(maker, NOON - MINUTE, down), down)
    if not kill:
        running.exporter.stop()
    running.exporter.start()
    running.now = up
    running.read(frames(maker, up, NOON + HOUR), NOON + HOUR)
    after = running.between(up + TICK, NOON + HOUR)
    assert all(one.projected for one in after[2:]), "two unknown minutes do not stop the projection"
    lost = truth(up)[0] - truth(down)[0]
    for one in after[2:]:
        assert truth(one.at)[0] - lost - 30 <= one.so_far["import"] <= truth(one.at)[0] * 1.01 + 30


def test_without_state_nothing_is_known_from_before_a_restart() -> None:
    """From 12:10 on, the energy since then is written, and no projection: ten minutes are unknown."""
    running = Running()
    up = NOON + 10 * MINUTE
    running.now = up
    running.read(frames("kamstrup", up, NOON + HOUR), NOON + HOUR)
    found = running.between(up + 2 * TICK, NOON + HOUR)
    assert not any(one.projected or one.capacity for one in found)
    missed = truth(up)[0]
    assert found[-1].so_far["import"] == pytest.approx(truth(NOON + HOUR)[0] - missed, rel=0.01, abs=12)


@pytest.mark.parametrize(("minutes", "projects"), [(5, True), (7, False)])
def test_nothing_is_projected_while_more_than_five_minutes_are_unknown(minutes: int, projects: bool) -> None:
    """The last power covers one minute of a gap. So four minutes of five are unknown, and six of seven."""
    running = Running()
    down = NOON + 20 * MINUTE
    up = down + minutes * MINUTE
    running.read(frames("aidon", NOON - MINUTE, down), up)
    running.read(frames("aidon", up, NOON + HOUR + 10 * MINUTE), NOON + HOUR + 10 * MINUTE)
    assert any(one.projected for one in running.between(down, down + 5 * MINUTE))
    after = running.between(up + 2 * TICK, NOON + HOUR)
    assert {bool(one.projected) for one in after} == {projects}
    assert all(one.so_far for one in after)
    next_hour = running.between(NOON + HOUR + 2 * TICK, NOON + HOUR + 10 * MINUTE)
    assert all(one.projected for one in next_hour), "the next hour is complete again"


def test_nothing_is_written_after_five_minutes_without_readings() -> None:
    running = Running()
    running.read(frames("kaifa", NOON - MINUTE, NOON + 20 * MINUTE), NOON + 50 * MINUTE)
    assert all(one.so_far for one in running.between(NOON + TICK, NOON + 24 * MINUTE))
    silent = running.between(NOON + 26 * MINUTE, NOON + 50 * MINUTE)
    assert silent and not any(one.so_far or one.projected or one.capacity for one in silent)


def test_nothing_is_written_for_an_hour_without_readings() -> None:
    running = Running()
    running.read(frames("kaifa", NOON - MINUTE, NOON + HOUR - TICK), NOON + HOUR + 2 * MINUTE)
    assert running.between(NOON + HOUR - TICK, NOON + HOUR)[0].so_far
    assert not any(one.so_far for one in running.between(NOON + HOUR + TICK, NOON + HOUR + 2 * MINUTE))


def swedish(start: datetime, end: datetime) -> Iterator[tuple[datetime, bytes]]:
    meter = Meter("swedish", seed=21)
    at = start
    while at < end:
        yield at + timedelta(seconds=2), meter.frame(at, at)
        at += TICK


@pytest.mark.parametrize("gap_min", [0, 3, 25])
def test_swedish_registers_make_it_exact_even_after_a_gap(gap_min: int) -> None:
    """Each list has the register in Wh. Between two lists, power times time is added."""
    running, meter = Running(), Meter("swedish", seed=21)
    down, up = NOON + 20 * MINUTE, NOON + (20 + gap_min) * MINUTE
    running.read(swedish(NOON - 2 * MINUTE, down), up)
    if gap_min:
        running.exporter.start()  # killed
    running.read(swedish(up, NOON + HOUR), NOON + HOUR)
    start = meter.registers(ms(NOON))[0]
    named = up + 70 * timedelta(seconds=1)  # its lists have no meter id, and wait one minute for a list that has one
    for one in running.between(named, NOON + HOUR):
        list_at = (
            one.at - (one.at - NOON) % TICK - (TICK if (one.at - NOON) % TICK < timedelta(seconds=2) else timedelta())
        )
        at_list = int(meter.house.registers(list_at).active_import) - start
        assert 0 <= one.so_far["import"] - at_list <= 20_000 * 10 / 3600
        assert one.projected, "nothing is unknown, since the registers contain what was not read"
    last = running.between(NOON + 59 * MINUTE, NOON + HOUR)[-1]
    final = meter.registers(ms(NOON) + HOUR_MS)[0] - start
    assert last.so_far["import"] == pytest.approx(final, abs=20_000 * 12 / 3600)
    assert last.projected["import"] == pytest.approx(final, abs=10)


# The projection


def test_projection_by_hand() -> None:
    assert projected(2000, 6000, 20 * 60_000) == pytest.approx(4000)  # 2 kWh and 6 kW for 20 minutes
    assert projected(4321.5, 9000, 0) == 4321.5
    assert projected(4321.5, 9000, -5) == 4321.5


def test_no_projection_while_more_than_five_minutes_are_unknown() -> None:
    assert projected(100, 600, 600_000, unknown_ms=300_000) == pytest.approx(200)
    assert projected(100, 600, 600_000, unknown_ms=300_001) is None
