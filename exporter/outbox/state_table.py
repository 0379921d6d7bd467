"""The table `state`: keys and values, each with a checksum."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["States", "insert_saved", "read_all", "read_first", "read_key", "read_prefix", "state_crc", "write"]

_NOT_CHECKED = -1
"""Checksum of a value that version 1 wrote: it is used as it is."""


class States(NamedTuple):
    """What was found: the sound values by key, in the order of the keys, and the keys whose value is damaged."""

    values: dict[str, str]
    damaged: list[str]


def state_crc(key: bytes, value: bytes) -> int:
    """Return the checksum that is stored with a value."""
    return zlib.crc32(value, zlib.crc32(key + b"\0"))


def read_key(db: sqlite3.Connection, key: str) -> States:
    """Return the value of one key, if there is one."""
    return _found(db.execute("SELECT key, value, crc FROM state WHERE key = ?", (key,)))


def read_prefix(db: sqlite3.Connection, prefix: str) -> States:
    """Return the values of all keys that begin with `prefix`."""
    # U+10FFFF sorts after everything that a key can hold: the primary key finds a range, and does not help LIKE.
    query = "SELECT key, value, crc FROM state WHERE key >= ? AND key < ? ORDER BY key"
    return _found(db.execute(query, (prefix, prefix + "\U0010ffff")))


def read_all(db: sqlite3.Connection) -> States:
    """Return the values of all keys."""
    return _found(db.execute("SELECT key, value, crc FROM state ORDER BY key"))


def read_first(db: sqlite3.Connection) -> None:
    """Read one entry, to see whether the table can be read."""
    db.execute("SELECT key FROM state LIMIT 1").fetchone()


def write(db: sqlite3.Connection, state: Mapping[str, str | None]) -> None:
    """Store values; None deletes a key."""
    for key, value in state.items():
        if value is None:
            db.execute("DELETE FROM state WHERE key = ?", (key,))
        else:
            db.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?)", _row(key, value))


def insert_saved(db: sqlite3.Connection, key: str, value: str) -> None:
    """Store a value that was read out of a damaged file, unless the key has one."""
    db.execute("INSERT OR IGNORE INTO state VALUES (?, ?, ?)", _row(key, value))


def _row(key: str, value: str) -> tuple[str, str, int]:
    return key, value, state_crc(key.encode(), value.encode())


def _found(rows: sqlite3.Cursor) -> States:
    found = States({}, [])
    for stored_key, stored_value, crc in rows.fetchall():
        key, value = str(stored_key), str(stored_value)
        if crc in (_NOT_CHECKED, state_crc(key.encode(), value.encode())):
            found.values[key] = value
        else:
            found.damaged.append(key)
    return found
