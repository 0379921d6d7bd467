"""The SQLite file under the outbox: its schema, opening and checking it, the lock, damage, errors in words."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TextIO, TypeVar

from exporter.outbox_checks import check_ids, check_tally, tally
from exporter.outbox_salvage import state_crc, surviving_rows, surviving_state

__all__ = ["OutboxError", "OutboxFile", "OutboxLockedError"]

log = logging.getLogger(__name__)

CHECKED_WHOLE = 64 << 20
"""Files up to this size are read and checked when they are opened: a second or two on a memory card."""

_SCHEMA_VERSION = 2
_LAST_VERSION = 999
"""A number above this was never a version's: it is damage."""
_SCHEMA = """
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
_FROM_VERSION_1 = "ALTER TABLE state ADD COLUMN crc INTEGER NOT NULL DEFAULT -1;"
# The tally is kept by triggers, in the same transaction as what it counts: opening a file with ten weeks in it does
# not read ten weeks, and another process can ask for the depth at no cost.

_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full: free some room",
    sqlite3.SQLITE_READONLY: "the file or its disk is read-only: give this user the right to write there",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: does this user have the right to write in that folder?",
    sqlite3.SQLITE_IOERR: "the disk gives errors, or is full: look at the system's log",
    sqlite3.SQLITE_BUSY: "another program holds the file: close it",
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
        self._mutex = threading.RLock()
        self._lock: TextIO | None = None
        self._db: sqlite3.Connection | None = None
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

        `work` may be run twice: in a file that turns out damaged, and in the new one.
        """
        with self._mutex:
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
            self._close_db()
            if self._lock is not None:
                self._lock.close()
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
        advice = _ADVICE.get(code, "is the path right, and does this user have the right to write there?")
        return f"the outbox {self.path} cannot be used ({problem}): {advice}"

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise OutboxError(f"the outbox {self.path} is closed")
        return self._db

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

    def _open(self) -> None:
        try:
            self._db = _connect(self.path)
        except _DAMAGE as problem:
            # What is asked of it here, every good file answers.
            if not _is_damage(problem) and getattr(problem, "sqlite_errorcode", 0) != sqlite3.SQLITE_ERROR:
                raise
            self._begin_anew(problem)

    def _begin_anew(self, problem: Exception) -> None:
        self._close_db()
        name = _set_aside(self.path, self._clock())
        self.generation += 1
        self._db = _connect(self.path)
        try:
            saved = self._transaction(lambda db: _salvage(db, name, int(self._clock() * 1000)))
            words = f"{saved} lines could be read out of it and will be sent"
        except (sqlite3.Error, OSError) as trouble:
            words = f"nothing could be saved out of it ({trouble})"
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


def _salvage(db: sqlite3.Connection, damaged: Path, first_id: int) -> int:
    """Put what can be read out of a damaged outbox into a new one; return how many lines.

    Rows keep their ids, which are below those that the new file gives from now on: the order of time stays.
    """
    db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('chunk', ?)", (first_id,))
    for key, value in surviving_state(damaged):
        db.execute(
            "INSERT OR IGNORE INTO state VALUES (?, ?, ?)", (key, value, state_crc(key.encode(), value.encode()))
        )
    saved = 0
    for row in surviving_rows(damaged):
        # One whose number was damaged is the last: its time is not known.
        number = row.id if 0 < row.id < first_id else None
        values = (number, row.enqueued, row.lines, row.sent, zlib.crc32(row.body), row.body)
        new = db.execute(
            "INSERT OR IGNORE INTO chunk (id, enqueued, lines, sent, crc, body) VALUES (?, ?, ?, ?, ?, ?)", values
        )
        saved += row.lines * new.rowcount
    return saved


def _lock(path: Path) -> TextIO:
    """Take the lock beside the outbox for this process; raises OutboxLockedError when another has it."""
    lock = Path(f"{path}.lock").open("a+", encoding="ascii")  # noqa: SIM115 - held until close()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        lock.seek(0)
        owner = lock.read(20).strip()
        lock.close()
        who = f" (process {owner})" if owner else ""
        raise OutboxLockedError(
            f"another han-exporter{who} is using the outbox {path}: stop it first, or give this one a file "
            "of its own (HAN_OUTBOX)"
        ) from problem
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file, made if need be; raises sqlite3.DatabaseError when it is damaged."""
    with suppress(OSError):  # SQLite says better what is wrong
        path.touch(mode=0o600)  # it tells when somebody is at home; SQLite's other files get the mode of this one
    db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # takes hold in a new file only
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 512")  # pages of 4 KiB: the log is some 2 MiB, ...
        db.execute("PRAGMA journal_size_limit = 4194304")  # ... and back to 4 MiB after a large transaction
        db.execute("PRAGMA cache_size = -1024")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if _SCHEMA_VERSION < version <= _LAST_VERSION:
            raise OutboxError(f"the outbox {path} was made by a newer han-exporter: use that one, or another file")
        form = _form(db)
        if version == 0 and not form:
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
            _sync_folder(path.parent)
        elif version == 1 and ("state", "crc", "INTEGER") not in form:
            db.executescript(f"BEGIN; {_FROM_VERSION_1} PRAGMA user_version = {_SCHEMA_VERSION}; COMMIT;")
        elif version != _SCHEMA_VERSION:
            raise sqlite3.DatabaseError(f"its version, {version}, is impossible")
        _check(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _form(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    """The tables with their columns, and the triggers with what they do."""
    columns = (
        "SELECT made.name, one.name, one.type FROM sqlite_master AS made, pragma_table_info(made.name) AS one "
        "WHERE made.type = 'table' AND made.name NOT LIKE 'sqlite_%' ORDER BY made.name, one.cid"
    )
    triggers = "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name"
    return [*db.execute(columns), *db.execute(triggers)]


def _right_form() -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_SCHEMA)
        return _form(db)


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Raise sqlite3.DatabaseError for a damaged file: all of a small one is read, of a large one what is at hand.

    Damage in the rest of a large one shows when it is read, and is met then.
    """
    if _form(db) != _right_form():
        raise sqlite3.DatabaseError("its tables are not as they were made")
    if _file_bytes(path) <= CHECKED_WHOLE:
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        check_tally(db)
    tally(db)
    check_ids(db)
    db.execute("SELECT id FROM chunk ORDER BY id LIMIT 1").fetchone()
    db.execute("SELECT key FROM state LIMIT 1").fetchone()


def _connect_read_only(path: Path) -> sqlite3.Connection:
    """Open to look, never to change: nothing is made, no lock is taken."""
    # Without a log beside it nobody has it open, and a folder that this user may not write to is no hindrance.
    immutable = "" if Path(f"{path}-wal").exists() else "&immutable=1"
    uri = f"{path.absolute().as_uri()}?mode=ro{immutable}"
    return sqlite3.connect(uri, uri=True, timeout=10, check_same_thread=False)


def _set_aside(path: Path, now: float) -> Path:
    """Rename the file and its log; return the new name."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    name, count = Path(f"{path}.corrupt-{stamp}"), 1
    while name.exists():
        count += 1
        name = Path(f"{path}.corrupt-{stamp}-{count}")
    for end in ("", "-wal"):
        with suppress(FileNotFoundError):
            Path(f"{path}{end}").rename(f"{name}{end}")
    Path(f"{path}-shm").unlink(missing_ok=True)
    return name


def _sync_folder(folder: Path) -> None:
    """Make a new file's name as durable as its content."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _file_bytes(path: Path) -> int:
    total = 0
    for end in ("", "-wal"):
        with suppress(FileNotFoundError):
            total += Path(f"{path}{end}").stat().st_size
    return total
