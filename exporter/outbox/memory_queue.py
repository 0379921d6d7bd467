"""A queue in memory, for lines that the outbox cannot take: its disk is full, or has become read-only.

The writer sends these lines before older ones that still wait in the outbox. When a line has a key, an older version of
the same point must not be sent after it. So the newest version that was sent from memory is remembered here: it is sent
in place of the older ones, and goes into the outbox, after them, as soon as the outbox takes lines again.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, TypeAlias

from exporter.counted import counted
from exporter.limiter import OnceAMinute
from exporter.outbox.chunk import KeyOf, lines_in
from exporter.outbox.queue import ROW_LINES, Outbox

__all__ = ["MOST_LINES", "MemoryQueue", "OrderedOutbox"]

log = logging.getLogger(__name__)

Append: TypeAlias = Callable[[Sequence[tuple[bytes, str]]], object]

MOST_LINES: Final = 50_000
"""About half an hour of ten meters, and at most 20 MB."""


class MemoryQueue:
    """Lines in memory: bounded, and lost when the process ends. Methods may be called from any thread."""

    def __init__(self, most_lines: int = MOST_LINES) -> None:
        self._most = most_lines
        self._lines: deque[tuple[str, str]] = deque()  # with their keys
        self._removed = 0  # how many lines have left the queue so far
        self._newest: dict[str, str] = {}  # the newest version of each point that was sent from here, by its key
        self._lock = threading.Lock()
        self._order = threading.RLock()
        self._returning = False
        self._putting = OnceAMinute()

    def put(self, rows: Iterable[tuple[bytes, str]], why: str) -> int:
        """Take rows that the outbox did not take, and why it did not; return how many old lines were dropped."""
        lines = [(line.decode(), key) for line, key in lines_in(rows)]
        with self._lock:
            self._lines.extend(lines)
            dropped = max(0, len(self._lines) - self._most)
            for _ in range(dropped):
                self._lines.popleft()
            self._removed += dropped
            waiting = len(self._lines)
        if self._putting.due():
            log.error(
                "The outbox takes nothing (%s). Readings are sent to InfluxDB directly: %s in memory. They are lost if "
                "this process ends before they are sent.",
                why,
                counted(waiting, "line"),
            )
        return dropped

    def first(self, count: int) -> tuple[list[tuple[str, str]], int]:
        """Return the oldest lines with their keys, not removed, and a mark for `done`."""
        with self._lock:
            return list(islice(self._lines, count)), self._removed

    def done(self, count: int, mark: int, refused: Collection[int] = ()) -> None:
        """Remove the `count` lines that `first` returned with this mark: they were sent.

        `refused` has the places of lines that InfluxDB refused.
        """
        with self._lock:
            for place in range(self._removed - mark, count):  # some may have been dropped meanwhile
                line, key = self._pop()
                if key and place not in refused:
                    self._newest[key] = line

    def newest(self, line: str, key: str) -> str:
        """Return what to send in place of a line from the outbox: a newer version that was sent from here, or itself.

        Call it after the line was taken from the outbox: lines that are appended later come after those of `give_back`.
        """
        return self._newest.get(key, line) if key else line

    def give_back(self, append: Append) -> None:
        """Give everything to `append`, oldest first. When that raises, what it did not take stays here.

        `append` may call this again, as that of OrderedOutbox does: then nothing is done.
        """
        with self._order:
            if self._returning:
                return
            self._returning = True
            try:
                self._give_newest(append)
                self._give_waiting(append)
            finally:
                self._returning = False

    def _give_newest(self, append: Append) -> None:
        with self._lock:
            sent = dict(self._newest)
        if sent:
            append([(line.encode(), key) for key, line in sent.items()])
            with self._lock:  # a newer version may have been sent meanwhile: that one stays
                self._newest = {key: line for key, line in self._newest.items() if sent.get(key) != line}

    def _give_waiting(self, append: Append) -> None:
        while True:
            some, mark = self.first(ROW_LINES)  # few enough to notice soon that the disk is full again
            if not some:
                return
            append([(line.encode(), key) for line, key in some])
            with self._lock:
                for _ in range(self._removed - mark, len(some)):
                    self._pop()

    def drop(self, doomed: Callable[[str], bool]) -> None:
        """Remove the lines that are `doomed`. Not to be called between `first` and `done`."""
        with self._order, self._lock:
            self._lines = deque((line, key) for line, key in self._lines if not doomed(line))
            self._newest = {key: line for key, line in self._newest.items() if not doomed(line)}

    @property
    def overtaken(self) -> int:
        """Of how many points an older version may still wait in the outbox."""
        return len(self._newest)

    def _pop(self) -> tuple[str, str]:
        self._removed += 1
        return self._lines.popleft()

    def __len__(self) -> int:
        return len(self._lines)


class OrderedOutbox(Outbox):
    """An outbox that takes back what waits in memory before it takes anything newer, so that the order is kept.

    Everything in `memory` is newer than everything in this outbox. If the outbox cannot be opened at first because of
    its disk, that is no error: lines are sent from memory, and the outbox is used when it can be opened.
    """

    def __init__(self, path: Path, memory: MemoryQueue, *, max_bytes: int, key_of: KeyOf | None = None) -> None:
        self._memory = memory
        super().__init__(path, max_bytes=max_bytes, patient=True, key_of=key_of)
        if self.trouble:
            log.error(
                "%s. It is tried again automatically. Until then readings are sent to InfluxDB directly. What is "
                "learnt from them (the id of the meter, the registers of the hours) is in memory. It is lost if this "
                "process ends before the outbox can be used, and so are readings that were not sent.",
                self.trouble,
            )

    def append(self, rows: Iterable[tuple[bytes, str]], state: Mapping[str, str | None] | None = None) -> None:
        """As Outbox.append."""
        rows = list(rows)
        if rows and (self._memory or self._memory.overtaken):
            self._memory.give_back(self.append)
        super().append(rows, state)
