"""The line is never changed while frames check; the right one is found in a bounded time; nothing grows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.sources.serial.line_setting import FIRST, LINES, LineSetting
from exporter.sources.serial.serial_url import Line

_LOOK = 1.0

gaps = st.floats(0.001, 9.9)
chunks = st.tuples(gaps, st.integers(1, 4096), st.booleans())


def looked_at(setting: LineSetting, since: float, until: float) -> Line | None:
    """As the source does while nothing comes: once a second."""
    at = since
    while (at := at + _LOOK) < until:
        line = setting.look(at)
        if line is not None:
            return line
    return setting.look(until)


@given(st.lists(chunks, max_size=60), st.integers(0, len(LINES) - 1))
def test_never_while_frames_check(stream: list[tuple[float, int, bool]], first: int) -> None:
    """A line is changed only after FIRST seconds without a frame that checks, whatever comes in between."""
    setting = LineSetting([LINES[first], *(line for line in LINES if line != LINES[first])])
    now = last_frame = 0.0
    for gap, octets, good in stream:
        before, now = now, now + gap
        line = looked_at(setting, before, now)
        assert line is None or now - last_frame >= FIRST
        setting.heard(octets, int(good), now)
        if good:
            last_frame = now
        assert setting.look(now) is None or now - last_frame >= FIRST


@settings(deadline=None)
@given(
    pace=st.floats(2.0, 10.0),
    phase=st.floats(0.0, 1.0),
    burst=st.floats(0.1, 2.5),
    right=st.integers(0, len(LINES) - 1),
    jitter=st.lists(st.floats(0.0, 0.9), min_size=20, max_size=20),
    few=st.integers(1, 10),
)
def test_the_right_line_is_found_in_a_bounded_time(
    pace: float, phase: float, burst: float, right: int, jitter: list[float], few: int
) -> None:
    """Any pace up to 10 s, lists of any length, any moment of opening; a wrong line gives octets, if only a few."""
    burst = min(burst, pace - 1.0)
    setting = LineSetting(LINES)
    at, n, found = phase * pace, 0, 0.0
    now, limit = 0.0, 60 + (2 * right + 1) * 30.0
    while not found and now < limit:
        line = looked_at(setting, now, at) or setting.line
        for piece in range(4):
            now = at + burst * piece / 3
            good = line == setting.line == LINES[right] and piece == 3
            setting.heard(few, int(good), now)
            if good:
                found = now
            elif setting.look(now) is not None:
                line = Line(50)  # it was changed in the middle of a list, so that one is lost
        n += 1
        at += pace + jitter[n % 20] * 0.1
    assert 0 < found <= limit
    assert setting.home == LINES[right]


@given(st.lists(chunks, max_size=200))
def test_nothing_grows(stream: list[tuple[float, int, bool]]) -> None:
    setting = LineSetting(LINES)
    now = 0.0
    for gap, octets, good in stream:
        now += gap
        setting.heard(octets, int(good), now)
        setting.look(now)
        assert setting.line in LINES
        assert len(setting._others) == len(LINES) - 1
        assert setting._others.count(setting.home) == 0
        assert len(setting.untried) < len(LINES)
