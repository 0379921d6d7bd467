"""What is wrong with the outbox file: messages that say what to do, and whether the problem may pass."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from exporter.outbox.disk_reserve import is_full

__all__ = ["OutboxError", "OutboxLockedError", "advice", "fails_check", "is_damage", "may_pass"]

_ADVICE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full: free some room",
    sqlite3.SQLITE_READONLY: "the file or its disk is read-only: give this user permission to write there",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: does this user have permission to write in that folder?",
    sqlite3.SQLITE_IOERR: (
        "the disk gives errors, or is full, or this user's share of it is used up: look at the system's log"
    ),
    sqlite3.SQLITE_BUSY: "another program holds the file: close it",
}
_READ_ONLY_DISK: Final = (
    "its disk is read-only, as a disk or memory card becomes when it fails: look at the system's log, make it writable "
    "again or replace it, or choose another file (HAN_OUTBOX)"
)
_ADVICE_OF_SYSTEM: Final = {
    errno.ENOSPC: _ADVICE[sqlite3.SQLITE_FULL],
    errno.EDQUOT: "this user's share of the disk is used up: free some room",
    errno.EFBIG: "this process may write no larger files (`ulimit -f`, or LimitFSIZE= of systemd): allow more",
    errno.EROFS: _READ_ONLY_DISK,
    errno.EACCES: "this user may not write there: give it permission, or choose another file (HAN_OUTBOX)",
    errno.EPERM: "this user may not write there: give it permission, or choose another file (HAN_OUTBOX)",
    errno.EIO: "the disk gives errors: look at the system's log, and replace the disk or memory card",
    errno.EISDIR: "it is a folder: give the name of a file (HAN_OUTBOX)",
    errno.ENOTDIR: "a part of its path is a file, not a folder: choose another (HAN_OUTBOX)",
    errno.EEXIST: "a part of its path is a file, not a folder: choose another (HAN_OUTBOX)",
    errno.ENAMETOOLONG: "the name is too long: choose another (HAN_OUTBOX)",
    errno.EMFILE: "this process has too many files open (`ulimit -n`): allow more",
}


class OutboxError(Exception):
    """The outbox cannot be read or written; the message says what to do. Nothing of the failed call was kept."""


class OutboxLockedError(OutboxError):
    """Another process has this outbox."""


def advice(problem: Exception, path: Path) -> str:
    """Return what to do about an error of SQLite or of the system."""
    if in_the_way := _in_the_way(path):
        return in_the_way
    if isinstance(problem, OSError) and problem.errno in _ADVICE_OF_SYSTEM:
        return _ADVICE_OF_SYSTEM[problem.errno]
    code = getattr(problem, "sqlite_errorcode", 0)
    if code & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR) and _read_only(path):
        return _READ_ONLY_DISK
    if code & 0xFF in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN) and (another := _forbidden(path)):
        return f"this user may not read and write {another} (another user made it, with sudo?): give it permission"
    if code != sqlite3.SQLITE_IOERR_WRITE and is_full(problem, path):
        return _ADVICE[sqlite3.SQLITE_FULL]
    return _ADVICE.get(code & 0xFF, "is the path right, and does this user have permission to write there?")


def is_damage(problem: BaseException | None) -> bool:
    """Return whether this error says that the file is damaged.

    The errors that checks.py raises have no code. A constraint fails only where damage changed what is stored. Python's
    sqlite3 raises UnicodeDecodeError when SQLite's message quotes a damaged name.
    """
    code = getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    damage = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT)
    return isinstance(problem, UnicodeDecodeError) or (isinstance(problem, sqlite3.DatabaseError) and code in damage)


def fails_check(problem: BaseException | None) -> bool:
    """Return whether this error of a check says that the file is damaged.

    A check runs no SQL that fails in a sound file, so SQLITE_ERROR says that a table or a column is missing.
    """
    return is_damage(problem) or getattr(problem, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR


def may_pass(problem: BaseException | None, path: Path) -> bool:
    """Return whether the cause is the disk (full, read-only, gives errors), and not the settings."""
    if _in_the_way(path):  # SQLite calls that an I/O error
        return False
    if isinstance(problem, OSError):
        return is_full(problem, path) or problem.errno in (errno.EROFS, errno.EIO)
    if not isinstance(problem, sqlite3.Error):
        return False
    code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN) and _read_only(path):
        return True
    return code == sqlite3.SQLITE_IOERR or is_full(problem, path)


def _in_the_way(path: Path) -> str:
    """Return what to do when something else has the name of one of the outbox's files; empty when nothing has."""
    with suppress(OSError):
        if path.is_dir():
            return _ADVICE_OF_SYSTEM[errno.EISDIR]
        for one in _files(path):
            if one.is_symlink() and not one.exists():
                return (
                    f"{one} is a link to something that does not exist: mount the disk that it belongs to, or remove it"
                )
            if one.exists() and not one.is_file():
                return f"{one} is not an ordinary file: remove it, or choose another file (HAN_OUTBOX)"
    return ""


def _forbidden(path: Path) -> Path | None:
    """Return the first of the outbox's files, or its folder, that this user may not write to."""
    with suppress(OSError):
        there = [one for one in (*_files(path), path.parent) if one.exists()]
        return next((one for one in there if not os.access(one, os.R_OK | os.W_OK)), None)
    return None


def _files(path: Path) -> list[Path]:
    return [Path(f"{path}{end}") for end in ("", ".lock", "-wal", "-shm", "-journal")]


def _read_only(path: Path) -> bool:
    """Return whether the disk is read-only."""
    with suppress(OSError):
        return bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
    return False
