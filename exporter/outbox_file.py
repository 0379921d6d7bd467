"""The SQLite file under the outbox: its schema, opening and checking it, the lock, damage, errors in words."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from exporter import outbox_aside
from exporter.outbox_checks import check_ids, check_tally, tally
from exporter.outbox_reserve import Reserve, has_room, hold_log, is_full
from exporter.outbox_rows import GROWS, grow_no_more, grows_no_more
from exporter.outbox_salvage import may_be_written
from exporter.outbox_schema import form, is_newer, ready_tables, right_form

__all__ = ["OutboxError", "OutboxFile", "OutboxLockedError"]

log = logging.getLogger(__name__)

CHECKED_WHOLE = 64 << 20
"""Files up to this size are read and checked when they are opened: a second or two on a memory card."""

_AGAIN_S = 10.0
"""So long, and ten times what the last attempt took, a file that could not be opened is left alone."""

_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full: free some room",
    sqlite3.SQLITE_READONLY: "the file or its disk is read-only: give this user the right to write there",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: does this user have the right to write in that folder?",
    sqlite3.SQLITE_IOERR: "the disk gives errors, or is full: look at the system's log",
    sqlite3.SQLITE_BUSY: "another program holds the file: close it",
}

_ADVICE_OF_SYSTEM = {
    errno.ENOSPC: _ADVICE[sqlite3.SQLITE_FULL],
    errno.EDQUOT: "this user's share of the disk is used up: free some room",
    errno.EFBIG: "this process may write no larger files (`ulimit -f`, or LimitFSIZE= of systemd): allow more",
    errno.EROFS: _ADVICE[sqlite3.SQLITE_READONLY],
    errno.EACCES: "this user may not write there: give it the right to, or choose another file (HAN_OUTBOX)",
    errno.EPERM: "this user may not write there: give it the right to, or choose another file (HAN_OUTBOX)",
    errno.EIO: "the disk gives errors: look at the system's log, and replace the disk or memory card",
    errno.EISDIR: "it is a folder: give the name of a file (HAN_OUTBOX)",
    errno.ENOTDIR: "a part of its path is a file, not a folder: choose another (HAN_OUTBOX)",
    errno.EEXIST: "a part of its path is a file, not a folder: choose another (HAN_OUTBOX)",
    errno.ENAMETOOLONG: "the name is too long: choose another (HAN_OUTBOX)",
    errno.EMFILE: "this process has too many files open (`ulimit -n`): allow more",
}

_DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What damage may raise: sqlite3 breaks over SQLite's own words when they quote a damaged name."""

T = TypeVar("T")


class OutboxError(Exception):
    """The outbox cannot be read or written; the message says what to do. Nothing of the failed call was kept."""


class OutboxLockedError(OutboxError):
    """Another process has this outbox."""


class OutboxFile:
    """The open file. Work on it is done by `write` and `read`, one piece at a time, from any thread.

    A damaged file is set aside as `NAME.corrupt-TIME` and a new one is begun with what can be read out of it, when
    it is opened and when damage shows later; `generation` then counts up, so that row ids of the old file are not
    taken for the new one's.
    """

    def __init__(self, path: Path, *, read_only: bool, clock: Callable[[], float]) -> None:
        self.path = path
        self.generation = 0
        self._clock = clock
        self._read_only = read_only
        self._reserve = Reserve(path)
        self._mutex = threading.RLock()
        self._lock: int | None = None
        self._db: sqlite3.Connection | None = None
        self._closed = False
        self._not_before = 0.0  # when it is tried again to open what could not be opened, ...
        self._why = ""  # ... which was for this reason
        with self.in_words():
            if read_only:
                self._db = _connect_read_only(path)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(path)
            try:
                self._open()
            except BaseException:
                self.close()
                raise

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

    def octets(self) -> int:
        """What the file has on the disk, its log included."""
        return _file_bytes(self.path)

    def close(self) -> None:
        """Close the file and let go of the lock."""
        with self._mutex:
            self._closed = True
            self._close_db()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

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
        return f"the outbox {self.path} cannot be used ({problem}): {_advice(problem, self.path)}"

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
            self._open()
        except OutboxError:
            raise
        except (sqlite3.Error, UnicodeDecodeError, OSError) as problem:
            self._try_later(self.explain(problem), began)
            raise
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
            if self._read_only or not _is_damage(problem):
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
            _check_pages(db)
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
        db = self._with_room(lambda: _connect(self.path))
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
        name = outbox_aside.finish(self.path)
        if name is not None:
            self.generation += 1
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
            # What is asked of it here, every good file answers.
            if not _is_damage(problem) and getattr(problem, "sqlite_errorcode", 0) != sqlite3.SQLITE_ERROR:
                raise
            self._begin_anew(problem)

    def _begin_anew(self, problem: Exception) -> None:
        """Put a new file, with what can be saved, in the place of the damaged one; raises OutboxError.

        When that cannot be done now, nothing is lost, and it is tried again with the next use some time later.
        """
        self._close_db()
        began = time.monotonic()
        try:
            name, saved = self._with_room(lambda: outbox_aside.replace(self.path, self._clock()))
            self.generation += 1
            self._db = self._connect()
        except (sqlite3.Error, OSError) as trouble:
            self._try_later(
                f"the outbox {self.path} is damaged ({problem}), and a new one cannot be begun ({trouble}): "
                f"{_advice(trouble, self.path)}. It is tried again by itself. To save what is in it takes as much "
                "room as it has now; if there is none to be had, move it away, and a new one is begun",
                began,
            )
            raise OutboxError(self._why) from trouble
        if isinstance(saved, outbox_aside.Saved):
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


def _is_damage(problem: Exception) -> bool:
    # quick_check's verdict and that of outbox_checks have no code
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    # what is written here breaks no constraint, unless something else stands where it should
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT)


def _advice(problem: Exception, path: Path) -> str:
    if isinstance(problem, OSError) and problem.errno in _ADVICE_OF_SYSTEM:
        return _ADVICE_OF_SYSTEM[problem.errno]
    if path.is_dir():  # SQLite calls that an I/O error
        return _ADVICE_OF_SYSTEM[errno.EISDIR]
    code = getattr(problem, "sqlite_errorcode", 0)
    if code != sqlite3.SQLITE_IOERR_WRITE and is_full(problem, path):
        return _ADVICE[sqlite3.SQLITE_FULL]
    return _ADVICE.get(code & 0xFF, "is the path right, and does this user have the right to write there?")


def _lock(path: Path) -> int:
    """Take the lock beside the outbox for this process; raises OutboxLockedError when another has it."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        owner = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        os.close(lock)
        who = f" (process {owner})" if owner else ""
        raise OutboxLockedError(
            f"another han-exporter{who} is using the outbox {path}: stop it first, or give this one a file "
            "of its own (HAN_OUTBOX)"
        ) from problem
    with suppress(OSError):  # the lock holds without a number in it, which a full disk may have no room for
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file, made if need be; raises sqlite3.DatabaseError when it is damaged."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    with suppress(OSError):  # SQLite says better what is wrong
        path.touch(mode=0o600)  # it tells when somebody is at home; SQLite's other files get the mode of this one
    db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        if is_newer(db):
            raise OutboxError(f"the outbox {path} was made by a newer han-exporter: use that one, or another file")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # takes hold in a new file only
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 512")  # pages of 4 KiB: the log is some 2 MiB, ...
        db.execute("PRAGMA journal_size_limit = 4194304")  # ... and back to 4 MiB after a large transaction
        db.execute("PRAGMA cache_size = -1024")
        if ready_tables(db):
            outbox_aside.sync_folder(path.parent)
        _check(db, path)
    except BaseException as problem:
        db.close()
        if getattr(problem, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY and not may_be_written(path):
            raise sqlite3.DatabaseError("its head says that it is of a kind that is only read") from problem
        raise
    return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Raise sqlite3.DatabaseError for a damaged file: all of a small one is read, of a large one what is at hand.

    Damage in the rest of a large one shows when it is read, and is met then.
    """
    if form(db) != right_form():
        raise sqlite3.DatabaseError("its tables are not as they were made")
    if _file_bytes(path) <= CHECKED_WHOLE:
        _check_pages(db)
        check_tally(db)
    tally(db)
    check_ids(db)
    db.execute("SELECT id FROM chunk ORDER BY id LIMIT 1").fetchone()
    db.execute("SELECT key FROM state LIMIT 1").fetchone()


def _check_pages(db: sqlite3.Connection) -> None:
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict.rpartition("\n")[2])


def _connect_read_only(path: Path) -> sqlite3.Connection:
    """Open to look, never to change: nothing is made, no lock is taken."""
    # Without a log beside it nobody has it open, and a folder that this user may not write to is no hindrance.
    immutable = "" if Path(f"{path}-wal").exists() else "&immutable=1"
    uri = f"{path.absolute().as_uri()}?mode=ro{immutable}"
    return sqlite3.connect(uri, uri=True, timeout=10, check_same_thread=False)


def _file_bytes(path: Path) -> int:
    total = 0
    for end in ("", "-wal"):
        with suppress(FileNotFoundError):
            total += Path(f"{path}{end}").stat().st_size
    return total
