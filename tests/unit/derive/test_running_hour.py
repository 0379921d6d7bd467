"""The running hour of simulated meters, as `run` tells it every 10 s, against the registers at the end of the hour.

(The state machine by hand is in test_watch.py; the projection's own law in test_derived.py.)
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
class Told:
    """What was said at a moment: so_far and projected by direction."""

    at: datetime
    so_far: dict[str, float] = field(default_factory=dict)
    projected: dict[str, float] = field(default_factory=dict)
    capacity: float | None = None


class Running:
    """An exporter that hears a meter and is asked every 10 s, by clocks that the test turns."""

    def __init__(self) -> None:
        self.now = NOON
        self.exporter = Exporter(monotonic=self._monotonic)
        self.told: list[Told] = []

    def _monotonic(self) -> float:
        return self.now.timestamp()

    def hear(self, frames: Iterator[tuple[datetime, bytes]], until: datetime) -> None:
        """Hear all that comes, and tell every 10 s."""
        asked = self.now
        for received, octets in frames:
            while asked + TICK <= received:
                asked += TICK
                self._ask(asked)
            self.now = received
            self.exporter.hear(octets, received, keep=True)
        while asked + TICK < until:
            asked += TICK
            self._ask(asked)
        self.now = until

    def _ask(self, at: datetime) -> None:
        self.now = at
        told = Told(at)
        for line in self.exporter.pipeline.now(ms(at)):
            series, fields, time = line.rsplit(" ", 2)
            if series.startswith(("hour_energy,", "capacity,")):
                assert abs(int(time) - ms(at)) <= 1, "stamped now"
                value = float(fields.removeprefix("value="))
                direction = "import" if "direction=import" in series else "export"
                if series.startswith("capacity,"):
                    told.capacity = value
                elif "kind=so_far" in series:
                    told.so_far[direction] = value
                else:
                    assert "kind=projected" in series
                    told.projected[direction] = value
        self.told.append(told)

    def between(self, start: datetime, end: datetime) -> list[Told]:
        return [told for told in self.told if start <= told.at < end]


def frames(maker: str, start: datetime, end: datetime, *, solar: bool = False) -> Iterator[tuple[datetime, bytes]]:
    for frame in SimulatedMeter(maker, seed=21, meter_id=METER, solar=solar).frames(start, end):
        yield frame.complete, frame.data


def truth(at: datetime, *, solar: bool = False) -> tuple[float, float]:
    """Import and export of the hour from noon up to a moment, Wh, to a fraction."""
    house = household(21, solar)
    now, then = house.energies(at), house.energies(at.replace(hour=12, minute=0, second=0, microsecond=0))
    return (now[0] - then[0]) / 3600, (now[1] - then[1]) / 3600


@pytest.mark.parametrize("maker", MAKERS)
def test_at_the_end_of_the_hour_it_is_what_the_registers_will_say(maker: str) -> None:
    """A power is known some seconds late, so at a change of 3 kW some Wh are: never more than 1 % here."""
    running = Running()
    running.hear(frames(maker, NOON - 2 * MINUTE, NOON + HOUR), NOON + HOUR)
    told = running.between(NOON + MINUTE, NOON + HOUR)
    assert len(told) == 354 and all(one.so_far and one.projected for one in told)
    for one in told:
        assert one.so_far["import"] == pytest.approx(truth(one.at)[0], rel=0.01, abs=12)
        left = NOON + HOUR - one.at
        power = (one.projected["import"] - one.so_far["import"]) * (HOUR / left) if left else 0.0
        assert 0 <= power <= 20_000, "so far, and the power for the time that is left"
    last = told[-1]
    assert last.so_far["import"] == pytest.approx(truth(NOON + HOUR)[0], rel=0.01, abs=12)
    assert last.projected["import"] == pytest.approx(truth(NOON + HOUR)[0], rel=0.01, abs=12)
    assert last.capacity == last.projected["import"], "the only hour of the month"


def test_the_sun_is_exported() -> None:
    summer, running = NOON.replace(month=6), Running()
    running.now = summer
    running.hear(frames("kaifa", summer - 2 * MINUTE, summer + HOUR, solar=True), summer + HOUR)
    last = running.between(summer + 59 * MINUTE, summer + HOUR)[-1]
    imported, exported = truth(summer + HOUR, solar=True)
    assert exported > 100
    assert last.so_far["export"] == pytest.approx(exported, rel=0.02, abs=12)
    assert last.so_far["import"] == pytest.approx(imported, rel=0.02, abs=12)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("kill", [False, True])
def test_right_after_a_restart_the_hour_goes_on(maker: str, kill: bool) -> None:
    """Two minutes were not heard: a minute of it the last power is believed, then they are unknown, and told so."""
    running = Running()
    down, up = NOON + 20 * MINUTE, NOON + 22 * MINUTE
    running.hear(frames(maker, NOON - MINUTE, down), down)
    if not kill:
        running.exporter.stop()
    running.exporter.start()
    running.now = up
    running.hear(frames(maker, up, NOON + HOUR), NOON + HOUR)
    after = running.between(up + TICK, NOON + HOUR)
    assert all(one.projected for one in after[2:]), "two minutes unknown are no reason to be silent"
    lost = truth(up)[0] - truth(down)[0]
    for one in after[2:]:
        assert truth(one.at)[0] - lost - 30 <= one.so_far["import"] <= truth(one.at)[0] * 1.01 + 30


def test_a_restart_without_any_state_knows_nothing_of_the_hour_before() -> None:
    """An hour that was joined at 12:10 says what came since, and no projection: ten minutes are unknown."""
    running = Running()
    up = NOON + 10 * MINUTE
    running.now = up
    running.hear(frames("kamstrup", up, NOON + HOUR), NOON + HOUR)
    told = running.between(up + 2 * TICK, NOON + HOUR)
    assert not any(one.projected or one.capacity for one in told)
    missed = truth(up)[0]
    assert told[-1].so_far["import"] == pytest.approx(truth(NOON + HOUR)[0] - missed, rel=0.01, abs=12)


@pytest.mark.parametrize(("minutes", "says"), [(5, True), (7, False)])
def test_nothing_is_projected_while_more_than_five_minutes_are_unknown(minutes: int, says: bool) -> None:
    """Of a gap of five minutes one is covered by the last power, of one of seven too: four are unknown, or six."""
    running = Running()
    down = NOON + 20 * MINUTE
    up = down + minutes * MINUTE
    running.hear(frames("aidon", NOON - MINUTE, down), up)
    running.hear(frames("aidon", up, NOON + HOUR + 10 * MINUTE), NOON + HOUR + 10 * MINUTE)
    assert any(one.projected for one in running.between(down, down + 5 * MINUTE))
    after = running.between(up + 2 * TICK, NOON + HOUR)
    assert {bool(one.projected) for one in after} == {says}
    assert all(one.so_far for one in after)
    next_hour = running.between(NOON + HOUR + 2 * TICK, NOON + HOUR + 10 * MINUTE)
    assert all(one.projected for one in next_hour), "the next hour is whole again"


def test_silence_is_told_of_no_longer_than_five_minutes() -> None:
    running = Running()
    running.hear(frames("kaifa", NOON - MINUTE, NOON + 20 * MINUTE), NOON + 50 * MINUTE)
    assert all(one.so_far for one in running.between(NOON + TICK, NOON + 24 * MINUTE))
    silent = running.between(NOON + 26 * MINUTE, NOON + 50 * MINUTE)
    assert silent and not any(one.so_far or one.projected or one.capacity for one in silent)


def test_nothing_is_said_of_an_hour_that_nothing_was_heard_in() -> None:
    running = Running()
    running.hear(frames("kaifa", NOON - MINUTE, NOON + HOUR - TICK), NOON + HOUR + 2 * MINUTE)
    assert running.between(NOON + HOUR - TICK, NOON + HOUR)[0].so_far
    assert not any(one.so_far for one in running.between(NOON + HOUR + TICK, NOON + HOUR + 2 * MINUTE))


def swedish(start: datetime, end: datetime) -> Iterator[tuple[datetime, bytes]]:
    meter = Meter("swedish", seed=21)
    at = start
    while at < end:
        yield at + timedelta(seconds=2), meter.octets(at, at)
        at += TICK


@pytest.mark.parametrize("gap_min", [0, 3, 25])
def test_swedish_registers_make_it_exact_also_after_a_gap(gap_min: int) -> None:
    """What the meter counts is known to the Wh at each list; in between power times time is added."""
    running, meter = Running(), Meter("swedish", seed=21)
    down, up = NOON + 20 * MINUTE, NOON + (20 + gap_min) * MINUTE
    running.hear(swedish(NOON - 2 * MINUTE, down), up)
    if gap_min:
        running.exporter.start()  # killed
    running.hear(swedish(up, NOON + HOUR), NOON + HOUR)
    start = meter.registers(ms(NOON))[0]
    named = up + 70 * timedelta(seconds=1)  # its lists name no meter, and wait a minute for one that does
    for one in running.between(named, NOON + HOUR):
        list_at = (
            one.at - (one.at - NOON) % TICK - (TICK if (one.at - NOON) % TICK < timedelta(seconds=2) else timedelta())
        )
        at_list = int(meter.house.registers(list_at).active_import) - start
        assert 0 <= one.so_far["import"] - at_list <= 20_000 * 10 / 3600
        assert one.projected, "nothing is unknown, for the registers tell what was not heard"
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
