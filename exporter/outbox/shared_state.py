"""The state in an outbox file, for a command that runs while the service has that file open."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from exporter.outbox import state_table
from exporter.outbox.chunk import KeyOf
from exporter.outbox.queue import Outbox, OutboxError, OutboxLockedError

_PATIENCE_S = 10.0


class SharedState:
    """Reads and writes the state of the outbox at `path`, and nothing else in it.

    The file is made if there is none. The service keeps its lock. SQLite's own lock keeps the two from writing at the
    same time.
    `key_of` as for Outbox. Raises OutboxError when the file cannot be used.
    """

    def __init__(self, path: Path, key_of: KeyOf | None = None) -> None:
        self._path = path
        with suppress(OutboxLockedError):  # a running service has it, so it exists and is sound
            Outbox(path, key_of=key_of).close()
        try:
            self._db = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None)
            self._db.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error as problem:
            raise OutboxError(f"the outbox {path} cannot be used: {problem}") from problem

    def get(self, key: str) -> str | None:
        """Return the value of a key, or None when there is none or it is damaged. Raises OutboxError."""
        try:
            return state_table.read_key(self._db, key).values.get(key)
        except sqlite3.Error as problem:
            raise OutboxError(f"the outbox {self._path} cannot be read: {problem}") from problem

    def put(self, state: Mapping[str, str]) -> None:
        """Store all of it, or nothing and raise OutboxError.

        Each value is a JSON object. It is merged with the one that is stored, since two imports may run at once.
        """
        if not state:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                merged = {key: _merged(self.get(key), text) for key, text in state.items()}
                state_table.write(self._db, merged)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as problem:
            raise OutboxError(f"the outbox {self._path} cannot be written: {problem}") from problem

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _merged(there: str | None, more: str) -> str:
    return more if there is None else json.dumps(json.loads(there) | json.loads(more), separators=(",", ":"))
