"""Lines that can wait for a moment go along with the next reading.

A commit of the outbox is a sync and some pages on an SD card, and a batch a post: the exporter's own metrics, each 10 s
as the lists of most meters, would double both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["Piggyback"]

_PATIENCE_S: Final = 2.0
"""What nobody takes along goes by itself then; so long before a meter's next list these lines may be made."""
_AHEAD_S: Final = 1.0
"""Lines are made so long before their time, to be there when that list comes, at the pace of the last one."""


class Piggyback:
    """The lines that wait, made each `every` seconds. Times are monotonic; methods may be called from any thread."""

    def __init__(self, every: float, now: float) -> None:
        self._every = every
        self._gone = now  # when the last ones went
        self._since: float | None = None  # when those were made that wait
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def due(self, now: float) -> bool:
        """Whether it is time to make new lines."""
        with self._lock:
            return self._since is None and now - self._gone >= self._every - _AHEAD_S

    def late(self, now: float) -> bool:
        """Whether lines have waited long enough for somebody to take them along."""
        with self._lock:
            return self._since is not None and now - self._since >= _PATIENCE_S

    def put(self, lines: Sequence[str], now: float) -> None:
        """Have these wait."""
        with self._lock:
            self._lines += lines
            self._since = now

    def take(self, now: float) -> list[str]:
        """What waits, and it waits no more."""
        with self._lock:
            lines, self._lines = self._lines, []
            if self._since is not None:
                self._since, self._gone = None, now
            return lines

    def drop(self, doomed: Callable[[str], bool]) -> None:
        """Let go of such lines."""
        with self._lock:
            self._lines = [line for line in self._lines if not doomed(line)]
