"""The durable queue between the readings and InfluxDB, and the state that points are derived from.

One SQLite file in WAL mode with `synchronous=FULL`: a commit is one fsync of the write-ahead log, so when `append`
returns, its lines and its state survive a power cut, and a kill leaves neither half. A row holds the lines of one
append (at most `ROW_LINES`), as text with a checksum; they leave in batches when InfluxDB has said yes to them.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from exporter.limiter import OnceAMinute
from exporter.outbox import state_table
from exporter.outbox.batch import Batch, RefusedLine, Status
from exporter.outbox.checks import StoredRow, number, row_of, tally, whole
from exporter.outbox.chunk import KeyOf, Line, checksum, keys_in, lines_in, packed
from exporter.outbox.disk_reserve import is_full, most_octets
from exporter.outbox.errors import OutboxError, OutboxLockedError
from exporter.outbox.file import OutboxFile
from exporter.outbox.rows import (
    Ranges,
    delete_rows,
    drop_oldest,
    drop_overtaken,
    give_back,
    pragma,
    refused_in,
    remove,
    take_out,
    take_out_refused,
    used_bytes,
)
from exporter.outbox.salvage import DAMAGED_ROW
from exporter.outbox.state_table import States

__all__ = ["DAMAGED_ROW", "ROW_LINES", "Outbox", "OutboxError", "OutboxLockedError"]

log = logging.getLogger(__name__)
T = TypeVar("T")

ROW_LINES = 1000
"""The most lines in one row: what one `append` brings is cut into rows of so many, in one transaction."""


class Outbox:
    """The queue and the state in one file; every method may be called from any thread.

    `max_bytes` bounds the file: when it is full the oldest lines go, counted and logged. `read_only` looks at an
    outbox that another process may be using; it takes no lock and can only be asked.

    Raises OutboxLockedError when another process has it, OutboxError when the file cannot be opened. A damaged file
    is set aside as `NAME.corrupt-TIME` and a new one is begun with what can be read out of it, both when it is opened
    and when damage shows later. What cannot be opened then (the disk is full) is tried again with a later use; with
    `patient` also what cannot be opened at first for such a reason, which `why_not` tells. Until then its state can be
    asked for, as far as it can be read.

    `key_of` gives the keys of the lines in a file of an older version, which stored none: such a file is brought up to
    date with it, and cannot be opened without.

    When the disk is full before the outbox is, the oldest lines go as well: `NAME.reserve` keeps the room for that.
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
        self._arrived = True  # what was left from the last time is news too
        self._dropped_unsaid = 0
        self._dropping = OnceAMinute()
        self._file = OutboxFile(path, read_only=read_only, clock=clock, patient=patient, key_of=key_of)

    # --- in -------------------------------------------------------------------------------------------------

    def append(self, rows: Iterable[tuple[bytes, str]], state: Mapping[str, str | None] | None = None) -> None:
        """Keep rows and the new state (None deletes a key), in one transaction.

        A row is a body, which is one line or several with "\\n" between them, encoded as UTF-8, and a key. The key is
        empty, or names the point that the one line is a version of: a later line with the same key replaces it. When
        this returns, rows and state survive a power cut. Raises OutboxError (disk full, disk broken) and keeps neither.
        """
        lines = list(lines_in(rows))
        if not lines and not state:
            return
        with self._file.in_words():
            try:
                dropped = self._file.write(lambda db: self._insert(db, lines, state or {}))
            except sqlite3.OperationalError as problem:
                if not is_full(problem, self.path):
                    raise
                dropped = self._file.write(lambda db: self._insert_into_full_disk(db, lines, state or {}))
        self._say_dropped(dropped)
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

    def _make_room(self, db: sqlite3.Connection, octets: int) -> int:
        """Drop the oldest rows until so many octets fit; return how many lines went."""
        dropped = 0
        # Half as much again as the body, and some pages: page heads, ends of pages, the other tables.
        need = octets + octets // 2 + 8 * pragma(db, "page_size")
        most = most_octets(self._max_bytes)
        while used_bytes(db) + need > most:
            lines = drop_oldest(db, rows=8)
            if lines is None:
                break
            dropped += lines
        return dropped

    def _insert_into_full_disk(
        self, db: sqlite3.Connection, lines: Sequence[Line], state: Mapping[str, str | None]
    ) -> int:
        """The disk is full before the outbox is: the pages of the oldest rows are used again for the new ones."""
        need = sum(len(line) + len(key) for line, key in lines) * 3 // 2 + 8 * pragma(db, "page_size")
        dropped = 0
        while pragma(db, "freelist_count") * pragma(db, "page_size") < need:
            gone = drop_oldest(db, rows=8)
            if gone is None:
                break
            dropped += gone
        return dropped + self._insert(db, lines, state)

    # --- state ----------------------------------------------------------------------------------------------

    def get_state(self, key: str) -> str | None:
        """The value kept under a key, or None."""
        return self._states(lambda db: state_table.read_key(db, key), lambda one: one == key).get(key)

    def states(self, prefix: str) -> dict[str, str]:
        """Every key that begins with `prefix`, and its value, in the order of the keys."""
        return self._states(lambda db: state_table.read_prefix(db, prefix), lambda key: key.startswith(prefix))

    def _states(self, read: Callable[[sqlite3.Connection], States], wanted: Callable[[str], bool]) -> dict[str, str]:
        """Key -> value, without those that were damaged on the disk."""

        def work(db: sqlite3.Connection) -> dict[str, str]:
            found = read(db)
            for key in found.damaged:
                log.error("The outbox %s: the value of %r is damaged, and is not used.", self.path, key)
            return found.values

        def instead(state: Mapping[str, str]) -> dict[str, str]:
            return {key: value for key, value in state.items() if wanted(key)}

        with self._file.in_words():
            return self._file.read_state(work, instead)

    # --- out ------------------------------------------------------------------------------------------------

    def take(self, max_lines: int, *, newest: bool) -> Batch | None:
        """The oldest or newest waiting lines, not removed; None when nothing waits.

        Whole rows only: at most `max_lines` lines, or one row if that alone has more. Newest leaves out what was
        sent before (see `delete`).
        """
        gone: set[tuple[int, int]] = set()
        with self._file.in_words():
            while True:
                rows, out_of_order, generation = self._file.read(lambda db: self._rows(db, max_lines, newest, gone))
                damaged = [row for row in rows if row.damaged]
                if not damaged:
                    break
                self._move_damaged_rows(damaged)
                gone.update((generation, row.id) for row in damaged)
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
        self, db: sqlite3.Connection, max_lines: int, newest: bool, gone: Collection[tuple[int, int]]
    ) -> tuple[list[StoredRow], bool, int]:
        where, order = ("WHERE sent = 0", "DESC") if newest else ("", "ASC")
        found: list[StoredRow] = []
        total = 0
        cursor = db.execute(f"SELECT id, enqueued, crc, body, keys, lines FROM chunk {where} ORDER BY id {order}")
        for row in map(row_of, cursor):
            if (self._file.generation, row.id) in gone:
                raise sqlite3.DatabaseError("a row of it cannot be deleted")
            total += row.lines
            if found and total > max_lines:
                break
            found.append(row)
        cursor.close()  # an open one would keep the log from being emptied
        found.sort(key=lambda row: row.id)
        return found, bool(found) and _older_waits(db, found, newest), self._file.generation

    def delete(
        self,
        batch: Batch,
        *,
        refused: Mapping[int, str] | None = None,
        keep: Iterable[int] = (),
    ) -> None:
        """Remove a batch that InfluxDB has taken, in one transaction.

        `rejected` maps the place of a line in `batch.lines` to InfluxDB's words: these are put aside. `keep` names
        places whose lines were taken but must be sent once more when their turn in the order of time comes (a point
        that is replaced as time goes on: its older version may still wait, and the newest must be the last to
        arrive). Refused lines with the key of a line that was taken are removed: they are older versions.
        Raises OutboxError and changes nothing.
        """
        refused = refused or {}
        aside = [(batch.lines[place], batch.keys[place], words) for place, words in sorted(refused.items())]
        kept = set(keep)

        def work(db: sqlite3.Connection) -> int:
            if batch.generation == self._file.generation:
                remove(db, batch, kept)
            drop_overtaken(db, (key for place, key in enumerate(batch.keys) if place not in refused))
            dropped = self._add_refused(db, aside)
            give_back(db)
            return dropped

        with self._file.in_words():
            self._say_dropped(self._file.write(work))

    # --- put aside ------------------------------------------------------------------------------------------

    def _add_refused(self, db: sqlite3.Connection, lines: Sequence[tuple[str, str, str]]) -> int:
        """Put (line, key, words) into `rejected`; return how many old ones were dropped for them."""
        now, dropped = self._clock(), 0
        rows = [(now, line, words, key) for line, key, words in lines]
        db.executemany("INSERT INTO rejected (at, line, words, key) VALUES (?, ?, ?, ?)", rows)
        # Bad lines without end must not push good ones out of a full outbox: an eighth is theirs.
        while tally(db).rejected_octets > self._max_bytes // 8:
            oldest = "DELETE FROM rejected WHERE id IN (SELECT id FROM rejected ORDER BY id LIMIT 64)"
            gone = db.execute(oldest).rowcount
            if not gone:
                raise sqlite3.DatabaseError("its tally is wrong")
            dropped += gone
        db.execute("UPDATE tally SET dropped = dropped + ?", (dropped,))
        return dropped

    def _move_damaged_rows(self, rows: Sequence[StoredRow]) -> None:
        lines = [line for row in rows for line in _damaged_lines(row)]

        def work(db: sqlite3.Connection) -> None:
            delete_rows(db, {row.id for row in rows})
            self._add_refused(db, [(line, key, DAMAGED_ROW) for line, key in lines])

        self._file.write(work)
        log.error("%d lines in the outbox %s were damaged; they are put aside", len(lines), self.path)

    def refused(self, limit: int = 100, below: int = 1 << 62) -> list[RefusedLine]:
        """The lines that were put aside, newest first; those whose id is below a number, to go on from there."""
        query = "SELECT id, at, line, words FROM rejected WHERE id < ? ORDER BY id DESC LIMIT ?"

        def work(db: sqlite3.Connection) -> list[RefusedLine]:
            rows = db.execute(query, (below, limit))
            return [RefusedLine(whole(row), number(at), str(line), str(words)) for row, at, line, words in rows]

        return self._ask(work)

    def retry_unkeyed(self, ids: Ranges) -> int:
        """Put the refused lines that have no key back into the queue, a thousand a transaction; return how many."""
        return self._each(ids, lambda key: not key, lambda db, lines: self._insert(db, lines, {}))

    def drop_refused(self, ids: Ranges) -> int:
        """Remove refused lines for good, a thousand a transaction; return how many."""
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

        with self._file.in_words():
            moved, left, dropped = self._file.write(work)
        self._say_dropped(dropped)
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
            give_back(db)
            return len(some), dropped, rows[-1][0] + 1 if rows else last + 1

        gone = 0
        with self._file.in_words():
            for start, last in ids:
                first = start
                while first <= last:
                    some, dropped, first = self._file.write(lambda db, a=first, b=last: piece(db, a, b))  # type: ignore[misc]
                    gone += some
                    self._say_dropped(dropped)
        self.wake()
        return gone

    def take_out(self, doomed: Callable[[str], bool], mark: str) -> tuple[int, int]:
        """Remove each line that contains `mark` and is `doomed`: how many waited, and how many were put aside.

        Some rows at a time, so that nobody waits long; what comes in meanwhile stays. A batch that was taken before
        holds its lines still: `delete` may put those it keeps back.
        """
        waited, after = 0, 0
        with self._file.in_words():
            last = self._file.read(lambda db: db.execute("SELECT max(id) FROM chunk").fetchone()[0] or 0)
            while after < last:
                done, upto = self._file.write(lambda db, after=after: take_out(db, doomed, mark, after, last))  # type: ignore[misc]
                waited, after = waited + done, upto
            aside = self._file.write(lambda db: take_out_refused(db, doomed, mark))
            self._file.write(give_back)
        return waited, aside

    # --- asking and waiting ---------------------------------------------------------------------------------

    @property
    def why_not(self) -> str:
        """Why it cannot be used at this moment, and what to do, in words; empty when it can."""
        return self._file.why

    def status(self) -> Status:
        """What the outbox holds now; cheap, also for a backlog of weeks."""

        def work(db: sqlite3.Connection) -> tuple[int, int, int, float | None]:
            depth, dropped, rejected, _ = tally(db)
            oldest = db.execute("SELECT enqueued FROM chunk ORDER BY id LIMIT 1").fetchone()
            return depth, dropped, rejected, number(oldest[0]) if oldest else None

        depth, dropped, rejected, oldest = self._ask(work)
        return Status(
            depth_lines=depth,
            oldest_age_s=None if oldest is None else max(0.0, self._clock() - oldest),
            size_bytes=self._file.octets(),
            dropped_lines=dropped,
            rejected_lines=rejected,
        )

    def wait(self, timeout: float) -> bool:
        """Sleep until something was appended since the last `wait` returned, or `wake`, or `timeout` seconds."""
        with self._news:
            news = self._news.wait_for(lambda: self._arrived, timeout)
            self._arrived = False
            return news

    def wake(self) -> None:
        """End a `wait` that goes on in another thread (on the way to a stop)."""
        with self._news:
            self._arrived = True
            self._news.notify_all()

    def close(self) -> None:
        """Close the file and let go of the lock; what was appended is safe with or without it."""
        self._file.close()
        self.wake()

    def _ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._file.in_words():
            return self._file.read(work)

    def _say_dropped(self, dropped: int) -> None:
        """Say that lines were dropped: the first time at once, then once a minute with the sum."""
        self._dropped_unsaid += dropped
        if not self._dropped_unsaid or not self._dropping.due():
            return
        log.error(
            "The outbox %s is full: its oldest %d lines were dropped. Let InfluxDB answer again, "
            "or give the outbox more room (HAN_OUTBOX_MAX) and the disk as well.",
            self.path,
            self._dropped_unsaid,
        )
        self._dropped_unsaid = 0


def _damaged_lines(row: StoredRow) -> list[tuple[str, str]]:
    """The lines of a damaged row and, if they can be told, their keys."""
    lines = str(row.body, "utf-8", "replace").split("\n")
    keys = [] if row.keys is None else str(row.keys, "utf-8", "replace").split("\n")
    return list(zip(lines, keys if len(keys) == len(lines) else [""] * len(lines), strict=True))


def _older_waits(db: sqlite3.Connection, found: Sequence[StoredRow], newest: bool) -> bool:
    """Whether a row that is older than one of these is left: before them, or between, sent and kept for its turn.

    `newest` rows are taken past those that were sent; the oldest are the first there are.
    """
    first = db.execute("SELECT min(id) FROM chunk").fetchone()[0]
    if first < found[0].id or not newest:
        return bool(first < found[0].id)
    between = "SELECT EXISTS (SELECT 1 FROM chunk WHERE id BETWEEN ? AND ? AND sent = 1)"
    return bool(db.execute(between, (found[0].id, found[-1].id)).fetchone()[0])
