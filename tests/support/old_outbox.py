"""Outbox files as older versions made them."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

__all__ = ["made_old"]

_VERSION_2 = """
DROP TRIGGER rejected_in; DROP TRIGGER rejected_out;
UPDATE chunk SET crc = crc32(body);
ALTER TABLE chunk DROP COLUMN keys;
ALTER TABLE rejected DROP COLUMN key;
UPDATE tally SET rejected_octets = (SELECT total(length(line) + length(words)) FROM rejected);
CREATE TRIGGER rejected_in AFTER INSERT ON rejected BEGIN
    UPDATE tally SET rejected = rejected + 1,
        rejected_octets = rejected_octets + length(new.line) + length(new.words); END;
CREATE TRIGGER rejected_out AFTER DELETE ON rejected BEGIN
    UPDATE tally SET rejected = rejected - 1,
        rejected_octets = rejected_octets - length(old.line) - length(old.words); END;
PRAGMA user_version = 2;
"""
_VERSION_1 = """
CREATE TABLE old (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO old SELECT key, value FROM state; DROP TABLE state;
ALTER TABLE old RENAME TO state; PRAGMA user_version = 1;
"""


def made_old(path: Path, version: int) -> None:
    """Turn a closed outbox into what version 1 or 2 would have made of the same lines and state."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.create_function("crc32", 1, zlib.crc32)
        db.executescript(_VERSION_2 + (_VERSION_1 if version == 1 else ""))
        db.execute("VACUUM")
