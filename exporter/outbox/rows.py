"""Changes to the rows of the outbox. Each function gets an open connection, and runs inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from exporter.outbox.batch import Batch
from exporter.outbox.checks import check_deleted, whole
from exporter.outbox.chunk import Line, checksum, keys_in, packed

__all__ = [
    "NO_LIMIT",
    "Ranges",
    "delete_older_versions",
    "delete_rows",
    "drop_oldest",
    "hold_size",
    "is_held",
    "pragma",
    "refused_in",
    "remove",
    "remove_lines",
    "remove_refused",
    "shrink",
    "used_bytes",
]

_ROWS_AT_ONCE: Final = 64
_KEPT_PAGES: Final = 1024
"""Free pages of 4 KiB that stay in the file for the next rows."""
_LEAST_PAGES: Final = 256
"""A file is never held to fewer pages, so that an empty one is of use on a full disk."""
_PAGES_AT_ONCE: Final = 2048
"""At most so many pages are returned to the disk in one transaction."""
NO_LIMIT: Final = 0x3FFFFFFF
"""SQLite's own limit for the size of a file, in pages; newer versions of SQLite have a higher one."""
_BACKLOG_LINES: Final = 10_000
"""With more lines waiting, the file does not shrink."""

Ranges = Sequence[tuple[int, int]]
"""Ids of refused lines: the first and the last of each range."""


def remove(db: sqlite3.Connection, batch: Batch, kept: set[int]) -> None:
    """Delete the rows of a batch. A row with lines to keep stays with these, and is marked as sent."""
    start, deleted = 0, set[int]()
    for row, count in batch.rows:
        places = [place for place in range(start, start + count) if place in kept]
        start += count
        if places:
            _rewrite(db, row, [(batch.lines[place].encode(), batch.keys[place]) for place in places])
            db.execute("UPDATE chunk SET sent = 1 WHERE id = ?", (row,))
        else:
            db.execute("DELETE FROM chunk WHERE id = ?", (row,))
            deleted.add(row)
    check_deleted(db, deleted, {row for row, _ in batch.rows})


def _rewrite(db: sqlite3.Connection, row: int, lines: Sequence[Line]) -> None:
    """Replace the lines of a row."""
    body, keys = packed(lines)
    change = "UPDATE chunk SET lines = ?, crc = ?, body = ?, keys = ? WHERE id = ?"
    db.execute(change, (len(lines), checksum(body, keys), body, keys, row))


def delete_rows(db: sqlite3.Connection, rows: Collection[int]) -> None:
    """Delete rows by their ids."""
    db.executemany("DELETE FROM chunk WHERE id = ?", [(row,) for row in rows])
    check_deleted(db, rows, rows)


def drop_oldest(db: sqlite3.Connection, rows: int) -> int | None:
    """Delete the oldest rows and count their lines as dropped; return how many lines, or None when there was no row."""
    deleted = db.execute("SELECT id, lines, sent FROM chunk ORDER BY id LIMIT ?", (rows,)).fetchall()
    if not deleted:
        return None
    dropped = sum(whole(lines) for _, lines, sent in deleted if not sent)
    delete_rows(db, {row for row, _, _ in deleted})
    db.execute("UPDATE tally SET dropped = dropped + ?", (dropped,))
    return dropped


def shrink(db: sqlite3.Connection) -> None:
    """Return free pages to the disk, at most `_PAGES_AT_ONCE`; some stay for the next rows.

    Not while many lines wait: SQLite would move their pages to the front of the file, one by one, and sending them
    takes twice as long. Not while the disk is full: another program would take the room that the next rows need.
    """
    if is_held(db):
        return
    free = pragma(db, "freelist_count")
    if free <= _KEPT_PAGES or db.execute("SELECT depth FROM tally").fetchone()[0] > _BACKLOG_LINES:
        return
    for _ in range(min(free - _KEPT_PAGES, _PAGES_AT_ONCE)):
        db.execute("PRAGMA incremental_vacuum(1)")  # one: sqlite3 steps a statement without columns once


def remove_lines(
    db: sqlite3.Connection, doomed: Callable[[str], bool], mark: str, after: int, last: int
) -> tuple[int, int]:
    """Remove the `doomed` lines from some rows after the id `after`, up to `last`.

    Returns how many lines were removed, and the id to go on from. Damaged rows are left: they are found when they are
    taken to be sent.
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


def remove_refused(db: sqlite3.Connection, doomed: Callable[[str], bool], mark: str) -> int:
    """Remove the `doomed` refused lines; return how many."""
    found = db.execute("SELECT id, line FROM rejected WHERE instr(line, ?)", (mark,)).fetchall()
    deleted = [(row,) for row, line in found if doomed(line)]
    db.executemany("DELETE FROM rejected WHERE id = ?", deleted)
    return len(deleted)


def refused_in(db: sqlite3.Connection, ids: Ranges, limit: int = -1) -> Iterator[tuple[int, str, str]]:
    """Yield id, line and key of the refused lines with these ids, oldest first in each range; -1 means no limit."""
    query = "SELECT id, line, key FROM rejected WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?"
    for first, last in ids:
        yield from db.execute(query, (first, last, limit))


def delete_older_versions(db: sqlite3.Connection, taken: Iterable[str]) -> None:
    """Remove the refused lines that have one of these keys: a newer version was taken, so they must not be sent."""
    newer = {key for key in taken if key}
    if not newer or not db.execute("SELECT rejected FROM tally").fetchone()[0]:
        return
    older = db.execute("SELECT id, key FROM rejected WHERE key != ''")  # there may be many: one at a time
    deleted = [(row,) for row, key in older if key in newer]
    db.executemany("DELETE FROM rejected WHERE id = ?", deleted)


def pragma(db: sqlite3.Connection, name: str) -> int:
    """Return the value of a pragma that is a number."""
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def hold_size(db: sqlite3.Connection) -> None:
    """Let the file grow no more, since its disk is full."""
    db.execute(f"PRAGMA max_page_count = {max(pragma(db, 'page_count'), _LEAST_PAGES)}")


def is_held(db: sqlite3.Connection) -> bool:
    """Return whether the file must not grow, since its disk is full."""
    return pragma(db, "max_page_count") < NO_LIMIT


def used_bytes(db: sqlite3.Connection) -> int:
    """Return how many bytes of the file are in use."""
    return (pragma(db, "page_count") - pragma(db, "freelist_count")) * pragma(db, "page_size")
