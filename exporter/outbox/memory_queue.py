"""Readings that the outbox could not take (the disk is full, or has become read-only), straight on to InfluxDB.

What went straight went before older lines that wait in the outbox still. Of a point that is written again and again
(the sum of a day) an older version must not arrive last: the newest that went memory is kept in memory, stands in for
the older ones when these are sent, and goes into the outbox, behind them, as soon as that takes lines again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from exporter.limiter import OnceAMinute
from exporter.outbox.chunk import KeyOf, lines_in
from exporter.outbox.queue import ROW_LINES, Outbox

log = logging.getLogger(__name__)

MOST_LINES: Final = 50_000
"""Some half an hour of ten meters, and no more than 20 MB."""


class MemoryQueue:
    """Lines in memory: bounded, and lost with the process. Methods may be called from any thread."""

    def __init__(self, most_lines: int = MOST_LINES) -> None:
        self._most = most_lines
        self._lines: deque[tuple[str, str]] = deque()  # with their keys
        self._gone = 0  # of the oldest lines, how many have left so far
        self._newest: dict[str, str] = {}  # what went memory, of points that are replaced
        self._lock = threading.Lock()
        self._order = threading.RLock()
        self._going_back = False
        self._refusing = OnceAMinute()

    def put(self, rows: Iterable[tuple[bytes, str]], why: str) -> int:
        """Take rows that the outbox refused for this reason; return how many of the oldest lines had to go for them."""
        lines = [(line.decode(), key) for line, key in lines_in(rows)]
        with self._lock:
            self._lines.extend(lines)
            lost = max(0, len(self._lines) - self._most)
            for _ in range(lost):
                self._lines.popleft()
            self._gone += lost
            waiting = len(self._lines)
        if self._refusing.due():
            log.error(
                "The outbox takes nothing (%s). Readings go straight to InfluxDB: %d lines wait in memory, and are "
                "lost if this is stopped before it takes them.",
                why,
                waiting,
            )
        return lost

    def first(self, count: int) -> tuple[list[tuple[str, str]], int]:
        """The oldest lines with their keys, not removed, and a mark for `done`."""
        with self._lock:
            return list(islice(self._lines, count)), self._gone

    def done(self, count: int, mark: int, refused: Collection[int] = ()) -> None:
        """InfluxDB has said yes to the `count` lines that `first` gave with this mark, but not to some places."""
        with self._lock:
            for place in range(self._gone - mark, count):
                line, key = self._pop()
                if key and place not in refused:
                    self._newest[key] = line

    def newest(self, line: str, key: str) -> str:
        """The version to send in place of a line that waited in the outbox: one that went memory, else itself.

        To be asked after the line was taken out: what is appended later is behind what `back` appends.
        """
        return self._newest.get(key, line) if key else line

    def back(self, append: Callable[[Sequence[tuple[bytes, str]]], object]) -> None:
        """Give everything to `append`, oldest first; when that raises, what it did not take is kept.

        `append` may be one that calls this first, as OrderedOutbox's does.
        """
        with self._order:
            if self._going_back:
                return
            self._going_back = True
            try:
                self._give_newest(append)
                self._give_waiting(append)
            finally:
                self._going_back = False

    def _give_newest(self, append: Callable[[Sequence[tuple[bytes, str]]], object]) -> None:
        with self._lock:
            again = dict(self._newest)
        if again:
            append([(line.encode(), key) for key, line in again.items()])
            with self._lock:  # unless a newer one went straight meanwhile
                self._newest = {key: line for key, line in self._newest.items() if again.get(key) != line}

    def _give_waiting(self, append: Callable[[Sequence[tuple[bytes, str]]], object]) -> None:
        while True:
            some, mark = self.first(ROW_LINES)  # so few, that a full disk is soon noticed
            if not some:
                return
            append([(line.encode(), key) for line, key in some])
            with self._lock:
                for _ in range(self._gone - mark, len(some)):
                    self._pop()

    def drop(self, doomed: Callable[[str], bool]) -> None:
        """Remove such lines; not between `first` and `done`."""
        with self._order, self._lock:
            self._lines = deque((line, key) for line, key in self._lines if not doomed(line))
            self._newest = {key: line for key, line in self._newest.items() if not doomed(line)}

    @property
    def overtaken(self) -> int:
        """Of how many points older versions may wait in the outbox."""
        return len(self._newest)

    def _pop(self) -> tuple[str, str]:
        self._gone += 1
        return self._lines.popleft()

    def __len__(self) -> int:
        return len(self._lines)


class OrderedOutbox(Outbox):
    """An outbox that takes back what waits in memory before it takes anything newer: the order of time stays.

    So of any meter, whatever waits in `straight` is newer than all that waits here. A disk that takes nothing at the
    beginning is no reason not to begin: what is read goes memory, and the outbox is used once it can be.
    """

    def __init__(self, path: Path, memory: MemoryQueue, *, max_bytes: int, key_of: KeyOf | None = None) -> None:
        self._memory = memory
        super().__init__(path, max_bytes=max_bytes, patient=True, key_of=key_of)
        if self.why_not:
            log.error(
                "%s. It is tried again by itself. Until it can be used, readings go straight to InfluxDB, and what is "
                "learnt from them (which meter speaks, the registers of the hours) is in memory: that, and what "
                "InfluxDB has not taken, is lost if this is stopped before",
                self.why_not,
            )

    def append(self, rows: Iterable[tuple[bytes, str]], state: Mapping[str, str | None] | None = None) -> None:
        """As Outbox.append."""
        rows = list(rows)
        if rows and (self._memory or self._memory.overtaken):
            self._memory.back(self.append)
        super().append(rows, state)
