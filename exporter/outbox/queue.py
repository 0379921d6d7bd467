"""The durable queue between the readings and the database, and the state that points are derived from.

One SQLite file in WAL mode with `synchronous=FULL`: a commit is one fsync of the write-ahead log. So when `append`
returns, its lines and its state survive a power cut, and a kill never leaves one without the other. A row of the table
`chunk` holds the lines of one append (at most `ROW_LINES`) with their keys and a checksum. The writer takes lines in
batches, and deletes a batch when the database has taken it.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from exporter.counted import counted
from exporter.limiter import OnceAMinute
from exporter.outbox import state_table
from exporter.outbox.batch import Batch, RefusedLine, Status
from exporter.outbox.checks import StoredRow, number, row_of, tally, whole
from exporter.outbox.chunk import KeyOf, Line, checksum, keys_in, lines_in, packed
from exporter.outbox.disk_reserve import is_full, largest_size
from exporter.outbox.errors import OutboxError, OutboxLockedError
from exporter.outbox.file import OutboxFile
from exporter.outbox.rows import (
    Ranges,
    delete_older_versions,
    delete_rows,
    drop_oldest,
    pragma,
    refused_in,
    remove,
    remove_lines,
    remove_refused,
    shrink,
    used_bytes,
)
from exporter.outbox.salvage import DAMAGED_ROW
from exporter.outbox.state_table import States

__all__ = ["DAMAGED_ROW", "ROW_LINES", "Outbox", "OutboxError", "OutboxLockedError"]

log = logging.getLogger(__name__)
T = TypeVar("T")

ROW_LINES = 1000
"""The most lines in one row of the table. A longer append makes several rows, in one transaction."""


class Outbox:
    """The queue and the state in one file. Every method may be called from any thread.

    `max_bytes` is the limit for the size of the file: when it is reached, the oldest lines are dropped, counted and
    reported in the log. They are dropped, too, when the disk is full before that: `NAME.reserve` keeps room for this.

    `read_only` is for looking at an outbox that another process may be using: it takes no lock and changes nothing.

    Raises OutboxLockedError when another process has the outbox, OutboxError when the file cannot be opened. With
    `patient`, the latter is not raised when the reason may pass (the disk is full, read-only or gives errors): then
    `trouble` says what is wrong, and a later call tries again.

    A damaged file is renamed to `NAME.corrupt-TIME`, and a new one is begun with what can be read out of it. This
    happens when the damage is found: when the file is opened, or later. If the new one cannot be made (the disk is
    full), a later call tries again. Until then the state can be read as far as it is not damaged.

    `key_of` gives the keys of the lines in a file of version 1 or 2, which stored none. Such a file is brought up to
    date when it is opened, and cannot be opened without `key_of`.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 1 << 30,
        clock: Callable[[], float] = time.time,
        read_only: bool = False,
        patient: bool = False,
        key_of: KeyOf | None = None,
    ) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._clock = clock
        self._news = threading.Condition()
        self._arrived = True  # lines may have been waiting since the last time
        self._unreported = 0
        self._dropping = OnceAMinute()
        self._file = OutboxFile(path, read_only=read_only, clock=clock, patient=patient, key_of=key_of)

    # --- appending ------------------------------------------------------------------------------------------

    def append(self, rows: Iterable[tuple[bytes, str]], state: Mapping[str, str | None] | None = None) -> None:
        """Keep rows and the new state (None deletes a key), in one transaction.

        A row is a body, which is one line or several with "\\n" between them, encoded as UTF-8, and a key. The key is
        empty, or names the point that the one line is a version of: a later line with the same key replaces it. When
        this returns, rows and state survive a power cut. Raises OutboxError (disk full, disk broken) and keeps neither.
        """
        lines = list(lines_in(rows))
        if not lines and not state:
            return
        with self._file.as_outbox_error():
            try:
                dropped = self._file.write(lambda db: self._insert(db, lines, state or {}))
            except sqlite3.OperationalError as problem:
                if not is_full(problem, self.path):
                    raise
                dropped = self._file.write(lambda db: self._insert_into_full_disk(db, lines, state or {}))
        self._report_dropped(dropped)
        if lines:
            self.wake()

    def _insert(self, db: sqlite3.Connection, lines: Sequence[Line], state: Mapping[str, str | None]) -> int:
        """Insert rows and state; return how many lines had to be dropped for them."""
        now, dropped = self._clock(), 0
        for start in range(0, len(lines), ROW_LINES):
            body, keys = packed(lines[start : start + ROW_LINES])
            dropped += self._make_room(db, len(body) + len(keys or b""))
            db.execute(
                "INSERT INTO chunk (enqueued, lines, sent, crc, body, keys) VALUES (?, ?, 0, ?, ?, ?)",
                (now, min(ROW_LINES, len(lines) - start), checksum(body, keys), body, keys),
            )
        state_table.write(db, state)
        return dropped

    def _make_room(self, db: sqlite3.Connection, size: int) -> int:
        """Drop the oldest rows until so many bytes fit; return how many lines were dropped."""
        dropped = 0
        # Half as much again, and some pages: for page headers, unused ends of pages, and the other tables.
        need = size + size // 2 + 8 * pragma(db, "page_size")
        most = largest_size(self._max_bytes)
        while used_bytes(db) + need > most:
            lines = drop_oldest(db, rows=8)
            if lines is None:
                break
            dropped += lines
        return dropped

    def _insert_into_full_disk(
        self, db: sqlite3.Connection, lines: Sequence[Line], state: Mapping[str, str | None]
    ) -> int:
        """Reuse the pages of the oldest rows for the new ones, since the disk has no more."""
        need = sum(len(line) + len(key) for line, key in lines) * 3 // 2 + 8 * pragma(db, "page_size")
        dropped = 0
        while pragma(db, "freelist_count") * pragma(db, "page_size") < need:
            deleted = drop_oldest(db, rows=8)
            if deleted is None:
                break
            dropped += deleted
        return dropped + self._insert(db, lines, state)

    # --- state ----------------------------------------------------------------------------------------------

    def get_state(self, key: str) -> str | None:
        """Return the value of a key, or None."""
        return self._states(lambda db: state_table.read_key(db, key), lambda one: one == key).get(key)

    def states(self, prefix: str) -> dict[str, str]:
        """Return every key that begins with `prefix`, and its value, in the order of the keys."""
        return self._states(lambda db: state_table.read_prefix(db, prefix), lambda key: key.startswith(prefix))

    def _states(self, read: Callable[[sqlite3.Connection], States], wanted: Callable[[str], bool]) -> dict[str, str]:
        """Return values by key, without those that were damaged on the disk."""

        def work(db: sqlite3.Connection) -> dict[str, str]:
            found = read(db)
            for key in found.damaged:
                log.error("The outbox %s: the value of %r is damaged, and is not used.", self.path, key)
            return found.values

        def instead(state: Mapping[str, str]) -> dict[str, str]:
            return {key: value for key, value in state.items() if wanted(key)}

        with self._file.as_outbox_error():
            return self._file.read_state(work, instead)

    # --- taking and deleting --------------------------------------------------------------------------------

    def take(self, max_lines: int, *, newest: bool) -> Batch | None:
        """Return the oldest or the newest waiting lines without removing them, or None when no line waits.

        Only whole rows are taken: at most `max_lines` lines, or one row if that alone has more. The newest do not
        include lines that were sent before (see `delete`).
        """
        deleted: set[tuple[int, int]] = set()
        with self._file.as_outbox_error():
            while True:
                rows, out_of_order, generation = self._file.read(lambda db: self._rows(db, max_lines, newest, deleted))
                damaged = [row for row in rows if row.damaged]
                if not damaged:
                    break
                self._move_damaged_rows(damaged)
                deleted.update((generation, row.id) for row in damaged)
        if not rows:
            return None
        parts = [(row.id, str(row.body, "utf-8").split("\n")) for row in rows]
        return Batch(
            lines=tuple(line for _, part in parts for line in part),
            keys=tuple(key for row in rows for key in keys_in(row.keys, row.lines)),
            oldest=min(row.enqueued for row in rows),
            newest=max(row.enqueued for row in rows),
            out_of_order=out_of_order,
            rows=tuple((row, len(part)) for row, part in parts),
            generation=generation,
        )

    def _rows(
        self, db: sqlite3.Connection, max_lines: int, newest: bool, deleted: Collection[tuple[int, int]]
    ) -> tuple[list[StoredRow], bool, int]:
        where, order = ("WHERE sent = 0", "DESC") if newest else ("", "ASC")
        found: list[StoredRow] = []
        total = 0
        cursor = db.execute(f"SELECT id, enqueued, crc, body, keys, lines FROM chunk {where} ORDER BY id {order}")
        for row in map(row_of, cursor):
            if (self._file.generation, row.id) in deleted:
                raise sqlite3.DatabaseError("a row cannot be deleted")
            total += row.lines
            if found and total > max_lines:
                break
            found.append(row)
        cursor.close()  # with an open cursor SQLite cannot empty its log
        found.sort(key=lambda row: row.id)
        return found, bool(found) and _older_waiting(db, found, newest), self._file.generation

    def delete(
        self,
        batch: Batch,
        *,
        refused: Mapping[int, str] | None = None,
        keep: Iterable[int] = (),
    ) -> None:
        """Remove a batch that the database has taken, in one transaction. Raises OutboxError and changes nothing.

        `refused` has the lines that it did not take: place in `batch.lines` -> message of the database. They go into
        the table of refused lines. `keep` has the places of lines that were taken but must be sent again after the
        older ones that still wait: lines with a key, of which the newest must be the last to arrive. A line that was
        refused before is removed when a line with the same key was taken now: it is an older version.
        """
        refused = refused or {}
        lines = [(batch.lines[place], batch.keys[place], message) for place, message in sorted(refused.items())]
        kept = set(keep)

        def work(db: sqlite3.Connection) -> int:
            if batch.generation == self._file.generation:
                remove(db, batch, kept)
            delete_older_versions(db, (key for place, key in enumerate(batch.keys) if place not in refused))
            dropped = self._add_refused(db, lines)
            shrink(db)
            return dropped

        with self._file.as_outbox_error():
            self._report_dropped(self._file.write(work))

    # --- refused lines --------------------------------------------------------------------------------------

    def _add_refused(self, db: sqlite3.Connection, lines: Sequence[tuple[str, str, str]]) -> int:
        """Store (line, key, message) in the table `rejected`; return how many old ones were dropped for them."""
        now, dropped = self._clock(), 0
        rows = [(now, line, message, key) for line, key, message in lines]
        db.executemany("INSERT INTO rejected (at, line, words, key) VALUES (?, ?, ?, ?)", rows)
        # Refused lines get an eighth of the outbox, so that they never push all good lines out.
        while tally(db).rejected_octets > self._max_bytes // 8:
            oldest = "DELETE FROM rejected WHERE id IN (SELECT id FROM rejected ORDER BY id LIMIT 64)"
            deleted = db.execute(oldest).rowcount
            if not deleted:
                raise sqlite3.DatabaseError("its counts are wrong")
            dropped += deleted
        db.execute("UPDATE tally SET dropped = dropped + ?", (dropped,))
        return dropped

    def _move_damaged_rows(self, rows: Sequence[StoredRow]) -> None:
        """Move the lines of damaged rows to the refused lines."""
        lines = [line for row in rows for line in _damaged_lines(row)]

        def work(db: sqlite3.Connection) -> None:
            delete_rows(db, {row.id for row in rows})
            self._add_refused(db, [(line, key, DAMAGED_ROW) for line, key in lines])

        self._file.write(work)
        log.error(
            "The outbox %s: %s damaged, and not sent. `han-exporter rejected` shows what is left.",
            self.path,
            counted(len(lines), "line is", "lines are"),
        )

    def refused(self, limit: int = 100, below: int = 1 << 62) -> list[RefusedLine]:
        """Return refused lines, newest first: at most `limit`, and only those whose id is below `below`."""
        query = "SELECT id, at, line, words FROM rejected WHERE id < ? ORDER BY id DESC LIMIT ?"

        def work(db: sqlite3.Connection) -> list[RefusedLine]:
            rows = db.execute(query, (below, limit))
            return [RefusedLine(whole(row), number(at), str(line), str(words)) for row, at, line, words in rows]

        return self._ask(work)

    def retry_unkeyed(self, ids: Ranges) -> int:
        """Put the refused lines that have no key back into the queue; return how many.

        A transaction moves at most a thousand. The same holds for `drop_refused`.
        """
        return self._each(ids, lambda key: not key, lambda db, lines: self._insert(db, lines, {}))

    def drop_refused(self, ids: Ranges) -> int:
        """Delete refused lines; return how many."""
        return self._each(ids, lambda _: True, lambda _db, _lines: 0)

    def retry_keyed(self, ids: Ranges) -> tuple[int, int]:
        """Put the refused lines that have a key back into the queue; return how many, and how many were left.

        They are left while anything waits: a newer line with the same key may be there, and would be sent first.
        """

        def work(db: sqlite3.Connection) -> tuple[int, int, int]:
            rows = [(row, line.encode(), key) for row, line, key in refused_in(db, ids) if key]
            if tally(db).depth:
                return 0, len(rows), 0
            db.executemany("DELETE FROM rejected WHERE id = ?", [(row,) for row, _, _ in rows])
            return len(rows), 0, self._insert(db, [(line, key) for _, line, key in rows], {})

        with self._file.as_outbox_error():
            moved, left, dropped = self._file.write(work)
        self._report_dropped(dropped)
        self.wake()
        return moved, left

    def _each(
        self, ids: Ranges, wanted: Callable[[str], bool], work: Callable[[sqlite3.Connection, list[Line]], int]
    ) -> int:
        """Remove the refused lines whose key is `wanted`; in each transaction `work` is done with the lines.

        `work` returns how many waiting lines it dropped. Returns how many refused lines were removed.
        """

        def piece(db: sqlite3.Connection, first: int, last: int) -> tuple[int, int, int]:
            rows = list(refused_in(db, [(first, last)], ROW_LINES))
            some = [(row, line.encode(), key) for row, line, key in rows if wanted(key)]
            db.executemany("DELETE FROM rejected WHERE id = ?", [(row,) for row, _, _ in some])
            dropped = work(db, [(line, key) for _, line, key in some])
            shrink(db)
            return len(some), dropped, rows[-1][0] + 1 if rows else last + 1

        deleted = 0
        with self._file.as_outbox_error():
            for start, last in ids:
                first = start
                while first <= last:
                    some, dropped, first = self._file.write(lambda db, a=first, b=last: piece(db, a, b))  # type: ignore[misc]
                    deleted += some
                    self._report_dropped(dropped)
        self.wake()
        return deleted

    def remove_lines(self, doomed: Callable[[str], bool], mark: str) -> tuple[int, int]:
        """Remove each line that contains `mark` and is `doomed`; return how many were waiting, and how many refused.

        It removes some rows at a time, so that other threads do not wait long. Lines that are appended meanwhile stay.
        A batch that was taken before still has its lines: `delete` may store those again that it keeps.
        """
        waited, after = 0, 0
        with self._file.as_outbox_error():
            last = self._file.read(lambda db: db.execute("SELECT max(id) FROM chunk").fetchone()[0] or 0)
            while after < last:
                done, upto = self._file.write(lambda db, after=after: remove_lines(db, doomed, mark, after, last))  # type: ignore[misc]
                waited, after = waited + done, upto
            refused = self._file.write(lambda db: remove_refused(db, doomed, mark))
            self._file.write(shrink)
        return waited, refused

    # --- status and waiting ---------------------------------------------------------------------------------

    @property
    def trouble(self) -> str:
        """Why the outbox cannot be used at this moment, and what to do; empty when it can."""
        return self._file.why

    def status(self) -> Status:
        """Return what the outbox holds now. This is quick even when lines of weeks are waiting."""

        def work(db: sqlite3.Connection) -> tuple[int, int, int, float | None]:
            depth, dropped, rejected, _ = tally(db)
            oldest = db.execute("SELECT enqueued FROM chunk ORDER BY id LIMIT 1").fetchone()
            return depth, dropped, rejected, number(oldest[0]) if oldest else None

        depth, dropped, rejected, oldest = self._ask(work)
        return Status(
            depth_lines=depth,
            oldest_age_s=None if oldest is None else max(0.0, self._clock() - oldest),
            size_bytes=self._file.size_bytes(),
            dropped_lines=dropped,
            rejected_lines=rejected,
        )

    def wait(self, timeout: float) -> bool:
        """Wait for an append or `wake`, at most `timeout` seconds; return whether one came since the last `wait`."""
        with self._news:
            news = self._news.wait_for(lambda: self._arrived, timeout)
            self._arrived = False
            return news

    def wake(self) -> None:
        """End a `wait` in another thread (before a stop)."""
        with self._news:
            self._arrived = True
            self._news.notify_all()

    def close(self) -> None:
        """Close the file and release the lock. What was appended is on the disk without this, too."""
        self._file.close()
        self.wake()

    def _ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._file.as_outbox_error():
            return self._file.read(work)

    def _report_dropped(self, dropped: int) -> None:
        """Report in the log that lines were dropped: the first time at once, then once a minute with the sum."""
        self._unreported += dropped
        if not self._unreported or not self._dropping.due():
            return
        log.error(
            "The outbox %s is full: %s dropped, the oldest. Let InfluxDB answer again, or give the outbox more room "
            "(HAN_OUTBOX_MAX, and on the disk).",
            self.path,
            counted(self._unreported, "line was", "lines were"),
        )
        self._unreported = 0


def _damaged_lines(row: StoredRow) -> list[tuple[str, str]]:
    """Return the lines of a damaged row and, where their number is right, its keys."""
    lines = str(row.body, "utf-8", "replace").split("\n")
    keys = [] if row.keys is None else str(row.keys, "utf-8", "replace").split("\n")
    return list(zip(lines, keys if len(keys) == len(lines) else [""] * len(lines), strict=True))


def _older_waiting(db: sqlite3.Connection, found: Sequence[StoredRow], newest: bool) -> bool:
    """Return whether a row that is older than one of these stays.

    The oldest rows are the first of all. The newest rows pass over those that were sent before and kept: one may be
    between them.
    """
    first = db.execute("SELECT min(id) FROM chunk").fetchone()[0]
    if first < found[0].id or not newest:
        return bool(first < found[0].id)
    between = "SELECT EXISTS (SELECT 1 FROM chunk WHERE id BETWEEN ? AND ? AND sent = 1)"
    return bool(db.execute(between, (found[0].id, found[-1].id)).fetchone()[0])
