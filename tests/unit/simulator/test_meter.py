"""Schedules, clocks and forms of the simulated meters."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from exporter.meters import interpret
from exporter.model.reading import MeterClock, Reading
from exporter.protocol.apdu import decode
from exporter.protocol.hdlc import Deframer, Frame
from exporter.simulator.household import Household
from exporter.simulator.meter import List, SimulatedMeter
from exporter.simulator.serve import feed

OSLO = ZoneInfo("Europe/Oslo")
HOUR = datetime(2026, 11, 22, 17, 0, tzinfo=UTC)
MAKERS = ["kamstrup", "aidon", "kaifa"]


def reading(data: bytes) -> Reading:
    (frame,) = Deframer().feed(data)
    assert isinstance(frame, Frame)
    return interpret(decode(frame.content))


def values(data: bytes) -> dict[str, float]:
    return {str(m.obis).partition(":")[2]: m.value for m in reading(data).measurements}


def began(complete: datetime, data: bytes) -> float:
    """Second of the hour at which the first byte of the frame is sent."""
    return round((complete - HOUR).total_seconds() - len(data) * 10 / 2400, 3)


def hourly(meter: SimulatedMeter, hour: datetime) -> Reading:
    (frame,) = meter.frames(hour, hour + timedelta(minutes=1), frozenset({List.HOURLY}))
    return reading(frame.data)


@pytest.mark.parametrize(
    ("kind", "fast", "ten", "hour"),
    [
        ("kamstrup", [], [0, 10, 20], 5),
        ("aidon", [2.5, 5, 7.5, 12.5, 15, 17.5, 22.5], [0, 20], 10),
        ("kaifa", [2, 4, 6, 8, 12, 14, 16, 18, 22, 24], [0, 20], 10),
    ],
)
def test_lists_come_at_their_seconds(kind: str, fast: list[float], ten: list[float], hour: float) -> None:
    found: dict[str, list[float]] = {"fast": [], "ten": [], "hourly": []}
    for complete, data in SimulatedMeter(kind).frames(HOUR, HOUR + timedelta(seconds=24.9)):
        names = values(data)
        which = "hourly" if "1.8.0" in names else "ten" if "31.7.0" in names else "fast"
        found[which].append(began(complete, data))
    assert found == {"fast": fast, "ten": ten, "hourly": [hour]}


@pytest.mark.parametrize("kind", MAKERS)
def test_frames_of_two_spans_are_those_of_both(kind: str) -> None:
    meter, end = SimulatedMeter(kind), HOUR + timedelta(seconds=60)
    whole = list(meter.frames(HOUR, end))
    assert whole == sorted(whole)
    for n in (1, 17, 33, 59):
        cut = whole[n % len(whole)].complete  # at the end of a frame, and between two
        for at in (cut, cut + timedelta(milliseconds=1)):
            assert [*meter.frames(HOUR, at), *meter.frames(at, end)] == whole


@pytest.mark.parametrize("kind", MAKERS)
def test_no_frame_begins_before_the_last_has_ended(kind: str) -> None:
    end = HOUR
    for complete, data in SimulatedMeter(kind).frames(HOUR, HOUR + timedelta(minutes=2)):
        assert complete - timedelta(seconds=len(data) * 10 / 2400) >= end
        end = complete


@pytest.mark.parametrize("kind", MAKERS)
def test_hourly_registers_are_those_of_the_full_hour(kind: str) -> None:
    house = Household(1, 3, "TN", OSLO)
    measured = {str(m.obis)[4:]: m.value for m in hourly(SimulatedMeter(kind), HOUR).measurements}
    exact = house.registers(HOUR)
    step = 1 if kind == "kaifa" else 10
    for n, register in enumerate(exact, 1):
        assert measured[f"{n}.8.0"] == register // step * step


def clock(kind: str, hour: datetime) -> MeterClock:
    found = hourly(SimulatedMeter(kind), hour).meter_clock
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("hour", "standard", "civil"),
    [
        ("2026-03-29T00:00", (2026, 3, 29, 1), (2026, 3, 29, 1)),
        ("2026-03-29T01:00", (2026, 3, 29, 2), (2026, 3, 29, 3)),  # summer time begins
        ("2026-07-31T22:00", (2026, 7, 31, 23), (2026, 8, 1, 0)),
        ("2026-10-25T00:00", (2026, 10, 25, 1), (2026, 10, 25, 2)),
        ("2026-10-25T01:00", (2026, 10, 25, 2), (2026, 10, 25, 2)),  # winter time begins: 02 again
        ("2026-10-25T02:00", (2026, 10, 25, 3), (2026, 10, 25, 3)),
    ],
)
def test_clocks_by_each_makers_habit(
    hour: str, standard: tuple[int, int, int, int], civil: tuple[int, int, int, int]
) -> None:
    at = datetime.fromisoformat(hour).replace(tzinfo=UTC)
    for kind, expected, seconds, deviation in (
        ("kamstrup", standard, 5, None),
        ("aidon", standard, 0, 0),
        ("kaifa", civil, 10, None),
    ):
        found = clock(kind, at)
        assert (found.year, found.month, found.day, found.hour) == expected
        assert (found.minute, found.second, found.deviation, found.status) == (0, seconds, deviation, 0)


def test_sunday_is_0_for_aidon_and_7_for_the_others() -> None:
    assert [clock(kind, HOUR).weekday for kind in MAKERS] == [7, 0, 7]
    assert [clock(kind, HOUR + timedelta(days=1)).weekday for kind in MAKERS] == [1, 1, 1]


@pytest.mark.parametrize(
    ("kind", "types", "absent_on_it"),
    [
        ("kamstrup", ["6861111BN242101040", "6841121BN243101040", "6841121BN243101040"], {"51.7.0"}),
        ("aidon", ["6515", "6534", "6525"], {"51.7.0"}),
        ("kaifa", ["MA105H2E", "MA304H4", "MA304H3E"], {"51.7.0", "52.7.0"}),
    ],
)
def test_what_each_meter_measures(kind: str, types: list[str], absent_on_it: set[str]) -> None:
    three = {f"{c}.7.0" for c in (1, 2, 3, 4, 31, 51, 71, 32, 52, 72)}
    one = three - {"51.7.0", "71.7.0", "52.7.0", "72.7.0"}
    for (phases, net), meter_type, expected in zip(
        [(1, "TN"), (3, "TN"), (3, "IT")], types, [one, three, three - absent_on_it], strict=True
    ):
        meter = SimulatedMeter(kind, phases, net, seed=7)
        ten = next(meter.frames(HOUR, None, frozenset({List.TEN_SECONDS})))
        found = reading(ten.data)
        assert set(values(ten.data)) == expected
        assert (found.meter.id, found.meter.type) == (f"SIMULATED-{kind.upper()}-7", meter_type)
        assert len(hourly(meter, HOUR).measurements) == len(expected) + 4


def test_names_and_arguments() -> None:
    assert SimulatedMeter("aidon", meter_id="SIMULATED-X").id == "SIMULATED-X"
    for wrong in (("landis", 3, "TN"), ("aidon", 2, "TN"), ("aidon", 3, "TT")):
        with pytest.raises(ValueError, match="no such meter"):
            SimulatedMeter(*wrong)


@pytest.mark.parametrize(
    "kind", ["kamstrup", *(pytest.param(kind, marks=pytest.mark.rare) for kind in ("aidon", "kaifa"))]
)
def test_backfill_is_two_months_of_hours_and_two_days_of_ten_seconds(kind: str) -> None:
    meter, complete = SimulatedMeter(kind), []
    for frame in meter.backfill(HOUR):
        if frame.complete > HOUR:
            break
        complete.append(frame.complete)
    assert complete == sorted(set(complete))
    first = datetime(2026, 10, 1, tzinfo=OSLO).astimezone(UTC)
    assert timedelta() < complete[0] - first < timedelta(seconds=15)
    hours = [at for at in complete if at < HOUR - timedelta(days=2)]
    assert len(hours) == (HOUR - timedelta(days=2) - first) / timedelta(hours=1)
    assert len(complete) - len(hours) == 48 * 360 + (48 if kind == "kamstrup" else 0)


@pytest.mark.parametrize("days", [100, pytest.param(365, marks=pytest.mark.rare)])
def test_a_year_of_hours_has_one_list_each(days: int) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    frames = SimulatedMeter("aidon").frames(start, start + timedelta(days=days), frozenset({List.HOURLY}))
    assert sum(1 for _ in frames) == 24 * days


class Waiting(threading.Event):
    """An event that does not wait: it moves the time that `feed` sees."""

    def __init__(self, give_up_after: float = 1e9) -> None:
        super().__init__()
        self.now, self.give_up_after = 0.0, give_up_after

    def wait(self, timeout: float | None = None) -> bool:
        self.now += timeout or 0
        return self.now > self.give_up_after


def test_feed_has_the_pace_of_the_wire() -> None:
    stop = Waiting()
    frames = [frame.data for frame in SimulatedMeter("aidon").frames(HOUR, HOUR + timedelta(seconds=20))]
    reader, writer = os.pipe()
    try:
        assert feed(writer, frames, 240, stop, lambda: stop.now) == sum(map(len, frames))
        assert os.read(reader, 1 << 16) == b"".join(frames)
        assert stop.now == pytest.approx(sum(map(len, frames)) / 240, abs=0.1)
    finally:
        os.close(reader)
        os.close(writer)


def test_feed_stops_when_stop_is_set() -> None:
    stop = Waiting(give_up_after=1.0)
    reader, writer = os.pipe()
    try:
        assert 230 <= feed(writer, [b"\x7e" * 1000], 240, stop, lambda: stop.now) <= 260
    finally:
        os.close(reader)
        os.close(writer)
