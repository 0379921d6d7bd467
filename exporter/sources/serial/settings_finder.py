"""Finds the baud rate and parity of a meter: the configured ones, and others in turn while no valid message comes.

The rules:

- A message proves the settings in use. They are kept, and the count begins again.
- Settings are given up after DOUBTED_AFTER seconds of bytes without a message; settings that gave messages, after
  PROVEN_DOUBTED_AFTER seconds.
- Then the other settings have a turn each, with a turn of the first between any two of them: the cause of its failure
  may have passed.
- A turn ends in a pause of the wire, so that no list is cut. It is long enough to hear one whole list of any meter.
- Time in which nothing comes does not count: silence says nothing about parity.

Sans-I/O: its input is what came and when, its output is the settings to use.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from exporter.sources.serial.serial_url import SerialSettings

__all__ = [
    "COMMON_SETTINGS",
    "DOUBTED_AFTER",
    "PROVEN_DOUBTED_AFTER",
    "TURN",
    "SettingsFinder",
    "settings_to_try",
]

COMMON_SETTINGS: Final = (
    SerialSettings(2400, 8, "N"),  # the makers' documents
    SerialSettings(2400, 8, "E"),  # some Aidon and Kaifa firmware, and adapters
    SerialSettings(115_200, 8, "N"),  # readers that pass the frames on
    SerialSettings(9600, 8, "N"),
    SerialSettings(115_200, 8, "E"),
    SerialSettings(9600, 8, "E"),
    SerialSettings(19_200, 8, "N"),
    SerialSettings(38_400, 8, "N"),
    SerialSettings(57_600, 8, "N"),
)
"""What meters and adapters use; the most likely first."""

DOUBTED_AFTER: Final = 25.0
"""Seconds of bytes without a message. A meter that sends every 10 s sends two whole lists in that time."""
TURN: Final = 15.0
"""Seconds of a turn. A meter that sends every 10 s sends one whole list in that time, whenever the turn begins."""
PROVEN_DOUBTED_AFTER: Final = 900.0
"""As DOUBTED_AFTER, for settings that gave messages. 100 kB of noise take 7 minutes at 2400 baud."""
_FEW: Final = 8
"""Fewer bytes than this prove nothing: an adapter can send a few when it is plugged in."""
_LONGEST_GAP: Final = 12.0
"""Seconds between two bytes that still count as a meter sending; a longer silence counts as this much."""
_PAUSE: Final = 0.5
"""Seconds without a byte that end a list."""
_NO_PAUSE: Final = 15.0
"""Seconds by which a turn is longer if the bytes come without a pause."""
_SILENT: Final = 45.0
"""Seconds of a turn in which nothing comes: some adapters drop bytes with wrong parity."""


def settings_to_try(configured: SerialSettings, fixed: Collection[str] = ()) -> list[SerialSettings]:
    """All settings to try, `configured` first. They all have its values in the fields that `fixed` names."""
    kept = {name: getattr(configured, name) for name in fixed}
    return list(dict.fromkeys([configured, *(replace(each, **kept) for each in COMMON_SETTINGS)]))


class SettingsFinder:
    """Says which settings to use. `candidates` are all settings to try, the configured ones first.

    Times are seconds of a monotonic clock. `current` are the settings in use. `preferred` are the configured ones, or
    those that gave messages last; `proven` is True in the second case. `failed_turns` counts the turns in a row without
    a message, `untried` has the settings that had none of these turns, `turn_bytes` counts the bytes of this turn.
    """

    def __init__(self, candidates: Sequence[SerialSettings]) -> None:
        self._candidates = list(candidates)
        self.preferred = self._candidates[0]
        self.proven = False
        self.turn_bytes = 0
        self._keep_preferred(0.0)

    @property
    def count(self) -> int:
        """How many settings there are to try, `preferred` included."""
        return len(self._candidates)

    def prefer(self, settings: SerialSettings) -> None:
        """Begin with these settings, which an earlier process found. No effect if they are not a candidate."""
        if settings in self._candidates:
            self.preferred = settings
            self._keep_preferred(0.0)

    def opened(self, now: float) -> SerialSettings:
        """The port is about to be opened; returns the settings to open it with."""
        self._begin(self.preferred, now)
        return self.preferred

    def lost(self) -> None:
        """The port was lost. What comes back may be another adapter, or at another meter."""
        self.proven = False

    def heard(self, size: int, messages: int, now: float) -> bool:
        """Take a chunk of `size` bytes that ended so many messages. True for a message after turns without one."""
        if not messages:
            self._spent = self._spent_at(now)
            self._last, self.turn_bytes = now, self.turn_bytes + size
            return False
        found = self.failed_turns > 0
        self.preferred, self.proven = self.current, True
        self._keep_preferred(now)
        return found

    def change_due(self, now: float) -> SerialSettings | None:
        """The settings to change to now, None to keep the current ones. Call it after bytes, and once a second."""
        if not self._is_turn_over(now):
            return None
        self.failed_turns += 1
        before = self.current
        self.untried.discard(before)
        if before == self.preferred and self._others:
            self._begin(self._others[0], now)
            self._others.rotate(-1)
        else:
            self._begin(self.preferred, now)
        return self.current if self.current != before else None

    def refused(self, now: float) -> SerialSettings:
        """The port cannot be set to `current`: do not try them again. Returns the settings to go back to."""
        if self.current != self.preferred:
            self._candidates.remove(self.current)
            self._others.remove(self.current)
            self.untried.discard(self.current)
        self._begin(self.preferred, now)
        return self.preferred

    def _keep_preferred(self, now: float) -> None:
        self.failed_turns = 0
        self._others = deque(each for each in self._candidates if each != self.preferred)
        self.untried = set(self._others)
        self._begin(self.preferred, now)

    def _begin(self, settings: SerialSettings, now: float) -> None:
        self.current, self.turn_bytes = settings, 0
        self._since = self._last = now
        self._spent = 0.0

    def _spent_at(self, now: float) -> float:
        """Seconds of this turn in which the meter was sending."""
        return self._spent + min(now - self._last, _LONGEST_GAP)

    def _is_turn_over(self, now: float) -> bool:
        if not self.turn_bytes:
            return self.current != self.preferred and now - self._since >= _SILENT
        if self.failed_turns:
            enough = TURN
        else:
            enough = PROVEN_DOUBTED_AFTER if self.proven else DOUBTED_AFTER
            if self.turn_bytes < _FEW:
                return False
        spent = self._spent_at(now)
        return spent >= enough and (now - self._last >= _PAUSE or spent >= enough + _NO_PAUSE)
