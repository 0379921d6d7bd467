"""The SQLite file under the outbox: its schema, opening and checking it, the lock, damage, errors in words."""

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

from exporter.outbox import replace_damaged
from exporter.outbox.checks import check_file, check_pages, file_bytes, refuse_newer
from exporter.outbox.chunk import KeyOf
from exporter.outbox.disk_reserve import Reserve, has_room, hold_log, is_full
from exporter.outbox.errors import OutboxError, advice, fails_check, is_damage, may_pass
from exporter.outbox.lock import Lock
from exporter.outbox.read_only import connect_read_only, state_of
from exporter.outbox.rows import GROWS, grow_no_more, grows_no_more
from exporter.outbox.salvage import may_be_written
from exporter.outbox.tables import is_older, ready_tables

__all__ = ["OutboxFile"]

log = logging.getLogger(__name__)

_AGAIN_S = 10.0
"""So long, and ten times what the last attempt took, a file that could not be opened is left alone."""

_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What damage may raise: sqlite3 breaks over SQLite's own words when they quote a damaged name."""

T = TypeVar("T")


class OutboxFile:
    """The open file. Work on it is done by `write` and `read`, one piece at a time, from any thread.

    A damaged file is set aside as `NAME.corrupt-TIME` and a new one is begun with what can be read out of it, when
    it is opened and when damage shows later; `generation` then counts up, so that row ids of the old file are not
    taken for the new one's. `patient`: one that cannot be opened since its disk is full, read-only or broken is tried
    again with a later use, as one is that breaks later; `why` then says what is wrong.
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
        self._not_before = 0.0  # when it is tried again to open what could not be opened, ...
        self._why = ""  # ... which was for this reason
        self._state: dict[str, str] | None = None  # of a file that cannot be opened
        with self.in_words():
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
        """Run `work` as one transaction; raises sqlite3.Error with nothing changed.

        `work` may be run twice: in a file that turns out damaged, and in the new one; or when the disk is full, and
        when there is room again.
        """
        with self._mutex:
            try:
                return self._mending(lambda: self._transaction(work))
            except sqlite3.OperationalError as problem:
                if self._read_only or not is_full(problem, self.path):
                    raise
                generation = self.generation  # a new file has its room
                self._mending(lambda: self._make_room() if self.generation == generation else None)
                return self._mending(lambda: self._transaction(work))

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which only looks. Raises sqlite3.Error."""
        with self._mutex:
            return self._mending(lambda: work(self._connection))

    def read_state(self, work: Callable[[sqlite3.Connection], T], instead: Callable[[Mapping[str, str]], T]) -> T:
        """As `read`; while the file cannot be opened, what `instead` makes of the state that can be read all the same.

        Raises sqlite3.Error, OSError or OutboxError.
        """
        with self._mutex:
            try:
                return self.read(work)
            except (OutboxError, *_DAMAGE, OSError) as problem:
                if not self._read_only and self._db is not None and may_pass(problem, self.path):
                    self._close_db()  # its pages are looked at one by one, and it is opened anew later
                    self._try_later(self.explain(problem), time.monotonic())
                if self._db is not None or self._closed:
                    raise
            if self._state is None:
                self._state = state_of(self.path)
            return instead(self._state)

    @property
    def why(self) -> str:
        """Why it cannot be used, in words; empty when it can."""
        return "" if self._db is not None else self._why

    def octets(self) -> int:
        """What the file has on the disk, its log included."""
        return file_bytes(self.path)

    def close(self) -> None:
        """Close the file and let go of the lock."""
        with self._mutex:
            self._closed = True
            self._close_db()
            self._lock.let_go()

    @contextmanager
    def in_words(self) -> Iterator[None]:
        """Turn SQLite's and the system's errors into an OutboxError that says what to do."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError, OSError) as problem:
            raise OutboxError(self.explain(problem)) from problem

    def explain(self, problem: Exception) -> str:
        """What to do about an error of SQLite or of the system."""
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
        """Open what could not be opened the last time, when some time has passed since."""
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
            with suppress(sqlite3.Error):  # SQLite may have rolled back by itself (disk full); the first error counts
                db.execute("ROLLBACK")
            raise
        return result

    def _mending(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except _DAMAGE as problem:
            if self._read_only or not is_damage(problem):
                raise
            self._begin_anew(problem)
            return work()

    def _make_room(self) -> None:
        """The disk is full: what waits in the log goes home, and the file grows no more until there is room again.

        Then the pages of the oldest rows, once they are deleted, are the only ones for new rows, and what is written
        goes over what was written before.
        """
        db = self._connection
        if has_room(self.path) and not grows_no_more(db):
            # SQLite says so of a page, too, whose number was damaged: it is behind all pages that there may be.
            check_pages(db)
        if grows_no_more(db) and self._reserve.keep():
            db.execute(f"PRAGMA max_page_count = {GROWS}")
            return
        self._reserve.let_go()
        with suppress(sqlite3.Error):  # when that cannot be done either, the next attempt says so
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        self._hold_size(db)

    def _with_room(self, work: Callable[[], T]) -> T:
        """Do what takes room on the disk, the reserve's too if there is no other."""
        try:
            return work()
        except (sqlite3.OperationalError, OSError) as problem:
            if not is_full(problem, self.path) or not self._reserve.let_go():
                raise
            return work()

    def _connect(self) -> sqlite3.Connection:
        db = self._with_room(lambda: _connect(self.path, self._key_of))
        if not self._reserve.keep() and self._reserve.used:
            self._hold_size(db)
        return db

    def _hold_size(self, db: sqlite3.Connection) -> None:
        grow_no_more(db)
        with suppress(sqlite3.Error):
            db.execute("BEGIN IMMEDIATE")
            hold_log(self.path)
            db.execute("ROLLBACK")

    def _open(self) -> None:
        name = replace_damaged.finish(self.path)
        if name is not None:
            self.generation += 1
        if name == self.path:
            log.warning(
                "The outbox %s was not there, but %s.salvage, which is what was read out of a damaged one once: that "
                "is the outbox now.",
                self.path,
                self.path.name,
            )
        elif name is not None:
            log.error(
                "The outbox %s was damaged, and what was begun then was broken off. Now it is done: the file is kept "
                "as %s, and what could be read out of it will be sent. If this comes again, replace the disk or memory "
                "card.",
                self.path,
                name,
            )
        try:
            self._db = self._connect()
        except _DAMAGE as problem:
            if not fails_check(problem):
                raise
            self._begin_anew(problem)

    def _begin_anew(self, problem: Exception) -> None:
        """Put a new file, with what can be saved, in the place of the damaged one; raises OutboxError.

        When that cannot be done now, nothing is lost, and it is tried again with the next use some time later.
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
                f"{advice(trouble, self.path)}. It is tried again by itself. To save what is in it takes as much "
                "room as it has now; if there is none to be had, move it away, and a new one is begun",
                began,
            )
            raise OutboxError(self._why) from trouble
        if isinstance(saved, replace_damaged.Saved):
            words = f"{saved.lines} lines could be read out of it and will be sent"
            words += f", and {saved.rejected} that were put aside" if saved.rejected else ""
        elif saved is None:
            words = "what could be read out of it will be sent"
        else:
            words = f"nothing could be saved out of it ({saved})"
        log.error(
            "The outbox %s is damaged (%s). It is kept as %s and a new one is begun; %s. Readings that had not reached "
            "InfluxDB may be missing. If this comes again, replace the disk or memory card.",
            self.path,
            problem,
            name,
            words,
        )

    def _close_db(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):  # a last checkpoint that fails is done when the file is next opened
                self._db.close()
            self._db = None


def _connect(path: Path, key_of: KeyOf | None) -> sqlite3.Connection:
    """Open the file, made if need be; raises sqlite3.DatabaseError when it is damaged."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    try:
        path.touch(mode=0o600)  # it tells when somebody is at home; SQLite's other files get the mode of this one
    except OSError as problem:
        if is_full(problem, path):
            raise  # else SQLite says better what is wrong
    db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        refuse_newer(db, path)
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # takes hold in a new file only
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 512")  # pages of 4 KiB: the log is some 2 MiB, ...
        db.execute("PRAGMA journal_size_limit = 4194304")  # ... and back to 4 MiB after a large transaction
        db.execute("PRAGMA cache_size = -1024")
        if key_of is None and is_older(db):
            raise OutboxError(f"the outbox {path} was made by an older han-exporter: `run` brings it up to date")
        if ready_tables(db, key_of or (lambda _: "")):
            replace_damaged.sync_folder(path.parent)
        check_file(db, path)
    except BaseException as problem:
        db.close()
        if getattr(problem, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY and not may_be_written(path):
            raise sqlite3.DatabaseError("its head says that it is of a kind that is only read") from problem
        raise
    return db
