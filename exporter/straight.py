"""Readings that the outbox could not take (the disk is full, or has become read-only), straight on to InfluxDB."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

log = logging.getLogger(__name__)

MOST_LINES: Final = 50_000
"""Some half an hour of ten meters, and no more than 20 MB."""
_WORDS_EVERY_S: Final = 60.0


class Straight:
    """Lines in memory: bounded, and lost with the process. Methods may be called from any thread."""

    def __init__(self, most_lines: int = MOST_LINES) -> None:
        self._most = most_lines
        self._lines: deque[str] = deque()
        self._gone = 0  # of the oldest lines, how many have left so far
        self._lock = threading.Lock()
        self._next_words = 0.0

    def put(self, lines: Sequence[str], why: str) -> int:
        """Take lines that the outbox refused for this reason; return how many of the oldest had to go for them."""
        with self._lock:
            self._lines.extend(lines)
            lost = max(0, len(self._lines) - self._most)
            for _ in range(lost):
                self._lines.popleft()
            self._gone += lost
            waiting = len(self._lines)
        if time.monotonic() >= self._next_words:
            self._next_words = time.monotonic() + _WORDS_EVERY_S
            log.error(
                "The outbox takes nothing (%s). Readings go straight to InfluxDB: %d lines wait in memory, and are "
                "lost if this is stopped before it takes them.",
                why,
                waiting,
            )
        return lost

    def first(self, count: int) -> tuple[list[str], int]:
        """The oldest lines, not removed, and a mark for `done`."""
        with self._lock:
            return list(islice(self._lines, count)), self._gone

    def done(self, count: int, mark: int) -> None:
        """InfluxDB has said yes to the `count` lines that `first` gave with this mark."""
        with self._lock:
            for _ in range(min(count - (self._gone - mark), len(self._lines))):
                self._lines.popleft()
                self._gone += 1

    def drop(self, doomed: Callable[[str], bool]) -> None:
        """Remove such lines; not between `first` and `done`."""
        with self._lock:
            self._lines = deque(line for line in self._lines if not doomed(line))

    def __len__(self) -> int:
        return len(self._lines)
