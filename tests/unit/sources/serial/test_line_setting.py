"""Which line to listen with: the rules of line_setting.py, one by one."""

from __future__ import annotations

import pytest

from exporter.sources.serial.line_setting import FIRST, LINES, PROVEN, TRY, LineSetting, lines_to_try
from exporter.sources.serial.serial_url import Line, SerialUrl

N, E = Line(), Line(parity="E")


class Listening:
    """A LineSetting that hears lists of `octets` every `pace` seconds; `right` is the line on which they are frames."""

    def __init__(self, setting: LineSetting, right: Line | None = None, pace: float = 10.0, octets: int = 228) -> None:
        self.setting, self.right, self.pace, self.octets = setting, right, pace, octets
        self.time = 0.0
        self.changes: list[tuple[float, Line]] = []
        self.pauses: list[float] = []
        self.heard_at = 0.0
        self.found: list[float] = []

    def go_on(self, seconds: float) -> None:
        """A list at each full `pace`, its octets in one piece, and a look every second, as the source does."""
        until = self.time + seconds
        while self.time < until:
            self.time += 1.0
            self._look()
            if self.time % self.pace < 1.0:
                self.heard_at = self.time
                frames = int(self.setting.line == self.right)
                if self.setting.heard(self.octets, frames, self.time):
                    self.found.append(self.time)
                self._look()

    def _look(self) -> None:
        line = self.setting.look(self.time)
        if line is not None:
            self.changes.append((self.time, line))
            self.pauses.append(self.time - self.heard_at)


def listening(setting: str = "/dev/ttyUSB0", right: Line | None = None, pace: float = 10.0) -> Listening:
    url = SerialUrl.parse(setting)
    return Listening(LineSetting(lines_to_try(url.line, url.fixed)), right, pace)


def test_frames_that_check_leave_the_line_alone() -> None:
    meter = listening(right=N)
    meter.go_on(3600)
    assert (meter.changes, meter.found, meter.setting.proven) == ([], [], True)


def test_the_other_parity_is_found() -> None:
    meter = listening(right=E)
    meter.go_on(60)
    assert [line for _, line in meter.changes] == [E]
    assert FIRST <= meter.changes[0][0] <= FIRST + 1
    assert len(meter.found) == 1
    assert meter.found[0] <= FIRST + 10
    assert meter.setting.opened(60) == E, "and kept for the next opening"


def test_every_other_line_has_its_turn_and_the_first_one_between_any_two() -> None:
    meter = listening()
    meter.go_on(1000)
    lines = [line for _, line in meter.changes]
    assert lines[:16:2] == list(LINES[1:])
    assert set(lines[1::2]) == {N}
    turns = [after - before for (before, _), (after, _) in zip(meter.changes, meter.changes[1:], strict=False)]
    assert min(turns) >= TRY


def test_each_turn_hears_a_whole_list_and_ends_in_a_pause() -> None:
    meter = listening()
    meter.go_on(600)
    assert min(meter.pauses) >= 0.5
    turns = [after - before for (before, _), (after, _) in zip(meter.changes, meter.changes[1:], strict=False)]
    assert min(turns) >= meter.pace + 1


def test_octets_without_a_pause_are_no_reason_to_wait_for_one_for_ever() -> None:
    setting = LineSetting([N, E])
    changed = []
    for n in range(1, 1000):
        setting.heard(24, 0, n / 10)
        if setting.look(n / 10) is not None:
            changed.append(n / 10)
    assert changed[0] == pytest.approx(FIRST + 15, abs=0.2)
    assert changed[1] - changed[0] == pytest.approx(TRY + 15, abs=0.2)


def test_silence_says_nothing_about_the_line() -> None:
    setting = LineSetting([N, E])
    setting.heard(100, 0, 1.0)
    assert [setting.look(float(at)) for at in range(2, 5000)] == [None] * 4998


def test_a_few_octets_say_nothing_either() -> None:
    setting = LineSetting([N, E])
    for n in range(7):
        setting.heard(1, 0, n * 11.0)
        assert setting.look(n * 11.0 + 5) is None
    setting.heard(1, 0, 77.0)
    assert setting.look(78.0) == E


def test_a_line_on_which_nothing_at_all_comes_is_left_again() -> None:
    setting = LineSetting([N, E])
    setting.heard(100, 0, 1.0)
    setting.heard(100, 0, 11.0)
    setting.heard(100, 0, 21.0)
    assert setting.look(26.0) == E
    assert setting.look(60.0) is None
    assert setting.look(71.0) == N, "some adapters drop what does not fit"
    assert setting.look(5000.0) is None, "and then it is the meter that is silent"


def test_a_storm_on_a_line_that_gave_frames_changes_nothing() -> None:
    setting = LineSetting([N, E])
    assert setting.heard(228, 1, 10.0) is False
    for n in range(4200):  # 100 kB at 2400 baud
        assert not setting.heard(24, 0, 11 + n / 10)
        assert setting.look(11 + n / 10) is None
    assert setting.heard(228, 1, 440.0) is False
    assert setting.line == N


def test_a_meter_that_begins_to_send_otherwise_is_found_in_the_end() -> None:
    meter = listening(right=N)
    meter.go_on(100)
    meter.right = E
    meter.go_on(PROVEN + 60)
    assert [line for _, line in meter.changes] == [E]
    assert PROVEN <= meter.changes[0][0] - 90 < PROVEN + 20
    assert meter.setting.home == E


def test_what_was_lost_and_came_back_may_be_another_meter() -> None:
    meter = listening(right=N)
    meter.go_on(100)
    meter.setting.lost()
    assert meter.setting.opened(100.0) == N
    meter.right = E
    meter.go_on(60)
    assert [line for _, line in meter.changes] == [E]
    assert meter.changes[0][0] <= 100 + FIRST + 2


def test_the_first_line_proves_itself_in_between() -> None:
    meter = listening()
    meter.go_on(100)
    meter.right = N
    meter.go_on(2 * TRY + 10)
    assert len(meter.found) == 1
    before = len(meter.changes)
    meter.go_on(600)
    assert len(meter.changes) == before
    assert meter.setting.line == N


def test_opening_again_begins_with_the_line_that_is_set() -> None:
    meter = listening()
    meter.go_on(30)
    assert meter.setting.line == E
    assert meter.setting.opened(30.0) == N


def test_what_the_adapter_cannot_do_is_not_asked_again() -> None:
    setting = LineSetting([N, E, Line(9600)])
    at = 0.0
    asked: list[Line] = []
    while at < 500:
        at += 1
        setting.heard(20, 0, at)
        line = setting.look(at + 0.6)
        if line is not None:
            asked.append(line)
            if line == E:
                assert setting.refused(at + 0.6) == N
    assert asked.count(E) == 1
    assert asked.count(Line(9600)) > 5
    assert setting.lines == 2


def test_what_was_tried_is_known() -> None:
    meter = Listening(LineSetting([N, E, Line(9600)]))
    meter.go_on(30)
    assert meter.setting.untried == {E, Line(9600)}
    meter.go_on(60)
    assert meter.setting.untried == set()
    meter.right = E
    meter.go_on(120)
    assert meter.setting.untried == {N, Line(9600)}


@pytest.mark.parametrize(
    ("setting", "lines"),
    [
        ("/dev/ttyUSB0", list(LINES)),
        ("/dev/ttyUSB0?baud=9600", [Line(9600), Line(9600, parity="E")]),
        (
            "/dev/ttyUSB0?parity=E",
            [Line(baud, parity="E") for baud in (2400, 115_200, 9600, 19_200, 38_400, 57_600)],
        ),
        ("/dev/ttyUSB0?baud=2400&parity=N", [Line()]),
        ("/dev/ttyUSB0?baud=300&parity=e&stop=2", [Line(300, 8, "E", 2.0)]),
        ("/dev/ttyUSB0?silence=9", list(LINES)),
    ],
)
def test_what_the_setting_says_is_the_owners_word(setting: str, lines: list[Line]) -> None:
    url = SerialUrl.parse(setting)
    assert lines_to_try(url.line, url.fixed) == lines


def test_with_one_line_there_is_nothing_to_change_to() -> None:
    meter = Listening(LineSetting([E]))
    meter.go_on(500)
    assert meter.changes == []
    assert meter.setting.failed > 1


def test_what_gave_frames_before_a_restart_comes_first() -> None:
    meter = listening(right=E)
    meter.setting.remember(E)
    assert meter.setting.opened(0.0) == E
    meter.go_on(100)
    assert meter.changes == []
    meter = listening(right=N)
    meter.setting.remember(E)
    meter.go_on(60)
    assert [line for _, line in meter.changes] == [N], "and the one that is set next"
    fixed = listening("/dev/ttyUSB0?parity=N")
    fixed.setting.remember(E)
    assert fixed.setting.opened(0.0) == N, "what the setting says counts more"
