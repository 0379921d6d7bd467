"""What an outbox says that can only be read: another process has it, or its disk takes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from exporter.outbox.salvage import surviving_state
from exporter.outbox.state_table import read_all

__all__ = ["connect_read_only", "state_of"]


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open to look, never to change: nothing is made, no lock is taken."""
    # Without a log beside it nobody has it open, and a folder that this user may not write to is no hindrance.
    immutable = "" if Path(f"{path}-wal").exists() else "&immutable=1"
    uri = f"{path.absolute().as_uri()}?mode=ro{immutable}"
    return sqlite3.connect(uri, uri=True, timeout=10, check_same_thread=False)


def state_of(path: Path) -> dict[str, str]:
    """The state in an outbox that this process does not have open, in the order of the keys. Raises OSError.

    Where SQLite cannot read it (it needs a little room itself where a log was left), or finds it damaged: what its
    pages have.
    """
    try:
        with closing(connect_read_only(path)) as db:
            return read_all(db).values
    except (sqlite3.Error, UnicodeDecodeError):
        there = path if path.exists() else Path(f"{path}.salvage")  # see replace_damaged
        return dict(sorted(surviving_state(there)))
