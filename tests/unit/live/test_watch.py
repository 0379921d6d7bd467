"""What `watch` knows and shows: the state, the hour so far, the screen, the plain lines. No terminal, no waiting."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from exporter.cli.watch import Received, Watching, limits_of
from exporter.config import MeterSettings, Settings
from exporter.derive.running_hour import HourSoFar
from exporter.live.digits import big_number
from exporter.live.state import LiveState
from exporter.live.view import ShownLimits, View, load_style, plain_line, sparkline
from exporter.model.calendar import HOUR_MS, to_ms
from exporter.model.obis import ObisCode, describe
from exporter.model.reading import Measurement, Meter, Placed, Reading
from exporter.pipeline.link import Level, Link
from exporter.protocol.framing import Kind, Rejected
from exporter.simulator.meter import SimulatedMeter
from exporter.sources.contract import Chunk, Happened, Report, SourceEvent

OSLO = ZoneInfo("Europe/Oslo")
HOUR = to_ms(datetime(2026, 11, 22, 16, tzinfo=UTC))  # 17:00 in Oslo
KAMSTRUP = Meter("5706", "Kamstrup", "6841121BN243101040")
FORTY = ShownLimits(40, 207, 253)

P, EXPORT, Q = "1-1:1.7.0", "1-1:2.7.0", "1-1:3.7.0"
I1, I2, I3 = "1-1:31.7.0", "1-1:51.7.0", "1-1:71.7.0"
U1, U2, U3 = "1-1:32.7.0", "1-1:52.7.0", "1-1:72.7.0"
REGISTER, EXPORTED = "1-1:1.8.0", "1-1:2.8.0"
THREE = {P: 4126.0, EXPORT: 0.0, Q: 538.0, I1: 16.21, I2: 7.94, I3: 9.87, U1: 221.0, U2: 223.0, U3: 222.0}


def placed(
    values: dict[str, float],
    time: int | None = HOUR + 10_000,
    *,
    meter: Meter = KAMSTRUP,
    register_time: int | None = None,
    fallback: str = "unknown-x",
    offset: float | None = None,
) -> Placed:
    measurements = []
    for text, value in values.items():
        quantity = describe(ObisCode.parse(text))
        measurements.append(Measurement(ObisCode.parse(text), value, quantity.unit if quantity else ""))
    reading = Reading(meter, "Kamstrup_V0001", tuple(measurements))
    return Placed(reading, meter.id or fallback, time, register_time or time, clock_offset=offset)


class Time:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def live(name: str = "ttyUSB0") -> LiveState:
    return LiveState(Link(name, name, Time(), quiet=True))


def received(state: LiveState, *readings: Placed, at: float = 100.0) -> LiveState:
    """The state after frames with these readings."""
    for reading in readings:
        state.link.hear(228)
        state.link.decoded()
        state.link.read(reading.meter_id)
        state.take(reading, at)
    return state


def screen(
    state: LiveState, width: int = 80, height: int = 24, now: float = 103.0, limits: ShownLimits = FORTY
) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, color_system=None, highlight=False)
    console.print(View(OSLO, lambda _: limits).render(state, width, height, now))
    return out.getvalue().splitlines()


def text(state: LiveState, **how: float) -> str:
    return "\n".join(screen(state, **how))  # type: ignore[arg-type]


# --- the condition of the source


def test_before_the_first_byte_it_shows_what_it_is_waiting_for() -> None:
    assert live().condition(3.0).level is Level.WAITING
    assert any("10 s" in line for line in screen(live()))


def test_a_message_of_the_source_is_shown_until_it_works_again() -> None:
    state = received(live(), placed(THREE))
    state.link.happened(SourceEvent(Happened.LOST, "/dev/ttyUSB0 is gone: unplugged?"))
    assert "unplugged?" in text(state)
    state.link.happened(SourceEvent(Happened.OPENED, "open"))
    state.link.decoded()
    assert "unplugged?" not in text(state)
    assert "reading" not in text(state), "a source that works needs no words"


def test_what_shows_only_with_time_is_shown() -> None:
    state = received(live(), placed(THREE), at=100.0)
    assert "nothing was received" not in text(state, now=125.0)
    assert "31 s" in text(state, now=131.0)


# --- meters


def test_lists_without_a_meter_id_belong_to_the_meter_that_is_named_next() -> None:
    without_id = Meter(None, "Kaifa")
    state = received(live("x"), placed({P: 600.0}, HOUR + 2000, meter=without_id))
    assert list(state.meters) == ["unknown-x"]
    received(state, placed({P: 583.0, I1: 2.6}, HOUR + 4000, meter=Meter("6970", "Kaifa", "MA304")))
    assert list(state.meters) == ["6970"]
    assert state.newest is not None
    assert [power for _, power in state.newest.history] == [600.0, 583.0]


def test_the_newest_meter_is_shown_and_the_others_are_listed() -> None:
    state = received(live("x"), placed(THREE, meter=Meter("A")), placed({P: 5.0}, meter=Meter("B")))
    shown = text(state)
    assert shown.splitlines()[0].startswith(" B ")
    assert "A (4 126 W, 3 s ago)" in shown
    received(state, *(placed(THREE, meter=Meter(f"M{n}")) for n in range(100)))
    assert len(state.meters) <= 8


def test_a_fast_list_with_only_import_ends_the_export_of_the_list_before() -> None:
    state = received(live("x"), placed({P: 0.0, EXPORT: 500.0}), placed({P: 300.0}, HOUR + 12_000))
    assert state.newest is not None
    assert state.newest.net("active_power") == 300.0


def test_only_phases_that_are_measured_are_shown() -> None:
    one = received(live("x"), placed({P: 583.0, I1: 2.6, U1: 231.0}))
    assert one.newest is not None
    assert [phase.phase for phase in one.newest.phases] == ["L1"]
    it = received(live("x"), placed({P: 583.0, I1: 2.6, I3: 1.0, U1: 231.0, U2: 230.0, U3: 231.0}))
    rows = [line for line in screen(it) if line.lstrip().startswith("L")]
    assert ["A" in row.split() for row in rows[:3]] == [True, False, True]
    assert "current not measured" in rows[1]
    assert "230 V" in rows[1]


def test_no_power_at_all_is_reported_and_never_shown_as_0() -> None:
    shown = text(received(live("x"), placed({U1: 230.0})))
    assert "no active power" in shown
    assert "0 W" not in shown.replace("230 W", "")


# --- the hour so far


def hour_of(*readings: tuple[float, float]) -> HourSoFar:
    """From (seconds after HOUR, W)."""
    hour = HourSoFar()
    for seconds, power in readings:
        hour.take(HOUR + round(seconds * 1000), power)
    return hour


def test_the_hour_counts_from_when_listening_started() -> None:
    hour = hour_of((600, 3600.0), (610, 3600.0), (620, 0.0))
    assert hour.energy == pytest.approx(20.0)
    assert hour.since == HOUR + 600_000
    assert not hour.whole


def test_the_hour_s_register_makes_the_hour_whole() -> None:
    hour = hour_of((5, 3600.0))
    hour.take_register(HOUR, 1_000_000.0)
    hour.take(HOUR + 10_000, 7200.0)
    hour.take(HOUR + 20_000, 0.0)
    assert hour.whole
    assert hour.energy == pytest.approx(5 + 5 + 20)


def test_the_next_hour_starts_at_the_full_hour_if_power_was_known_before_and_after_it() -> None:
    hour = hour_of((-10, 3600.0), (10, 0.0))
    assert hour.hour == hour.since == HOUR
    assert hour.energy == pytest.approx(10.0)
    late = hour_of((-200, 3600.0), (10, 0.0))
    assert (late.since, late.energy) == (HOUR + 10_000, 0.0)


def test_a_gap_is_not_filled_with_an_old_power_but_shown() -> None:
    hour = hour_of((0, 3600.0), (600, 3600.0), (610, 0.0))
    assert hour.energy == pytest.approx(60 + 10)
    assert hour.unheard == 540_000
    state = live("x")
    received(state, *(placed({P: 3600.0}, HOUR + s * 1000) for s in (0, 600, 610)))
    assert "0.070 kWh so far, 9 min missing" in text(state)


def test_registers_in_every_list_fill_gaps_and_replace_the_estimate() -> None:
    hour = hour_of((0.9, 1000.0))
    hour.take_register(HOUR, 5000.0)
    hour.take(HOUR + 600_000, 1000.0)
    hour.take_register(HOUR + 600_000, 5321.0)
    assert (hour.energy, hour.unheard, hour.whole) == (321.0, 0, True)


def test_a_register_that_was_reset_or_is_of_an_old_hour_is_ignored() -> None:
    hour = hour_of((10, 3600.0), (20, 3600.0))
    hour.take_register(HOUR + 20_000, 999_999.0)
    hour.take_register(HOUR + 20_000, 3.0)
    hour.take_register(HOUR - HOUR_MS, 1.0)
    assert hour.energy == pytest.approx(10.0)


@given(st.lists(st.integers(1, 50), min_size=2, max_size=200), st.integers(0, HOUR_MS - 1))
def test_constant_power_is_power_times_time(steps: list[int], start: int) -> None:
    hour, time = HourSoFar(), HOUR + start
    for step in steps:
        hour.take(time, 3600.0)
        time += step * 1000
    last = time - steps[-1] * 1000
    assert hour.hour == last - last % HOUR_MS
    assert hour.energy == pytest.approx((last - hour.since) / 1000)


@given(st.lists(st.tuples(st.integers(-(10**9), 10**9), st.none() | st.floats(0, 1e6), st.none() | st.floats(0, 1e9))))
def test_the_hour_stays_within_bounds_for_any_order_of_times(
    readings: list[tuple[int, float | None, float | None]],
) -> None:
    hour = HourSoFar()
    for time, power, register in readings:
        hour.take(HOUR + time, power)
        if register is not None:
            hour.take_register(HOUR + time, register)
        assert hour.energy >= 0
        assert hour.hour is not None
        assert 0 <= hour.since - hour.hour < HOUR_MS
        assert 0 <= hour.unheard <= HOUR_MS


# --- the screen


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 24), (40, 12), (120, 50), (20, 5)])
def test_no_line_is_wider_than_the_terminal_and_24_lines_are_enough(width: int, height: int) -> None:
    times = range(HOUR, HOUR + 700_000, 10_000)
    state = received(live(), *(placed(THREE, time, offset=-75.0) for time in times))
    for _ in range(2):
        state.link.rejected(Rejected(400, 30, Kind.FCS, "FCS 3A1B, calculated 7C22 " * 4))
    lines = screen(state, max(width, 40), height)
    assert all(len(line) <= max(width, 40) for line in lines)
    assert len(lines) <= 24
    assert height > 20 or len(lines) <= 12


def test_the_screen_shows_what_a_user_wants_to_know() -> None:
    state = received(live(), placed(THREE, offset=-75.0))
    shown = text(state)
    for shown_text in (
        "5706",
        "2026-11-22 17:00:10",
        "Kamstrup 6841121BN243101040, on ttyUSB0",
        "3 s ago",
        "W import",
        "538 var import (reactive)",
        "Main fuse 40 A",
        "16.2 A   41 %    221 V",
        "Hour 17:00-18:00",
        "since 17:00",
        "1 frame, 0 rejects, meter clock 75 s behind",
    ):
        assert shown_text in shown
    assert all(row in shown for row in big_number("4 126"))


def test_export_is_shown_as_export() -> None:
    state = received(live("x"), placed({P: 0.0, EXPORT: 1234.0}), placed({P: 0.0, EXPORT: 1234.0}, HOUR + 20_000))
    shown = text(state)
    assert "W export" in shown
    assert all(row in shown for row in big_number("1 234"))
    assert "kWh exported" in shown
    assert "export green" in shown


def test_a_fuse_that_is_not_set_is_shown_as_assumed() -> None:
    state = received(live("x"), placed(THREE))
    assert any(
        "assumed: set HAN_MAIN_FUSE_A" in line for line in screen(state, limits=replace(FORTY, fuse_is_set=False))
    )


def test_the_fuse_is_the_meter_s_own_else_the_setting_else_the_default() -> None:
    settings = Settings(main_fuse_a=25, meter={"5706": MeterSettings(main_fuse_a=63)})
    assert limits_of(settings, "5706") == replace(FORTY, main_fuse_a=63)
    assert limits_of(settings, "other") == replace(FORTY, main_fuse_a=25)
    assert limits_of(Settings(), "other") == replace(FORTY, fuse_is_set=False)


def voltages_in_red(settings: Settings, meter_id: str) -> set[str]:
    state = received(live("x"), placed({U1: 214.0, U2: 230.0, U3: 246.0}, meter=Meter(meter_id)))
    shown = View(OSLO, lambda one: limits_of(settings, one)).render(state, 80, 24, 103.0)
    lines = [line for line in shown.renderables if isinstance(line, Text)]
    red = [line.plain[span.start : span.end] for line in lines for span in line.spans if "red" in str(span.style)]
    return {text.strip() for text in red if text.endswith(" V")}


def test_a_voltage_is_red_outside_the_limits_of_the_settings() -> None:
    settings = Settings(voltage_min=215, meter={"5706": MeterSettings(voltage_min=200, voltage_max=245)})
    assert voltages_in_red(Settings(), "other") == set()
    assert voltages_in_red(settings, "other") == {"214 V"}
    assert voltages_in_red(settings, "5706") == {"246 V"}
    assert voltages_in_red(Settings(voltage_min=214, voltage_max=246), "other") == set()


def test_a_load_is_green_yellow_or_red_and_marked_above_the_fuse() -> None:
    assert [load_style(percent) for percent in (79.9, 80, 89.9, 90, 130)] == ["green", "yellow", "yellow", "red", "red"]
    rows = [
        line for line in screen(received(live("x"), placed(THREE)), limits=replace(FORTY, main_fuse_a=9)) if "%" in line
    ]
    assert ["!" in row for row in rows] == [True, False, True]


def test_nothing_that_a_meter_sends_is_interpreted_as_markup() -> None:
    state = received(live("x"), placed(THREE, meter=Meter("[red]x[/]", "K", "[bold]")))
    assert "[red]x[/]" in text(state)


def test_sparkline() -> None:
    assert sparkline([None, 0.0, 50.0, -100.0], 1) == [" ▁▄█"]
    assert sparkline([100.0, 50.0, 75.0], 2) == ["█ ▄", "███"]
    assert sparkline([0.0, 0.0], 1) == ["▁▁"]


def test_the_last_minutes_show_a_gap_where_nothing_was_received() -> None:
    state = received(live("x"), *(placed({P: 100.0}, HOUR + s * 1000) for s in (0, 10, 100, 110)))
    bars = screen(state, height=12)[-2]
    assert bars.strip() == "███       ██"  # one slot is filled, because lists do not arrive exactly on time


def test_big_digits() -> None:
    assert big_number("10") == ["▄█  █▀█", " █  █ █", "▀▀▀ ▀▀▀"]


# --- plain lines


def test_a_plain_line_shows_the_reading() -> None:
    assert plain_line(placed(THREE), OSLO) == (
        "2026-11-22 17:00:10 5706 4126 W  L1 16.2 A 221 V  L2 7.9 A 223 V  L3 9.9 A 222 V"
    )
    assert plain_line(placed(THREE), ZoneInfo("UTC")).startswith("2026-11-22 16:00:10 ")


def test_a_plain_line_shows_only_what_is_in_the_list() -> None:
    assert plain_line(placed({P: 583.0}), OSLO) == "2026-11-22 17:00:10 5706 583 W"
    assert plain_line(placed({P: 0.0, EXPORT: 512.0}), OSLO) == "2026-11-22 17:00:10 5706 export 512 W"
    assert plain_line(placed({U1: 230.0}, None), OSLO) == "(no time) 5706  L1 230 V"
    line = plain_line(placed({P: 1.0, REGISTER: 12_327_870.0, EXPORTED: 0.0}), OSLO)
    assert line == "2026-11-22 17:00:10 5706 1 W  import 12327.87 kWh  export 0.00 kWh"


# --- from bytes to a state


@dataclass
class FakeSource:
    name: str = "fake"
    live: bool = True
    gives: list[Chunk] = field(default_factory=list)

    def chunks(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        yield from self.gives


def frames(kind: str, seconds: int, **how: str) -> Iterable[Chunk]:
    start = datetime(2026, 11, 22, 16, 0, 13, tzinfo=UTC)
    end = datetime.fromtimestamp(start.timestamp() + seconds, UTC)
    return (Chunk(f.data, f.complete) for f in SimulatedMeter(kind, **how).frames(start, end))  # type: ignore[arg-type]


def test_bytes_become_readings_without_waiting_for_a_meter_id() -> None:
    watching = Watching(FakeSource(), Settings())
    names = [p.meter_id for chunk in frames("aidon", 12) for p in watching.take(Received(chunk, 1.0))]
    assert names[0] == "unknown-fake"
    assert names[-1] == "SIMULATED-AIDON-1"
    assert list(watching.state.meters) == ["SIMULATED-AIDON-1"]
    assert (watching.link.counts.messages, watching.link.counts.rejected) == (len(names), 0)


def test_earlier_lists_are_shown_and_not_counted() -> None:
    watching = Watching(FakeSource(), Settings())
    for chunk in frames("kamstrup", 60):
        watching.take(Received(chunk, 1.0, recalled=True))
    state, counts = watching.state, watching.link.counts
    assert (counts.messages, counts.readings, counts.bytes) == (0, 0, 0)
    assert state.newest is not None
    waiting = state.condition(1.0)
    assert waiting.level is Level.WAITING
    assert waiting != watching.link.condition(1.0), "it says that the values are old"
    (following,) = list(frames("kamstrup", 75))[6:7]
    watching.take(Received(following, 2.0))
    assert (counts.messages, counts.readings, counts.bytes) == (1, 1, len(following.data))


def test_half_a_frame_before_the_port_was_lost_is_a_reject() -> None:
    watching = Watching(FakeSource(), Settings())
    one, two = list(frames("kamstrup", 20))[:2]
    watching.take(Received(Chunk(one.data[:100], one.received), 1.0))
    watching.take(SourceEvent(Happened.LOST, "gone"))
    assert watching.link.counts.rejected == 1
    assert len(watching.take(Received(two, 2.0))) == 1
