"""Replaces a damaged outbox by a new one with what can be read out of it, and keeps the damaged file.

The new file is made as `NAME.salvage`. It is complete and on the disk before the damaged file is renamed. After a kill,
a power cut or a full disk at any step, the files that exist show what is left to do:

    NAME and NAME.salvage     the new one may be incomplete: it is removed, and NAME is found damaged again
    NAME.salvage alone        it is complete: the logs of the damaged file are renamed, and the new one gets its name

So nothing is read twice out of the damaged file into the same new one, and no new one is begun without it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

from exporter.outbox.chunk import KeyOf, checksum
from exporter.outbox.salvage import (
    DAMAGED_ROW,
    SALVAGED_NOTE,
    surviving_refused,
    surviving_rows,
    surviving_state,
)
from exporter.outbox.state_table import insert_saved
from exporter.outbox.tables import make_tables

__all__ = ["Saved", "finish", "replace", "sync_folder"]

_LOGS: Final = ("-wal", "-journal")
"""Logs that SQLite would write into any file of the name; the second exists while a file is being made."""
_NO_ID: Final = 1 << 45
"""No row has such an id: ids count from 1, and in the place of a damaged file from the time in ms."""


class Saved(NamedTuple):
    """How many lines were read out of a damaged file: waiting ones, and refused ones."""

    lines: int
    refused: int


def replace(path: Path, now: float, key_of: KeyOf | None = None) -> tuple[Path, Saved | Exception | None]:
    """Replace a damaged outbox; return its new name, and what was saved or why nothing was (None: done before).

    `key_of` gives the keys of the lines that an older version stored.

    Raises sqlite3.Error or OSError when there is no room for the new one, or it cannot be written. Then nothing was
    changed, or `finish` does the rest.
    """
    before = finish(path)
    if before is not None and before != path:
        return before, None
    new = _new(path)
    saved: Saved | Exception
    try:
        try:
            saved = _build(new, path, int(now * 1000), key_of)
        except sqlite3.Error as problem:
            if _of_the_disk(problem):
                raise
            saved = problem
            _build(new, None, int(now * 1000))
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    name = _free_name(path, now)
    # Each step is on the disk before the next. The file is first: its log must not be used with the new one.
    with suppress(FileNotFoundError):
        path.rename(name)
    sync_folder(path.parent)
    _put_in_place(path, name)
    return name, saved


def finish(path: Path) -> Path | None:
    """Complete a `replace` that was interrupted; return the new name of the damaged file, or None if there was none.

    Returns `path` when there is no damaged file any more: somebody removed it, or copied the new one there. Raises
    OSError.
    """
    new = _new(path)
    if not new.is_file():
        return None
    if (path.exists() and path.stat().st_size) or not new.stat().st_size:
        new.unlink()
        return None
    name = _last_name(path)
    _put_in_place(path, name or _free_name(path, time.time()))
    return name or path


def sync_folder(folder: Path) -> None:
    """Write the names of a folder's files to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _put_in_place(path: Path, name: Path) -> None:
    """Rename the logs of the damaged file, and then the new file."""
    for end in _LOGS:
        with suppress(FileNotFoundError):
            Path(f"{path}{end}").rename(f"{name}{end}")
    Path(f"{path}-shm").unlink(missing_ok=True)
    sync_folder(path.parent)
    _new(path).rename(path)
    sync_folder(path.parent)


def _build(new: Path, damaged: Path | None, first_id: int, key_of: KeyOf | None = None) -> Saved:
    """Make a new outbox with what can be read out of a damaged one. It is on the disk when this returns."""
    new.unlink(missing_ok=True)
    new.touch(mode=0o600)
    with closing(sqlite3.connect(new, isolation_level=None)) as db:
        # An incomplete file is removed, so it needs no journal. This comes first, since the next statement writes.
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cache_size = -1024")
        make_tables(db)
        db.execute("BEGIN")
        saved = Saved(0, 0) if damaged is None else _fill(db, damaged, first_id, key_of)
        db.execute("COMMIT")
    return saved


def _fill(db: sqlite3.Connection, damaged: Path, first_id: int, key_of: KeyOf | None) -> Saved:
    """Insert what can be read out of a damaged outbox.

    Rows keep their ids, and the new file gives higher ones from now on. So the order stays, even if the clock of this
    computer is wrong.
    """
    db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('chunk', ?)", (first_id,))
    for key, value in surviving_state(damaged):
        insert_saved(db, key, value)
    lines = refused = 0
    for row in surviving_rows(damaged, key_of):
        # A row whose id was damaged comes last: its place is not known.
        number = row.id if 0 < row.id < _NO_ID else None
        crc = checksum(row.body, row.keys)
        values = (number, row.enqueued, row.lines, row.sent, crc, row.body, row.keys)
        insert = "INSERT OR IGNORE INTO chunk (id, enqueued, lines, sent, crc, body, keys) VALUES (?, ?, ?, ?, ?, ?, ?)"
        lines += row.lines * db.execute(insert, values).rowcount
    for one in surviving_refused(damaged, key_of):
        number = one.id if 0 < one.id < _NO_ID else None
        noted = one.message == DAMAGED_ROW or one.message.endswith(SALVAGED_NOTE)
        message = one.message if noted else f"{one.message} {SALVAGED_NOTE}"
        insert = "INSERT OR IGNORE INTO rejected (id, at, line, words, key) VALUES (?, ?, ?, ?, ?)"
        refused += db.execute(insert, (number, one.at, one.line, message, one.key)).rowcount
    return Saved(lines, refused)


def _of_the_disk(problem: sqlite3.Error) -> bool:
    """Return whether it may work later: no room, no permission, a disk that gives errors."""
    return getattr(problem, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
    )


def _new(path: Path) -> Path:
    return Path(f"{path}.salvage")


def _free_name(path: Path, now: float) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    name, count = Path(f"{path}.corrupt-{stamp}"), 1
    while name.exists():
        count += 1
        name = Path(f"{path}.corrupt-{stamp}-{count}")
    return name


def _last_name(path: Path) -> Path | None:
    """Return the name that a damaged file got last, or None when there is none."""
    beside = [one for one in path.parent.iterdir() if one.name.startswith(f"{path.name}.corrupt-")]
    files = [one for one in beside if not one.name.endswith(_LOGS)]
    return max(files, key=lambda one: one.stat().st_ctime_ns, default=None)
