"""Which speed and parity to listen with: those that are set, and others in turn while octets come and no frame checks.

Sans-I/O: told what came and when, it says which line to use. The rules:

- A frame that checks proves the line that is in use: it is kept, and the wait for the next begins anew.
- A line is given up after octets came for FIRST seconds without a frame; one that gave frames, after PROVEN seconds.
- Then the others have their turns, and between any two of them the first again: what made it fail may be over.
- A turn ends in a pause of the wire, so that no list is cut; it is long enough to hear the whole list of any meter.
- Time in which nothing comes does not count: a meter that is silent says nothing about parity.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from exporter.sources.serial.serial_url import Line

__all__ = ["FIRST", "LINES", "PROVEN", "TRY", "LineSetting", "lines_to_try"]

LINES: Final = (
    Line(2400, 8, "N"),  # the makers' documents
    Line(2400, 8, "E"),  # some Aidon and Kaifa firmware, and adapters
    Line(115_200, 8, "N"),  # readers that pass the frames on
    Line(9600, 8, "N"),
    Line(115_200, 8, "E"),
    Line(9600, 8, "E"),
    Line(19_200, 8, "N"),
    Line(38_400, 8, "N"),
    Line(57_600, 8, "N"),
)
"""What meters and adapters use, the likeliest first."""

FIRST: Final = 25.0
"""Seconds of octets without a frame after which a line is doubted: two whole lists of a meter that sends each 10 s."""
TRY: Final = 15.0
"""Seconds that each other line is listened to: one whole list of such a meter, wherever in its pace it begins."""
PROVEN: Final = 900.0
"""As FIRST for a line that gave frames: 100 kB of noise take seven minutes at 2400 baud."""
_FEW: Final = 8
"""Octets that are too few to doubt a line: what an adapter says when it is plugged in."""
_LONGEST_GAP: Final = 12.0
"""Seconds between two octets that still count as a meter talking; of longer silence no more is counted."""
_PAUSE: Final = 0.5
"""Seconds without an octet that end a list."""
_NO_PAUSE: Final = 15.0
"""So much longer than its turn a line is kept whose octets come without a pause."""
_SILENT: Final = 45.0
"""Seconds that another line is listened to when it gives nothing: some adapters drop what does not fit."""


def lines_to_try(line: Line, fixed: Collection[str] = ()) -> list[Line]:
    """The lines to try, `line` first. `fixed` names the fields of Line that are the owner's word: the same in all."""
    kept = {name: getattr(line, name) for name in fixed}
    return list(dict.fromkeys([line, *(replace(each, **kept) for each in LINES)]))


class LineSetting:
    """The line to use. `lines` are those to try, the set one first; times are seconds of a monotonic clock.

    `line` is the one in use, `home` the one that was set or that gave frames last; `proven` says which of the two.
    `failed` counts the turns in a row that gave no frame, `untried` holds the others that had none of them, `octets` is
    what came in the present turn.
    """

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = list(lines)
        self.home = self._lines[0]
        self.proven = False
        self.octets = 0
        self._keep_home(0.0)

    @property
    def lines(self) -> int:
        """How many lines there are to try, `home` among them."""
        return len(self._lines)

    def remember(self, line: Line) -> None:
        """Begin with `line`, which gave frames before this process; without effect if it is none to try."""
        if line in self._lines:
            self.home = line
            self._keep_home(0.0)

    def opened(self, now: float) -> Line:
        """The port is about to be opened: the line to open it with."""
        self._begin(self.home, now)
        return self.home

    def lost(self) -> None:
        """The port was lost: what comes back may be another adapter, or at another meter."""
        self.proven = False

    def heard(self, octets: int, frames: int, now: float) -> bool:
        """Take what came. True when frames check after turns that gave none."""
        if not frames:
            self._spent = self._spent_at(now)
            self._last, self.octets = now, self.octets + octets
            return False
        found = self.failed > 0
        self.home, self.proven = self.line, True
        self._keep_home(now)
        return found

    def look(self, now: float) -> Line | None:
        """The line to change to now, None to stay. To be asked after octets, and every second without."""
        if not self._over(now):
            return None
        self.failed += 1
        before = self.line
        self.untried.discard(before)
        if before == self.home and self._others:
            self._begin(self._others[0], now)
            self._others.rotate(-1)
        else:
            self._begin(self.home, now)
        return self.line if self.line != before else None

    def refused(self, now: float) -> Line:
        """The port cannot be set to `line`, which is not tried again; gives the line to go back to."""
        if self.line != self.home:
            self._lines.remove(self.line)
            self._others.remove(self.line)
            self.untried.discard(self.line)
        self._begin(self.home, now)
        return self.home

    def _keep_home(self, now: float) -> None:
        self.failed = 0
        self._others = deque(line for line in self._lines if line != self.home)
        self.untried = set(self._others)
        self._begin(self.home, now)

    def _begin(self, line: Line, now: float) -> None:
        self.line, self.octets = line, 0
        self._since = self._last = now
        self._spent = 0.0

    def _spent_at(self, now: float) -> float:
        """Seconds of this turn in which the meter talked."""
        return self._spent + min(now - self._last, _LONGEST_GAP)

    def _over(self, now: float) -> bool:
        if not self.octets:
            return self.line != self.home and now - self._since >= _SILENT
        if self.failed:
            enough = TRY
        else:
            enough = PROVEN if self.proven else FIRST
            if self.octets < _FEW:
                return False
        spent = self._spent_at(now)
        return spent >= enough and (now - self._last >= _PAUSE or spent >= enough + _NO_PAUSE)
