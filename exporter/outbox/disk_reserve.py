"""Room on the disk that is kept back for the outbox, so that a full disk costs the oldest lines and not the newest.

To delete rows takes room, too: their pages, changed, are written to SQLite's log before they are written home. A file
beside the outbox holds that room and is removed when the disk is full; from then on the outbox grows no more.
"""

from __future__ import annotations

import errno
import os
import resource
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["RESERVE", "Reserve", "has_room", "hold_log", "is_full", "most_octets"]

RESERVE: Final = 4 << 20
"""Octets: the log's 2 MiB, which must all find room in the file behind it, and as much for the log after that."""
_LOG: Final = 640 * (4096 + 24)
"""The log is brought home with 512 pages and what the last transaction had."""
_AGAIN_S: Final = 60.0
_ENOUGH: Final = 2 * RESERVE
_NEXT_TO_NOTHING: Final = 64 << 10
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Reserve:
    """The file that holds the room, `NAME.reserve`."""

    def __init__(self, path: Path) -> None:
        self._file = Path(f"{path}.reserve")
        self._not_before = 0.0
        self.used = False
        """Whether the outbox was given the room, and there was no room for another since."""

    def keep(self) -> bool:
        """See that it is there; False when there is no room for it, and as much again."""
        if time.monotonic() < self._not_before:
            return False
        try:
            if not self._there() and not self._make():
                return False
        except OSError:  # the outbox does without
            self._not_before = time.monotonic() + _AGAIN_S
            return False
        self.used = False
        return True

    def let_go(self) -> bool:
        """Give the room to the outbox; whether there was any."""
        try:
            # A quota, or a limit of this process, is not told as a full disk is: only time tells whether it is over.
            if has_room(self._file):
                self._not_before = time.monotonic() + _AGAIN_S
            self._file.unlink()
        except OSError:
            return False
        self.used = True
        return True

    def _there(self) -> bool:
        return self._file.exists() and self._file.stat().st_size == RESERVE

    def _make(self) -> bool:
        if not has_room(self._file):
            return False
        # Nobody writes the other end of a pipe that has the name: without NONBLOCK this would wait for ever.
        handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o600)
        try:
            _hold(handle)
        except OSError:
            self._file.unlink()
            raise
        finally:
            os.close(handle)
        return True


def has_room(path: Path) -> bool:
    """Whether the disk says that it has room for a reserve, and as much again."""
    with suppress(OSError):
        return _room(path.parent) >= _ENOUGH
    return False


def hold_log(path: Path) -> None:
    """Take the room for SQLite's log before another does; nobody may be writing to it. Without it, all goes on.

    Octets of 0 behind its end are none of its pages to SQLite: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
    """
    with suppress(OSError):
        handle = os.open(f"{path}-wal", os.O_WRONLY)
        try:
            size = os.fstat(handle).st_size
            if size < _LOG and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, size, _LOG - size)
        finally:
            os.close(handle)


def _hold(handle: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, RESERVE)
        return
    for _ in range(RESERVE >> 16):  # octets that no disk makes smaller
        os.write(handle, os.urandom(1 << 16))


def is_full(problem: BaseException, path: Path) -> bool:
    """Whether this error of SQLite or of the system says that there is no room for the file, or this user's is used up.

    SQLite has a word of its own for a full disk only; a quota, or a limit to the size of files, is an error of the
    disk to it, and so is a disk that has no room for its smaller files.
    """
    if isinstance(problem, OSError):
        return problem.errno in _FULL
    code = getattr(problem, "sqlite_errorcode", 0)
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
        return True
    if code & 0xFF not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return False
    with suppress(OSError):
        return _room(path.parent) < _NEXT_TO_NOTHING
    return False


def most_octets(wanted: int) -> int:
    """How large the file may get: what is wanted, or less where this process is allowed less (`ulimit -f`)."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed)


def _room(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
