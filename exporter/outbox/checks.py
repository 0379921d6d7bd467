"""Whether what is read out of the outbox can be what was put into it: sqlite3.DatabaseError when it is damaged.

SQLite gives out what stands in the file. Damage can make a text of a number, or nothing of a row, and leave a file that
SQLite itself finds in order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from exporter.outbox.chunk import checksum

__all__ = ["LAST_ID", "Row", "Tally", "check_gone", "check_ids", "check_tally", "number", "row_of", "tally", "whole"]

LAST_ID: Final = 1 << 62
"""So many rows never were; behind the largest number there is, SQLite says that the disk is full."""


class Row(NamedTuple):
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


def row_of(columns: Sequence[object]) -> Row:
    """The row of these columns."""
    row_id, enqueued, crc, body, keys, lines = columns
    if not isinstance(body, bytes) or not (keys is None or isinstance(keys, bytes)):
        raise sqlite3.DatabaseError("a row of it holds no lines")
    row = Row(whole(row_id), number(enqueued), whole(crc), body, keys, whole(lines))
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


def check_tally(db: sqlite3.Connection) -> None:
    """Count again, all of it: a wrong tally would never be noticed, and what waits would never be none."""
    # total() and not sum(): this one knows no overflow
    (lines,) = db.execute("SELECT total(lines) FROM chunk").fetchone()
    aside, octets = db.execute(
        "SELECT count(*), total(length(line) + length(words) + length(key)) FROM rejected"
    ).fetchone()
    said = tally(db)
    if (lines, aside, octets) != (said.depth, said.rejected, said.rejected_octets):
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
