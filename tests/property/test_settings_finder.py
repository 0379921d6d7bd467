"""Settings are never changed while valid frames come; the right ones are found in a bounded time; nothing grows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exporter.sources.serial.serial_url import SerialSettings
from exporter.sources.serial.settings_finder import COMMON_SETTINGS, DOUBTED_AFTER, SettingsFinder

_LOOK = 1.0

gaps = st.floats(0.001, 9.9)
chunks = st.tuples(gaps, st.integers(1, 4096), st.booleans())


def look_each_second(finder: SettingsFinder, since: float, until: float) -> SerialSettings | None:
    """Look once a second, as the source does while nothing comes."""
    at = since
    while (at := at + _LOOK) < until:
        chosen = finder.change_due(at)
        if chosen is not None:
            return chosen
    return finder.change_due(until)


@given(st.lists(chunks, max_size=60), st.integers(0, len(COMMON_SETTINGS) - 1))
def test_no_change_while_valid_frames_come(stream: list[tuple[float, int, bool]], first: int) -> None:
    """Settings are changed only after DOUBTED_AFTER seconds without a valid frame, whatever else comes."""
    finder = SettingsFinder(
        [COMMON_SETTINGS[first], *(each for each in COMMON_SETTINGS if each != COMMON_SETTINGS[first])]
    )
    now = last_frame = 0.0
    for gap, size, good in stream:
        before, now = now, now + gap
        chosen = look_each_second(finder, before, now)
        assert chosen is None or now - last_frame >= DOUBTED_AFTER
        finder.heard(size, int(good), now)
        if good:
            last_frame = now
        assert finder.change_due(now) is None or now - last_frame >= DOUBTED_AFTER


@given(
    pace=st.floats(2.0, 10.0),
    phase=st.floats(0.0, 1.0),
    burst=st.floats(0.1, 2.5),
    right=st.integers(0, len(COMMON_SETTINGS) - 1),
    jitter=st.lists(st.floats(0.0, 0.9), min_size=20, max_size=20),
    few=st.integers(1, 10),
)
def test_the_right_settings_are_found_in_a_bounded_time(
    pace: float, phase: float, burst: float, right: int, jitter: list[float], few: int
) -> None:
    """Any pace up to 10 s, lists of any length, any moment of opening; wrong settings give at least a few bytes."""
    burst = min(burst, pace - 1.0)
    finder = SettingsFinder(COMMON_SETTINGS)
    at, n, found = phase * pace, 0, 0.0
    now, limit = 0.0, 60 + (2 * right + 1) * 30.0
    while not found and now < limit:
        chosen = look_each_second(finder, now, at) or finder.current
        for piece in range(4):
            now = at + burst * piece / 3
            good = chosen == finder.current == COMMON_SETTINGS[right] and piece == 3
            finder.heard(few, int(good), now)
            if good:
                found = now
            elif finder.change_due(now) is not None:
                chosen = SerialSettings(50)  # changed in the middle of a list, which is lost
        n += 1
        at += pace + jitter[n % 20] * 0.1
    assert 0 < found <= limit
    assert finder.preferred == COMMON_SETTINGS[right]


@given(st.lists(chunks, max_size=200))
def test_nothing_grows(stream: list[tuple[float, int, bool]]) -> None:
    finder = SettingsFinder(COMMON_SETTINGS)
    now = 0.0
    for gap, size, good in stream:
        now += gap
        finder.heard(size, int(good), now)
        finder.change_due(now)
        assert finder.current in COMMON_SETTINGS
        assert len(finder._others) == len(COMMON_SETTINGS) - 1
        assert finder._others.count(finder.preferred) == 0
        assert len(finder.untried) < len(COMMON_SETTINGS)
