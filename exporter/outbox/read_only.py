"""Reading an outbox that this process cannot open: another process has it, or its disk takes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from exporter.outbox.salvage import surviving_state
from exporter.outbox.state_table import read_all

__all__ = ["connect_read_only", "read_state"]


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open the file for reading: nothing is made or changed, and no lock is taken."""
    # Without a log nobody has it open, and SQLite can read it even where this user may not write.
    immutable = "" if Path(f"{path}-wal").exists() else "&immutable=1"
    uri = f"{path.absolute().as_uri()}?mode=ro{immutable}"
    return sqlite3.connect(uri, uri=True, timeout=10, check_same_thread=False)


def read_state(path: Path) -> dict[str, str]:
    """Return the state in an outbox that this process does not have open, in the order of the keys. Raises OSError.

    If SQLite cannot read the file (with a log beside it, it needs a little room on the disk), or finds it damaged, the
    state is read from its pages.
    """
    try:
        with closing(connect_read_only(path)) as db:
            return read_all(db).values
    except (sqlite3.Error, UnicodeDecodeError):
        there = path if path.exists() else Path(f"{path}.salvage")  # while a damaged file is being replaced
        return dict(sorted(surviving_state(there)))
