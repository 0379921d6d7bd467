"""Room on the disk that is reserved for the outbox, so that a full disk costs the oldest lines and not the newest.

Deleting rows takes room, too: SQLite writes changed pages to its log before it writes them to the file. A file beside
the outbox keeps that room. It is removed when the disk is full, and from then on the outbox does not grow.
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

__all__ = ["RESERVE", "Reserve", "has_room", "is_full", "largest_size", "reserve_log"]

RESERVE: Final = 4 << 20
"""Bytes: 2 MiB of the log, all of which may have to be added to the file, and as much for the next log."""
_LOG: Final = 640 * (4096 + 24)
"""Bytes. SQLite empties the log when it has 512 pages (and what the last transaction had), of 4096 + 24 bytes each."""
_AGAIN_S: Final = 60.0
_ENOUGH: Final = 2 * RESERVE
_NEXT_TO_NOTHING: Final = 64 << 10
"""Bytes. A disk with less free room is full."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Reserve:
    """The file that holds the room, `NAME.reserve`."""

    def __init__(self, path: Path) -> None:
        self._file = Path(f"{path}.reserve")
        self._not_before = 0.0
        self.used = False
        """Whether the room was given to the outbox, and there was no room for a new reserve since."""

    def ensure(self) -> bool:
        """Make the reserve if it is missing; return False when the disk has not room for it and as much again."""
        if time.monotonic() < self._not_before:
            return False
        try:
            if not self._there() and not self._make():
                return False
        except OSError:  # the outbox works without it
            self._not_before = time.monotonic() + _AGAIN_S
            return False
        self.used = False
        return True

    def release(self) -> bool:
        """Give the room to the outbox; return whether there was any."""
        try:
            # Nothing shows whether a quota, or a limit of this process, still applies: try again after some time.
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
        # If a pipe has the name, opening it without O_NONBLOCK would wait for ever.
        handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o600)
        try:
            _allocate(handle)
        except OSError:
            self._file.unlink()
            raise
        finally:
            os.close(handle)
        return True


def has_room(path: Path) -> bool:
    """Return whether the disk has room for a reserve, and as much again."""
    with suppress(OSError):
        return _room(path.parent) >= _ENOUGH
    return False


def reserve_log(path: Path) -> None:
    """Allocate the room for SQLite's log before another program takes it. Nobody may be writing to the log.

    If that fails, the outbox works without it. SQLite ignores zeros after the last page of the log:
    https://www.sqlite.org/fileformat2.html#the_write_ahead_log
    """
    with suppress(OSError):
        handle = os.open(f"{path}-wal", os.O_WRONLY)
        try:
            size = os.fstat(handle).st_size
            if size < _LOG and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, size, _LOG - size)
        finally:
            os.close(handle)


def _allocate(handle: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, RESERVE)
        return
    for _ in range(RESERVE >> 16):  # random bytes, which no file system compresses
        os.write(handle, os.urandom(1 << 16))


def is_full(problem: BaseException, path: Path) -> bool:
    """Return whether this error says that there is no room for the file, or that this user may use no more.

    SQLite has an error code for a full disk only. For a quota, a limit to the size of files, and a disk without room
    for SQLite's smaller files it reports an error of the disk.
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


def largest_size(wanted: int) -> int:
    """Return how many bytes the file may have: `wanted`, or less when this process is allowed less (`ulimit -f`)."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return wanted if allowed == resource.RLIM_INFINITY else min(wanted, allowed)


def _room(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
