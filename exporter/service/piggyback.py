"""Lines that wait a moment so that they can be written together with the next reading.

Every append to the outbox syncs the disk and writes some pages of an SD card, and every batch is a request to InfluxDB.
The exporter writes its own metrics every 10 s, as often as most meters send. Written alone, they would double both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

__all__ = ["Piggyback"]

_MOST_WAIT_S: Final = 2.0
"""Lines that no reading took with it after this time are written alone."""
_EARLY_S: Final = 1.0
"""Lines are made this long before they are due, so that they are ready when the meter's next list comes."""


class Piggyback:
    """Waiting lines, made every `every` seconds. Times are monotonic. Methods may be called from any thread."""

    def __init__(self, every: float, now: float) -> None:
        self._every = every
        self._last_taken = now
        self._waiting_since: float | None = None
        self._lines: list[str] = []
        self._lock = threading.Lock()

    def due(self, now: float) -> bool:
        """Return whether it is time to make new lines."""
        with self._lock:
            return self._waiting_since is None and now - self._last_taken >= self._every - _EARLY_S

    def late(self, now: float) -> bool:
        """Return whether lines have waited so long that they are to be written alone."""
        with self._lock:
            return self._waiting_since is not None and now - self._waiting_since >= _MOST_WAIT_S

    def put(self, lines: Sequence[str], now: float) -> None:
        """Add lines that are to wait."""
        with self._lock:
            self._lines += lines
            self._waiting_since = now

    def take(self, now: float) -> list[str]:
        """Remove and return the waiting lines."""
        with self._lock:
            lines, self._lines = self._lines, []
            if self._waiting_since is not None:
                self._waiting_since, self._last_taken = None, now
            return lines

    def drop(self, doomed: Callable[[str], bool]) -> None:
        """Remove the lines that are `doomed`."""
        with self._lock:
            self._lines = [line for line in self._lines if not doomed(line)]
