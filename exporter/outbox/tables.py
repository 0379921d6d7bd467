"""The tables of the outbox file: how they are made, brought up to date, and known again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Final

__all__ = ["check_tables", "is_newer", "make_tables", "ready_tables"]

_VERSION: Final = 2
"""One more with every change of the tables, and with nothing else: a newer file is known by its tables, too."""
_LAST_VERSION: Final = 999
"""A number above this was never a version's: it is damage."""
_SCHEMA: Final = """
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice, so a batch can never delete another one's row
    enqueued REAL NOT NULL,
    lines INTEGER NOT NULL,
    sent INTEGER NOT NULL,                 -- 1: these were sent before older ones, and are sent once more in order
    crc INTEGER NOT NULL,                  -- CRC-32 of the body: SQLite does not notice a flipped bit
    body BLOB NOT NULL);
CREATE TABLE state (
    key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL DEFAULT -1) WITHOUT ROWID;
CREATE TABLE rejected (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, line TEXT NOT NULL, words TEXT NOT NULL);
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
CREATE TRIGGER rejected_in AFTER INSERT ON rejected BEGIN
    UPDATE tally SET rejected = rejected + 1,
        rejected_octets = rejected_octets + length(new.line) + length(new.words); END;
CREATE TRIGGER rejected_out AFTER DELETE ON rejected BEGIN
    UPDATE tally SET rejected = rejected - 1,
        rejected_octets = rejected_octets - length(old.line) - length(old.words); END;
"""
# Version 1 had no checksum in the state; what it left behind has -1, and is believed.
_FROM_VERSION_1: Final = "ALTER TABLE state ADD COLUMN crc INTEGER NOT NULL DEFAULT -1;"
# The tally is kept by triggers, in the same transaction as what it counts: opening a file with ten weeks in it does
# not read ten weeks, and another process can ask for the depth at no cost.


def make_tables(db: sqlite3.Connection) -> None:
    """Make the tables in an empty file, in one transaction."""
    db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")


def ready_tables(db: sqlite3.Connection) -> bool:
    """Make the tables, or bring them up to date; return whether the file is new.

    Raises sqlite3.DatabaseError for a file that is damaged, as far as its version tells.
    """
    version = _known_version(db)
    if version == 0:
        make_tables(db)
    elif version == 1:
        db.executescript(f"BEGIN; {_FROM_VERSION_1} PRAGMA user_version = {_VERSION}; COMMIT;")
    return version == 0


def check_tables(db: sqlite3.Connection) -> None:
    """Look whether the tables are as they were made; those of an older version are brought up to date by `run`.

    Raises sqlite3.DatabaseError for a file that is damaged.
    """
    if _known_version(db) == _VERSION and _form(db) != _right_form():
        raise sqlite3.DatabaseError("its tables are not as they were made")


def _known_version(db: sqlite3.Connection) -> int:
    version, there = _version(db), _form(db)
    if version == 0 and not there:
        return 0
    if version == 1 and ("state", "crc", "INTEGER") not in there:
        return 1
    if version != _VERSION:
        raise sqlite3.DatabaseError(f"its version, {version}, is impossible")
    return version


def is_newer(db: sqlite3.Connection) -> bool:
    """Whether a newer version may have made the file.

    The number alone is not believed, an octet of it may be damaged: this version's own tables, every column and
    trigger of them, are of this version. Tables that cannot be read may be of a kind that is not known here.
    """
    if not _VERSION < _version(db) <= _LAST_VERSION:
        return False
    try:
        return _form(db) != _right_form()
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return True


def _form(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    """The tables with their columns, and the triggers with what they do."""
    columns = (
        "SELECT made.name, one.name, one.type FROM sqlite_master AS made, pragma_table_info(made.name) AS one "
        "WHERE made.type = 'table' AND made.name NOT LIKE 'sqlite_%' ORDER BY made.name, one.cid"
    )
    triggers = "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    return [*db.execute(columns), *db.execute(triggers)]


def _right_form() -> list[tuple[str, ...]]:
    """The form of this version's file."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_SCHEMA)
        return _form(db)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
