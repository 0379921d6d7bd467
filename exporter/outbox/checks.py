"""Whether what is read out of the outbox can be what was put into it: sqlite3.DatabaseError when it is damaged.

SQLite gives out what stands in the file. Damage can make a text of a number, or nothing of a row, and leave a file that
SQLite itself finds in order.
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
    "check_file",
    "check_gone",
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
"""So many rows never were; behind the largest number there is, SQLite says that the disk is full."""


class StoredRow(NamedTuple):
    """A row of lines as it is in the file; it may be damaged."""

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
    """What the file counts of itself: lines that wait, that were dropped, that were put aside, and octets of these."""

    depth: int
    dropped: int
    rejected: int
    rejected_octets: int


def row_of(columns: Sequence[object]) -> StoredRow:
    """The row of these columns."""
    row_id, enqueued, crc, body, keys, lines = columns
    if not isinstance(body, bytes) or not (keys is None or isinstance(keys, bytes)):
        raise sqlite3.DatabaseError("a row of it holds no lines")
    row = StoredRow(whole(row_id), number(enqueued), whole(crc), body, keys, whole(lines))
    counts = {part.count(b"\n") + 1 for part in (body, keys) if part is not None}
    if counts != {row.lines} and not row.damaged:
        raise sqlite3.DatabaseError("a row of it holds other lines than it says")
    return row


def whole(value: object) -> int:
    """A whole number."""
    if not isinstance(value, int):
        raise sqlite3.DatabaseError("a number in it is none")
    return value


def number(value: object) -> float:
    """A number."""
    if not isinstance(value, float | int):
        raise sqlite3.DatabaseError("a number in it is none")
    return value


def tally(db: sqlite3.Connection) -> Tally:
    """What the file counts."""
    row = db.execute("SELECT depth, dropped, rejected, rejected_octets FROM tally").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("its tally is gone")
    return Tally(*map(whole, row))


def check_file(db: sqlite3.Connection, path: Path) -> None:
    """Raise sqlite3.DatabaseError for a damaged file, OutboxError for one that a newer version made.

    All of a small file is read. In a large one only a little is: damage in the rest is found when it is read.
    """
    refuse_newer(db, path)
    check_tables(db)
    tally(db)  # an empty file has no tables, and is sound to SQLite
    if file_bytes(path) <= CHECKED_WHOLE:
        check_pages(db)
        if not is_older(db):
            _check_tally(db)
    check_ids(db)
    db.execute("SELECT id FROM chunk ORDER BY id LIMIT 1").fetchone()
    read_first(db)


def check_pages(db: sqlite3.Connection) -> None:
    """Let SQLite read every page."""
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict.rpartition("\n")[2])


def refuse_newer(db: sqlite3.Connection, path: Path) -> None:
    """Raise OutboxError for a file that a newer version made: this one would take it for damaged."""
    if is_newer(db):
        raise OutboxError(f"the outbox {path} was made by a newer han-exporter: use that one, or another file")


def file_bytes(path: Path) -> int:
    """How much room the file takes on the disk, with SQLite's log."""
    total = 0
    for end in ("", "-wal"):
        with suppress(FileNotFoundError):
            total += Path(f"{path}{end}").stat().st_size
    return total


def _check_tally(db: sqlite3.Connection) -> None:
    """Count everything again. A wrong tally would never be noticed otherwise, and the outbox would never be empty."""
    # total() and not sum(): it does not raise on overflow
    (lines,) = db.execute("SELECT total(lines) FROM chunk").fetchone()
    count = "SELECT count(*), total(length(line) + length(words) + length(key)) FROM rejected"
    refused, size = db.execute(count).fetchone()
    found = tally(db)
    if (lines, refused, size) != (found.depth, found.rejected, found.rejected_octets):
        raise sqlite3.DatabaseError("its tally is wrong")


def check_gone(db: sqlite3.Connection, gone: Collection[int], done: Collection[int]) -> None:
    """Look whether rows that were deleted, or are `done` and sent, are the next to be given out all the same.

    In a damaged tree a row can be met on the way and not be found by its id: it would be sent for ever.
    """
    oldest = db.execute("SELECT id FROM chunk ORDER BY id LIMIT 1").fetchone()
    newest = db.execute("SELECT id FROM chunk WHERE sent = 0 ORDER BY id DESC LIMIT 1").fetchone()
    if (oldest is not None and oldest[0] in gone) or (newest is not None and newest[0] in done):
        raise sqlite3.DatabaseError("a row of it cannot be deleted")


def check_ids(db: sqlite3.Connection) -> None:
    """Look whether there is a number left for the next row."""
    for (last,) in db.execute("SELECT seq FROM sqlite_sequence UNION ALL SELECT max(id) FROM chunk"):
        if last is not None and whole(last) > LAST_ID:
            raise sqlite3.DatabaseError("a row's number in it is impossible")
