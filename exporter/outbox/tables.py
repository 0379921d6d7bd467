"""The tables of the outbox file: making them, bringing them up to date, and recognising them."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from typing import Final

from exporter.outbox.chunk import KeyOf, checksum, packed

__all__ = ["check_tables", "is_newer", "is_older", "make_tables", "ready_tables"]

_VERSION: Final = 3
"""Increased with every change of the tables, and only then: a newer file is recognised by its tables, too."""
_LAST_VERSION: Final = 999
"""A higher number is not a version but damage."""
_REJECTED_TRIGGERS: Final = (
    """CREATE TRIGGER rejected_in AFTER INSERT ON rejected BEGIN
    UPDATE tally SET rejected = rejected + 1,
        rejected_octets = rejected_octets + length(new.line) + length(new.words) + length(new.key); END;""",
    """CREATE TRIGGER rejected_out AFTER DELETE ON rejected BEGIN
    UPDATE tally SET rejected = rejected - 1,
        rejected_octets = rejected_octets - length(old.line) - length(old.words) - length(old.key); END;""",
)
_SCHEMA: Final = f"""
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice, so a batch never deletes another one's row
    enqueued REAL NOT NULL,
    lines INTEGER NOT NULL,
    sent INTEGER NOT NULL,                 -- 1: sent before older lines, and to be sent again after them
    crc INTEGER NOT NULL,                  -- CRC-32 of body and keys: SQLite does not notice a changed bit
    body BLOB NOT NULL,
    keys BLOB);                            -- a key for each line, "\\n" between them; NULL when no line has one
CREATE TABLE state (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL DEFAULT -1) WITHOUT ROWID;
CREATE TABLE rejected (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, line TEXT NOT NULL, words TEXT NOT NULL,
    key TEXT NOT NULL DEFAULT '');
CREATE TABLE tally (
    one INTEGER PRIMARY KEY CHECK (one = 1), depth INTEGER NOT NULL, dropped INTEGER NOT NULL,
    rejected INTEGER NOT NULL, rejected_octets INTEGER NOT NULL);
INSERT INTO tally VALUES (1, 0, 0, 0, 0);
CREATE TRIGGER chunk_in AFTER INSERT ON chunk BEGIN
    UPDATE tally SET depth = depth + new.lines; END;
CREATE TRIGGER chunk_out AFTER DELETE ON chunk BEGIN
    UPDATE tally SET depth = depth - old.lines; END;
CREATE TRIGGER chunk_less AFTER UPDATE OF lines ON chunk BEGIN
    UPDATE tally SET depth = depth + new.lines - old.lines; END;
{chr(10).join(_REJECTED_TRIGGERS)}
"""
# Triggers keep the tally, in the same transaction as what it counts. So opening a file with ten weeks of lines does not
# read them, and another process can ask for the number of lines at no cost.

# Version 1 had no checksum in the state. The values that it wrote get -1, and are used as they are.
_FROM_VERSION_1: Final = ("ALTER TABLE state ADD COLUMN crc INTEGER NOT NULL DEFAULT -1",)
# Version 2 stored no keys.
_FROM_VERSION_2: Final = (
    "ALTER TABLE chunk ADD COLUMN keys BLOB",
    "ALTER TABLE rejected ADD COLUMN key TEXT NOT NULL DEFAULT ''",
    "DROP TRIGGER rejected_in",
    "DROP TRIGGER rejected_out",
)
_ROWS_AT_ONCE: Final = 64


def make_tables(db: sqlite3.Connection) -> None:
    """Make the tables in an empty file, in one transaction."""
    db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")


def ready_tables(db: sqlite3.Connection, key_of: KeyOf) -> bool:
    """Make the tables, or bring those of an older version up to date; return whether the file is new.

    An older version stored no keys: `key_of` gives those of the lines in its file. Raises sqlite3.DatabaseError for a
    file that is damaged, as far as its version shows.
    """
    version = _known_version(db)
    if version == 0:
        make_tables(db)
    elif version < _VERSION:
        _upgrade(db, version, key_of)
    return version == 0


def is_older(db: sqlite3.Connection) -> bool:
    """Return whether an older version made the file. Raises sqlite3.DatabaseError as `ready_tables` does."""
    return 0 < _known_version(db) < _VERSION


def _upgrade(db: sqlite3.Connection, version: int, key_of: KeyOf) -> None:
    """Bring the tables up to date, in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in (*(_FROM_VERSION_1 if version == 1 else ()), *_FROM_VERSION_2):
            db.execute(statement)
        _add_keys(db, key_of)
        _add_rejected_keys(db, key_of)
        for trigger in _REJECTED_TRIGGERS:
            db.execute(trigger)
        db.execute(f"PRAGMA user_version = {_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have rolled back itself (disk full)
            db.execute("ROLLBACK")
        raise


def _add_keys(db: sqlite3.Connection, key_of: KeyOf) -> None:
    """Store the keys of the waiting lines. A damaged row stays as it is: it is found when it is taken to be sent."""
    last = 0
    query = "SELECT id, crc, body FROM chunk WHERE id > ? ORDER BY id LIMIT ?"
    while rows := db.execute(query, (last, _ROWS_AT_ONCE)).fetchall():
        last = rows[-1][0]
        for row, crc, body in rows:
            if not isinstance(body, bytes) or checksum(body, None) != crc:
                continue
            _, keys = packed([(line, key_of(line.decode())) for line in body.split(b"\n")])
            if keys is not None:
                change = (keys, checksum(body, keys), row)
                db.execute("UPDATE chunk SET keys = ?, crc = ? WHERE id = ?", change)


def _add_rejected_keys(db: sqlite3.Connection, key_of: KeyOf) -> None:
    """Store the keys of the refused lines, and count their characters."""
    found = db.execute("SELECT id, line FROM rejected")
    keys = [(key, row) for row, line in found if (key := key_of(str(line)))]
    db.executemany("UPDATE rejected SET key = ? WHERE id = ?", keys)
    db.execute("UPDATE tally SET rejected_octets = rejected_octets + (SELECT total(length(key)) FROM rejected)")


def check_tables(db: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError when the tables are not as they were made. Those of older versions are accepted."""
    if _known_version(db) == _VERSION and _form(db) != _right_form():
        raise sqlite3.DatabaseError("its tables are not as they were made")


def _known_version(db: sqlite3.Connection) -> int:
    version, there = _version(db), _form(db)
    if version == 0 and not there:
        return 0
    if version == 1 and ("state", "crc", "INTEGER") not in there:
        return 1
    if version == 2 and ("chunk", "keys", "BLOB") not in there:
        return 2
    if version != _VERSION:
        raise sqlite3.DatabaseError(f"its version, {version}, is impossible")
    return version


def is_newer(db: sqlite3.Connection) -> bool:
    """Return whether a newer version may have made the file.

    The number alone is not enough, since one byte of it may be damaged: if every column and trigger is that of this
    version, then this version made the file. Tables that cannot be read may be of a kind that is not known here.
    """
    if not _VERSION < _version(db) <= _LAST_VERSION:
        return False
    try:
        return _form(db) != _right_form()
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return True


def _form(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    """Return the columns of all tables, and the triggers with their SQL."""
    columns = (
        "SELECT made.name, one.name, one.type FROM sqlite_master AS made, pragma_table_info(made.name) AS one "
        "WHERE made.type = 'table' AND made.name NOT LIKE 'sqlite_%' ORDER BY made.name, one.cid"
    )
    triggers = "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    return [*db.execute(columns), *db.execute(triggers)]


def _right_form() -> list[tuple[str, ...]]:
    """Return what `_form` returns for a file of this version."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_SCHEMA)
        return _form(db)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
