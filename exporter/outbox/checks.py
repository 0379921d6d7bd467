"""Checks of what is read out of the outbox file: they raise sqlite3.DatabaseError when it is damaged.

SQLite returns whatever is in the file. Damage can turn a number into a text, or remove a row, and SQLite itself may
find nothing wrong with the file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from exporter.outbox.chunk import checksum
from exporter.outbox.errors import OutboxError
from exporter.outbox.state_table import read_first
from exporter.outbox.tables import check_tables, is_newer, is_older

__all__ = [
    "CHECKED_WHOLE",
    "LAST_ID",
    "StoredRow",
    "Tally",
    "check_deleted",
    "check_file",
    "check_ids",
    "check_pages",
    "file_bytes",
    "number",
    "refuse_newer",
    "row_of",
    "tally",
    "whole",
]

CHECKED_WHOLE = 64 << 20
"""Bytes. Files up to this size are read and checked when they are opened: a second or two on a memory card."""
LAST_ID: Final = 1 << 62
"""No row can have a higher id. After the largest possible id SQLite reports a full disk."""


class StoredRow(NamedTuple):
    """A row of the table `chunk` as it is in the file; it may be damaged."""

    id: int
    enqueued: float
    crc: int
    body: bytes
    keys: bytes | None
    lines: int

    @property
    def damaged(self) -> bool:
        """Whether the checksum is wrong."""
        return checksum(self.body, self.keys) != self.crc


class Tally(NamedTuple):
    """The table `tally`: waiting lines, dropped lines, refused lines, and the characters of these."""

    depth: int
    dropped: int
    rejected: int
    rejected_octets: int


def row_of(columns: Sequence[object]) -> StoredRow:
    """Return the row with these columns."""
    row_id, enqueued, crc, body, keys, lines = columns
    if not isinstance(body, bytes) or not (keys is None or isinstance(keys, bytes)):
        raise sqlite3.DatabaseError("a row has no lines")
    row = StoredRow(whole(row_id), number(enqueued), whole(crc), body, keys, whole(lines))
    counts = {part.count(b"\n") + 1 for part in (body, keys) if part is not None}
    if counts != {row.lines} and not row.damaged:
        raise sqlite3.DatabaseError("a row has another number of lines than it says")
    return row


def whole(value: object) -> int:
    """Return a value that must be a whole number."""
    if not isinstance(value, int):
        raise sqlite3.DatabaseError("something else is in the place of a number")
    return value


def number(value: object) -> float:
    """Return a value that must be a number."""
    if not isinstance(value, float | int):
        raise sqlite3.DatabaseError("something else is in the place of a number")
    return value


def tally(db: sqlite3.Connection) -> Tally:
    """Return the table `tally`."""
    row = db.execute("SELECT depth, dropped, rejected, rejected_octets FROM tally").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("its counts are missing")
    return Tally(*map(whole, row))


def check_file(db: sqlite3.Connection, path: Path) -> None:
    """Raise sqlite3.DatabaseError for a damaged file, OutboxError for one that a newer version made.

    All of a small file is read. In a large one only a little is: damage in the rest is found when it is read.
    """
    refuse_newer(db, path)
    check_tables(db)
    tally(db)  # an empty file has none, and SQLite finds nothing wrong with it
    if file_bytes(path) <= CHECKED_WHOLE:
        check_pages(db)
        if not is_older(db):
            _check_tally(db)
    check_ids(db)
    db.execute("SELECT id FROM chunk ORDER BY id LIMIT 1").fetchone()
    read_first(db)


def check_pages(db: sqlite3.Connection) -> None:
    """Let SQLite check every page."""
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict.rpartition("\n")[2])


def refuse_newer(db: sqlite3.Connection, path: Path) -> None:
    """Raise OutboxError for a file that a newer version made, so that it is not treated as damaged."""
    if is_newer(db):
        raise OutboxError(f"the outbox {path} was made by a newer han-exporter: use that one, or another file")


def file_bytes(path: Path) -> int:
    """Return how much room the file takes on the disk, with SQLite's log."""
    total = 0
    for end in ("", "-wal"):
        with suppress(FileNotFoundError):
            total += Path(f"{path}{end}").stat().st_size
    return total


def _check_tally(db: sqlite3.Connection) -> None:
    """Count everything again: with a wrong count the outbox would never be empty."""
    # total() and not sum(): it does not raise on overflow
    (lines,) = db.execute("SELECT total(lines) FROM chunk").fetchone()
    count = "SELECT count(*), total(length(line) + length(words) + length(key)) FROM rejected"
    refused, size = db.execute(count).fetchone()
    found = tally(db)
    if (lines, refused, size) != (found.depth, found.rejected, found.rejected_octets):
        raise sqlite3.DatabaseError("its counts are wrong")


def check_deleted(db: sqlite3.Connection, deleted: Collection[int], done: Collection[int]) -> None:
    """Check that rows that were deleted, or sent and kept (`done`), would not be taken next.

    In a damaged tree SQLite can find a row when it walks through the table, and not find it by its id. Such a row
    would be sent for ever.
    """
    oldest = db.execute("SELECT id FROM chunk ORDER BY id LIMIT 1").fetchone()
    newest = db.execute("SELECT id FROM chunk WHERE sent = 0 ORDER BY id DESC LIMIT 1").fetchone()
    if (oldest is not None and oldest[0] in deleted) or (newest is not None and newest[0] in done):
        raise sqlite3.DatabaseError("a row cannot be deleted")


def check_ids(db: sqlite3.Connection) -> None:
    """Check that there is an id left for the next row."""
    for (last,) in db.execute("SELECT seq FROM sqlite_sequence UNION ALL SELECT max(id) FROM chunk"):
        if last is not None and whole(last) > LAST_ID:
            raise sqlite3.DatabaseError("the id of a row is impossible")
