"""What is done to the rows of the outbox, each on an open connection and as a part of a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from exporter.outbox.batch import Batch
from exporter.outbox.checks import check_gone, whole
from exporter.outbox.chunk import Line, checksum, keys_in, packed

__all__ = [
    "GROWS",
    "Ranges",
    "delete_rows",
    "drop_oldest",
    "drop_overtaken",
    "give_back",
    "grow_no_more",
    "grows_no_more",
    "pragma",
    "refused_in",
    "remove",
    "take_out",
    "take_out_refused",
    "used_bytes",
]

_ROWS_AT_ONCE: Final = 64
_KEPT_PAGES: Final = 1024
_FEW_PAGES: Final = 256
_PAGES_AT_ONCE: Final = 2048
GROWS: Final = 0x3FFFFFFF
"""SQLite's own bound of a file, in pages; newer ones have a higher."""
_BACKLOG_LINES: Final = 10_000

Ranges = Sequence[tuple[int, int]]
"""Ids of rejected lines: first and last of each range."""


def remove(db: sqlite3.Connection, batch: Batch, kept: set[int]) -> None:
    """Delete a batch's rows; a row with kept lines stays with these, marked as sent."""
    start, gone = 0, set[int]()
    for row, count in batch.rows:
        places = [place for place in range(start, start + count) if place in kept]
        start += count
        if places:
            _rewrite(db, row, [(batch.lines[place].encode(), batch.keys[place]) for place in places])
            db.execute("UPDATE chunk SET sent = 1 WHERE id = ?", (row,))
        else:
            db.execute("DELETE FROM chunk WHERE id = ?", (row,))
            gone.add(row)
    check_gone(db, gone, {row for row, _ in batch.rows})


def _rewrite(db: sqlite3.Connection, row: int, lines: Sequence[Line]) -> None:
    """Replace the lines of a row."""
    body, keys = packed(lines)
    change = "UPDATE chunk SET lines = ?, crc = ?, body = ?, keys = ? WHERE id = ?"
    db.execute(change, (len(lines), checksum(body, keys), body, keys, row))


def delete_rows(db: sqlite3.Connection, rows: Collection[int]) -> None:
    """Delete rows by their ids."""
    db.executemany("DELETE FROM chunk WHERE id = ?", [(row,) for row in rows])
    check_gone(db, rows, rows)


def drop_oldest(db: sqlite3.Connection, rows: int) -> int | None:
    """Delete the oldest rows and count their lines as dropped; return how many, None when there was no row."""
    gone = db.execute("SELECT id, lines, sent FROM chunk ORDER BY id LIMIT ?", (rows,)).fetchall()
    if not gone:
        return None
    lost = sum(whole(lines) for _, lines, sent in gone if not sent)
    delete_rows(db, {row for row, _, _ in gone})
    db.execute("UPDATE tally SET dropped = dropped + ?", (lost,))
    return lost


def give_back(db: sqlite3.Connection) -> None:
    """Let the file shrink after a backlog, a bounded piece at a time; a little is kept for the next rows.

    Not while much waits: its rows would be moved to the front for every page, and catching up takes twice as long. Not
    while the disk is full: what another takes meanwhile is not there for the next rows.
    """
    if grows_no_more(db):
        return
    free = pragma(db, "freelist_count")
    if free <= _KEPT_PAGES or db.execute("SELECT depth FROM tally").fetchone()[0] > _BACKLOG_LINES:
        return
    for _ in range(min(free - _KEPT_PAGES, _PAGES_AT_ONCE)):
        db.execute("PRAGMA incremental_vacuum(1)")  # one by one: sqlite3 steps a statement without columns once


def take_out(
    db: sqlite3.Connection, doomed: Callable[[str], bool], mark: str, after: int, last: int
) -> tuple[int, int]:
    """Remove doomed lines from the next rows behind `after`, up to `last`; how many, and where to go on.

    Rows that were damaged are left: they are met where they are sent.
    """
    query = "SELECT id, crc, body, keys FROM chunk WHERE id > ? AND id <= ? ORDER BY id LIMIT ?"
    rows = db.execute(query, (after, last, _ROWS_AT_ONCE)).fetchall()
    removed = 0
    for row, crc, body, keys in rows:
        if not isinstance(body, bytes) or mark.encode() not in body or checksum(body, keys) != crc:
            continue
        lines = body.split(b"\n")
        left = [
            (line, key)
            for line, key in zip(lines, keys_in(keys, len(lines)), strict=True)
            if not doomed(str(line, "utf-8"))
        ]
        removed += len(lines) - len(left)
        if not left:
            db.execute("DELETE FROM chunk WHERE id = ?", (row,))
        elif len(left) < len(lines):
            _rewrite(db, row, left)
    return removed, rows[-1][0] if rows else last


def take_out_refused(db: sqlite3.Connection, doomed: Callable[[str], bool], mark: str) -> int:
    """Remove doomed lines from those that were put aside; how many."""
    found = db.execute("SELECT id, line FROM rejected WHERE instr(line, ?)", (mark,)).fetchall()
    gone = [(row,) for row, line in found if doomed(line)]
    db.executemany("DELETE FROM rejected WHERE id = ?", gone)
    return len(gone)


def refused_in(db: sqlite3.Connection, ids: Ranges, limit: int = -1) -> Iterator[tuple[int, str, str]]:
    """Yield id, line and key of the refused lines with these ids, oldest first in each range; -1 means no limit."""
    query = "SELECT id, line, key FROM rejected WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
    for first, last in ids:
        yield from db.execute(query, (first, last, limit))


def drop_overtaken(db: sqlite3.Connection, taken: Iterable[str]) -> None:
    """Remove the refused lines that have one of these keys: a newer version was taken, so they must not be sent."""
    newer = {key for key in taken if key}
    if not newer or not db.execute("SELECT rejected FROM tally").fetchone()[0]:
        return
    older = db.execute("SELECT id, key FROM rejected WHERE key != ''")  # there may be many: one at a time
    gone = [(row,) for row, key in older if key in newer]
    db.executemany("DELETE FROM rejected WHERE id = ?", gone)


def pragma(db: sqlite3.Connection, name: str) -> int:
    """A number that SQLite tells."""
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def grow_no_more(db: sqlite3.Connection) -> None:
    """Hold the file to the size that it has, since its disk is full; an empty one to as much as lets it be of use."""
    db.execute(f"PRAGMA max_page_count = {max(pragma(db, 'page_count'), _FEW_PAGES)}")


def grows_no_more(db: sqlite3.Connection) -> bool:
    """Whether the file is held to the size that it has: its disk is full."""
    return pragma(db, "max_page_count") < GROWS


def used_bytes(db: sqlite3.Connection) -> int:
    """How much of the file is in use."""
    return (pragma(db, "page_count") - pragma(db, "freelist_count")) * pragma(db, "page_size")
