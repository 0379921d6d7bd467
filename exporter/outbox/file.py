"""The SQLite file of the outbox: opening and checking it, the lock, a full disk, damage, and error messages."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from exporter.counted import counted
from exporter.outbox import replace_damaged
from exporter.outbox.checks import check_file, check_pages, file_bytes, refuse_newer
from exporter.outbox.chunk import KeyOf
from exporter.outbox.disk_reserve import Reserve, has_room, is_full, reserve_log
from exporter.outbox.errors import OutboxError, advice, fails_check, is_damage, may_pass
from exporter.outbox.lock import Lock
from exporter.outbox.read_only import connect_read_only, read_state
from exporter.outbox.rows import NO_LIMIT, hold_size, is_held
from exporter.outbox.salvage import may_be_written
from exporter.outbox.tables import is_older, ready_tables

__all__ = ["OutboxFile"]

log = logging.getLogger(__name__)

_AGAIN_S = 10.0
"""A file that could not be opened is tried again after this time, or after ten times what the last attempt took."""

_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What damage may raise: sqlite3 raises the second when SQLite's message quotes a damaged name."""

T = TypeVar("T")


class OutboxFile:
    """The open file. `write` and `read` run one piece of work at a time, called from any thread.

    A damaged file is renamed to `NAME.corrupt-TIME`, and a new one is begun with what can be read out of it. This
    happens when the damage is found: when the file is opened, or later. `generation` is then increased, so that row ids
    of the old file are not used in the new one.

    With `patient`, a file that cannot be opened because its disk is full, read-only or broken is tried again by a later
    call, as a file is that breaks later. Until then `why` says what is wrong.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool,
        clock: Callable[[], float],
        patient: bool = False,
        key_of: KeyOf | None = None,
    ) -> None:
        self.path = path
        self._key_of = key_of
        self.generation = 0
        self._clock = clock
        self._read_only = read_only
        self._reserve = Reserve(path)
        self._mutex = threading.RLock()
        self._lock = Lock(path)
        self._db: sqlite3.Connection | None = None
        self._closed = False
        self._why = ""  # why the file could not be opened
        self._not_before = 0.0  # when that is tried again, by the monotonic clock
        self._state: dict[str, str] | None = None  # what was read of a file that cannot be opened
        with self.as_outbox_error():
            if read_only:
                self._db = connect_read_only(path)
            else:
                self._begin(patient=patient)

    def _begin(self, *, patient: bool) -> None:
        began = time.monotonic()
        try:
            self._lock.take()
            self._open()
        except Exception as problem:
            cause = problem.__cause__ if isinstance(problem, OutboxError) else problem
            if not patient or not may_pass(cause, self.path):
                self.close()
                raise
            self._try_later(str(problem) if isinstance(problem, OutboxError) else self.explain(problem), began)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` as one transaction. Raises sqlite3.Error with nothing changed.

        `work` may run twice: in a file that turns out to be damaged and then in the new one, or on a full disk and then
        when some room was made.
        """
        with self._mutex:
            try:
                return self._with_repair(lambda: self._transaction(work))
            except sqlite3.OperationalError as problem:
                if self._read_only or not is_full(problem, self.path):
                    raise
                generation = self.generation  # a new file has room already
                self._with_repair(lambda: self._make_room() if self.generation == generation else None)
                return self._with_repair(lambda: self._transaction(work))

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which changes nothing. Raises sqlite3.Error."""
        with self._mutex:
            return self._with_repair(lambda: work(self._connection))

    def read_state(self, work: Callable[[sqlite3.Connection], T], instead: Callable[[Mapping[str, str]], T]) -> T:
        """As `read`. While the file cannot be opened, return `instead` of the state that can be read without SQLite.

        Raises sqlite3.Error, OSError or OutboxError.
        """
        with self._mutex:
            try:
                return self.read(work)
            except (OutboxError, *_DAMAGE, OSError) as problem:
                if not self._read_only and self._db is not None and may_pass(problem, self.path):
                    self._close_db()  # a later call opens it again
                    self._try_later(self.explain(problem), time.monotonic())
                if self._db is not None or self._closed:
                    raise
            if self._state is None:
                self._state = read_state(self.path)
            return instead(self._state)

    @property
    def why(self) -> str:
        """Why the file cannot be used; empty when it can."""
        return "" if self._db is not None else self._why

    def size_bytes(self) -> int:
        """Return how much room the file takes on the disk, with its log."""
        return file_bytes(self.path)

    def close(self) -> None:
        """Close the file and release the lock."""
        with self._mutex:
            self._closed = True
            self._close_db()
            self._lock.release()

    @contextmanager
    def as_outbox_error(self) -> Iterator[None]:
        """Turn errors of SQLite and of the system into an OutboxError that says what to do."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError, OSError) as problem:
            raise OutboxError(self.explain(problem)) from problem

    def explain(self, problem: Exception) -> str:
        """Return a message that says what to do about an error of SQLite or of the system."""
        code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
        if self._read_only and code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            return f"cannot read the outbox {self.path}: it does not exist yet, or this user may not read it"
        return f"the outbox {self.path} cannot be used ({problem}): {advice(problem, self.path)}"

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            self._open_again()
        assert self._db is not None
        return self._db

    def _open_again(self) -> None:
        """Open what could not be opened the last time, if some time has passed since."""
        if self._closed:
            raise OutboxError(f"the outbox {self.path} is closed")
        began = time.monotonic()
        if began < self._not_before:
            raise OutboxError(self._why)
        try:
            self._lock.take()
            self._open()
        except OutboxError:
            raise
        except (sqlite3.Error, UnicodeDecodeError, OSError) as problem:
            self._try_later(self.explain(problem), began)
            raise
        self._state = None
        log.warning("The outbox %s can be used again.", self.path)

    def _try_later(self, why: str, began: float) -> None:
        now = time.monotonic()
        self._why, self._not_before = why, now + max(_AGAIN_S, 10 * (now - began))

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        db = self._connection
        db.execute("BEGIN IMMEDIATE")
        try:
            result = work(db)
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # SQLite may have rolled back itself (disk full); the first error counts
                db.execute("ROLLBACK")
            raise
        return result

    def _with_repair(self, work: Callable[[], T]) -> T:
        """Run `work`. If it finds damage, replace the file and run it again."""
        try:
            return work()
        except _DAMAGE as problem:
            if self._read_only or not is_damage(problem):
                raise
            self._replace_damaged(problem)
            return work()

    def _make_room(self) -> None:
        """Make a little room on a full disk: use the reserve, write the log back, and let the file grow no more.

        From then on new rows can only use the pages of old rows that were deleted. Once there is room for the reserve
        again, the file may grow again.
        """
        db = self._connection
        if has_room(self.path) and not is_held(db):
            # SQLite also says "full" when the number of a page was damaged and is higher than any can be.
            check_pages(db)
        if is_held(db) and self._reserve.ensure():
            db.execute(f"PRAGMA max_page_count = {NO_LIMIT}")
            return
        self._reserve.release()
        with suppress(sqlite3.Error):  # if this fails, too, the next attempt raises the error
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._hold_size(db)

    def _with_room(self, work: Callable[[], T]) -> T:
        """Run `work`, which needs room on the disk. If there is none, release the reserve and run it again."""
        try:
            return work()
        except (sqlite3.OperationalError, OSError) as problem:
            if not is_full(problem, self.path) or not self._reserve.release():
                raise
            return work()

    def _connect(self) -> sqlite3.Connection:
        db = self._with_room(lambda: _connect(self.path, self._key_of))
        if not self._reserve.ensure() and self._reserve.used:
            self._hold_size(db)
        return db

    def _hold_size(self, db: sqlite3.Connection) -> None:
        hold_size(db)
        with suppress(sqlite3.Error):
            db.execute("BEGIN IMMEDIATE")  # so that nobody writes to the log meanwhile
            reserve_log(self.path)
            db.execute("ROLLBACK")

    def _open(self) -> None:
        name = replace_damaged.finish(self.path)
        if name is not None:
            self.generation += 1
            _report_finished(self.path, name)
        try:
            self._db = self._connect()
        except _DAMAGE as problem:
            if not fails_check(problem):
                raise
            self._replace_damaged(problem)

    def _replace_damaged(self, problem: Exception) -> None:
        """Put a new file with what can be read out of the damaged one in its place. Raises OutboxError.

        If that fails now, nothing is lost, and a later call tries it again.
        """
        self._close_db()
        began = time.monotonic()
        try:
            name, saved = self._with_room(lambda: replace_damaged.replace(self.path, self._clock(), self._key_of))
            self.generation += 1
            self._db = self._connect()
        except (sqlite3.Error, OSError) as trouble:
            self._try_later(
                f"the outbox {self.path} is damaged ({problem}), and a new one cannot be begun ({trouble}): "
                f"{advice(trouble, self.path)}. It is tried again automatically. To save what is in it takes as much "
                "room as the file has now. If there is none, move the file away: then an empty one is begun",
                began,
            )
            raise OutboxError(self._why) from trouble
        log.error(
            "The outbox %s is damaged (%s). It is kept as %s and a new one was begun: %s. Readings that were not yet "
            "sent may be missing. If this happens again, replace the disk or memory card.",
            self.path,
            problem,
            name,
            _saved(saved),
        )

    def _close_db(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):  # a last checkpoint that fails is done when the file is opened next
                self._db.close()
            self._db = None


def _report_finished(path: Path, name: Path) -> None:
    """Report that the replacement of a damaged file, which was interrupted, is complete now."""
    if name == path:
        log.warning(
            "The outbox %s did not exist, but %s.salvage did, with what was read out of a damaged outbox. It is the "
            "outbox now.",
            path,
            path.name,
        )
    else:
        log.error(
            "The outbox %s was damaged, and its replacement was interrupted. It is complete now: the damaged file is "
            "kept as %s and what could be read out of it will be sent. If this happens again, replace the disk or "
            "memory card.",
            path,
            name,
        )


def _saved(saved: replace_damaged.Saved | Exception | None) -> str:
    """Say what was saved out of a damaged file."""
    if saved is None:
        return "what could be read out of it will be sent"
    if isinstance(saved, Exception):
        return f"nothing could be saved ({saved})"
    refused = f", and {counted(saved.refused, 'refused line')} kept" if saved.refused else ""
    return f"{counted(saved.lines, 'line')} could be read out of it and will be sent{refused}"


def _connect(path: Path, key_of: KeyOf | None) -> sqlite3.Connection:
    """Open the file, or make it. Raises sqlite3.DatabaseError when it is damaged."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    try:
        path.touch(mode=0o600)  # readings show when somebody is at home; SQLite gives its other files this mode
    except OSError as problem:
        if is_full(problem, path):
            raise  # any other error SQLite reports more exactly
    db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        refuse_newer(db, path)
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect in a new file only
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 512")  # pages of 4 KiB: the log has about 2 MiB, ...
        db.execute("PRAGMA journal_size_limit = 4194304")  # ... and at most 4 MiB after a large transaction
        db.execute("PRAGMA cache_size = -1024")
        if key_of is None and is_older(db):
            raise OutboxError(f"the outbox {path} was made by an older han-exporter: `run` brings it up to date")
        if ready_tables(db, key_of or (lambda _: "")):
            replace_damaged.sync_folder(path.parent)
        check_file(db, path)
    except BaseException as problem:
        db.close()
        if getattr(problem, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY and not may_be_written(path):
            raise sqlite3.DatabaseError("its header says that it can only be read") from problem
        raise
    return db
