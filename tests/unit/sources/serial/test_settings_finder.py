"""Which settings to listen with: the rules of settings_finder.py, one by one."""

from __future__ import annotations

import pytest

from exporter.sources.serial.serial_url import SerialSettings, SerialUrl
from exporter.sources.serial.settings_finder import (
    COMMON_SETTINGS,
    DOUBTED_AFTER,
    PROVEN_DOUBTED_AFTER,
    TURN,
    SettingsFinder,
    settings_to_try,
)

N, E = SerialSettings(), SerialSettings(parity="E")


class Listening:
    """A SettingsFinder and a meter, which sends `size` bytes every `pace` seconds, valid with the settings `right`."""

    def __init__(
        self, finder: SettingsFinder, right: SerialSettings | None = None, pace: float = 10.0, size: int = 228
    ) -> None:
        self.finder, self.right, self.pace, self.size = finder, right, pace, size
        self.time = 0.0
        self.changes: list[tuple[float, SerialSettings]] = []
        self.pauses: list[float] = []
        self.heard_at = 0.0
        self.found: list[float] = []

    def go_on(self, seconds: float) -> None:
        """A list each `pace` seconds, its bytes in one piece, and a look every second, as the source does."""
        until = self.time + seconds
        while self.time < until:
            self.time += 1.0
            self._look()
            if self.time % self.pace < 1.0:
                self.heard_at = self.time
                frames = int(self.finder.current == self.right)
                if self.finder.heard(self.size, frames, self.time):
                    self.found.append(self.time)
                self._look()

    def _look(self) -> None:
        settings = self.finder.change_due(self.time)
        if settings is not None:
            self.changes.append((self.time, settings))
            self.pauses.append(self.time - self.heard_at)


def listening(url: str = "/dev/ttyUSB0", right: SerialSettings | None = None, pace: float = 10.0) -> Listening:
    parsed = SerialUrl.parse(url)
    return Listening(SettingsFinder(settings_to_try(parsed.settings, parsed.fixed)), right, pace)


def test_valid_frames_change_nothing() -> None:
    meter = listening(right=N)
    meter.go_on(3600)
    assert (meter.changes, meter.found, meter.finder.proven) == ([], [], True)


def test_the_other_parity_is_found() -> None:
    meter = listening(right=E)
    meter.go_on(60)
    assert [settings for _, settings in meter.changes] == [E]
    assert DOUBTED_AFTER <= meter.changes[0][0] <= DOUBTED_AFTER + 1
    assert len(meter.found) == 1
    assert meter.found[0] <= DOUBTED_AFTER + 10
    assert meter.finder.opened(60) == E, "kept for the next opening"


def test_all_other_settings_have_a_turn_with_the_first_between_any_two() -> None:
    meter = listening()
    meter.go_on(1000)
    tried = [settings for _, settings in meter.changes]
    assert tried[:16:2] == list(COMMON_SETTINGS[1:])
    assert set(tried[1::2]) == {N}
    turns = [after - before for (before, _), (after, _) in zip(meter.changes, meter.changes[1:], strict=False)]
    assert min(turns) >= TURN


def test_each_turn_has_a_whole_list_and_ends_in_a_pause() -> None:
    meter = listening()
    meter.go_on(600)
    assert min(meter.pauses) >= 0.5
    turns = [after - before for (before, _), (after, _) in zip(meter.changes, meter.changes[1:], strict=False)]
    assert min(turns) >= meter.pace + 1


def test_bytes_without_a_pause_do_not_prolong_a_turn_for_ever() -> None:
    finder = SettingsFinder([N, E])
    changed = []
    for n in range(1, 1000):
        finder.heard(24, 0, n / 10)
        if finder.change_due(n / 10) is not None:
            changed.append(n / 10)
    assert changed[0] == pytest.approx(DOUBTED_AFTER + 15, abs=0.2)
    assert changed[1] - changed[0] == pytest.approx(TURN + 15, abs=0.2)


def test_silence_says_nothing_about_the_settings() -> None:
    finder = SettingsFinder([N, E])
    finder.heard(100, 0, 1.0)
    assert [finder.change_due(float(at)) for at in range(2, 5000)] == [None] * 4998


def test_a_few_bytes_say_nothing() -> None:
    finder = SettingsFinder([N, E])
    for n in range(7):
        finder.heard(1, 0, n * 11.0)
        assert finder.change_due(n * 11.0 + 5) is None
    finder.heard(1, 0, 77.0)
    assert finder.change_due(78.0) == E


def test_settings_with_which_nothing_comes_are_left_again() -> None:
    finder = SettingsFinder([N, E])
    finder.heard(100, 0, 1.0)
    finder.heard(100, 0, 11.0)
    finder.heard(100, 0, 21.0)
    assert finder.change_due(26.0) == E
    assert finder.change_due(60.0) is None
    assert finder.change_due(71.0) == N, "some adapters drop bytes with wrong parity"
    assert finder.change_due(5000.0) is None, "now it is the meter that is silent"


def test_noise_after_valid_frames_changes_nothing() -> None:
    finder = SettingsFinder([N, E])
    assert finder.heard(228, 1, 10.0) is False
    for n in range(4200):  # 100 kB at 2400 baud
        assert not finder.heard(24, 0, 11 + n / 10)
        assert finder.change_due(11 + n / 10) is None
    assert finder.heard(228, 1, 440.0) is False
    assert finder.current == N


def test_a_meter_that_changes_its_parity_is_found_in_the_end() -> None:
    meter = listening(right=N)
    meter.go_on(100)
    meter.right = E
    meter.go_on(PROVEN_DOUBTED_AFTER + 60)
    assert [settings for _, settings in meter.changes] == [E]
    assert PROVEN_DOUBTED_AFTER <= meter.changes[0][0] - 90 < PROVEN_DOUBTED_AFTER + 20
    assert meter.finder.preferred == E


def test_a_port_that_was_lost_may_come_back_with_another_meter() -> None:
    meter = listening(right=N)
    meter.go_on(100)
    meter.finder.lost()
    assert meter.finder.opened(100.0) == N
    meter.right = E
    meter.go_on(60)
    assert [settings for _, settings in meter.changes] == [E]
    assert meter.changes[0][0] <= 100 + DOUBTED_AFTER + 2


def test_the_first_settings_can_prove_right_in_between() -> None:
    meter = listening()
    meter.go_on(100)
    meter.right = N
    meter.go_on(2 * TURN + 10)
    assert len(meter.found) == 1
    before = len(meter.changes)
    meter.go_on(600)
    assert len(meter.changes) == before
    assert meter.finder.current == N


def test_opening_again_begins_with_the_configured_settings() -> None:
    meter = listening()
    meter.go_on(30)
    assert meter.finder.current == E
    assert meter.finder.opened(30.0) == N


def test_settings_that_the_adapter_refuses_are_not_tried_again() -> None:
    finder = SettingsFinder([N, E, SerialSettings(9600)])
    at = 0.0
    asked: list[SerialSettings] = []
    while at < 500:
        at += 1
        finder.heard(20, 0, at)
        settings = finder.change_due(at + 0.6)
        if settings is not None:
            asked.append(settings)
            if settings == E:
                assert finder.refused(at + 0.6) == N
    assert asked.count(E) == 1
    assert asked.count(SerialSettings(9600)) > 5
    assert finder.count == 2


def test_what_was_not_tried_yet_is_known() -> None:
    meter = Listening(SettingsFinder([N, E, SerialSettings(9600)]))
    meter.go_on(30)
    assert meter.finder.untried == {E, SerialSettings(9600)}
    meter.go_on(60)
    assert meter.finder.untried == set()
    meter.right = E
    meter.go_on(120)
    assert meter.finder.untried == {N, SerialSettings(9600)}


@pytest.mark.parametrize(
    ("url", "candidates"),
    [
        ("/dev/ttyUSB0", list(COMMON_SETTINGS)),
        ("/dev/ttyUSB0?baud=9600", [SerialSettings(9600), SerialSettings(9600, parity="E")]),
        (
            "/dev/ttyUSB0?parity=E",
            [SerialSettings(baud, parity="E") for baud in (2400, 115_200, 9600, 19_200, 38_400, 57_600)],
        ),
        ("/dev/ttyUSB0?baud=2400&parity=N", [SerialSettings()]),
        ("/dev/ttyUSB0?baud=300&parity=e&stop=2", [SerialSettings(300, 8, "E", 2.0)]),
        ("/dev/ttyUSB0?silence=9", list(COMMON_SETTINGS)),
    ],
)
def test_what_the_url_fixes_is_never_changed(url: str, candidates: list[SerialSettings]) -> None:
    parsed = SerialUrl.parse(url)
    assert settings_to_try(parsed.settings, parsed.fixed) == candidates


def test_with_one_candidate_nothing_is_changed() -> None:
    meter = Listening(SettingsFinder([E]))
    meter.go_on(500)
    assert meter.changes == []
    assert meter.finder.failed_turns > 1


def test_what_gave_frames_before_a_restart_is_first() -> None:
    meter = listening(right=E)
    meter.finder.prefer(E)
    assert meter.finder.opened(0.0) == E
    meter.go_on(100)
    assert meter.changes == []
    meter = listening(right=N)
    meter.finder.prefer(E)
    meter.go_on(60)
    assert [settings for _, settings in meter.changes] == [N], "the configured settings are next"
    fixed = listening("/dev/ttyUSB0?parity=N")
    fixed.finder.prefer(E)
    assert fixed.finder.opened(0.0) == N, "what the URL fixes counts more"
