"""One process at a time has an outbox: a lock on a file beside it, or on its folder while no new file can be made."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path

from exporter.outbox.disk_reserve import is_full
from exporter.outbox.errors import OutboxLockedError

__all__ = ["Lock"]


class Lock:
    """The lock on the outbox at `path`: the file `NAME.lock`, which is never removed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._folder: int | None = None

    def take(self) -> None:
        """Take the lock, and make the folder if it is missing. Raises OutboxLockedError when another process has it.

        Raises OSError when there is no room for the lock's file. Then the folder is locked meanwhile, so that only one
        of two processes starts on a full disk. Call it again later: the first that can make the file gets the lock.
        """
        if self._file is not None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = _open(f"{self._path}.lock")
        except OSError as problem:
            if self._folder is None and (is_full(problem, self._path) or problem.errno == errno.EROFS):
                self._folder = self._locked(os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            raise
        self._file = self._locked(handle)
        with suppress(OSError):  # the lock works without the number, for which a full disk may have no room
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None

    def release(self) -> None:
        """Release the lock."""
        for handle in (self._file, self._folder):
            if handle is not None:
                os.close(handle)
        self._file = self._folder = None

    def _locked(self, handle: int) -> int:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            who = _owner(handle)
            os.close(handle)
            raise OutboxLockedError(
                f"another han-exporter{who} is using the outbox {self._path}: stop it first, or give this one a file "
                "of its own (HAN_OUTBOX)"
            ) from problem
        except OSError:
            os.close(handle)
            raise
        return handle


def _open(name: str) -> int:
    try:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as problem:
        if problem.errno != errno.EROFS:
            raise
        try:
            return os.open(name, os.O_RDONLY | os.O_CLOEXEC)  # enough for a lock
        except FileNotFoundError:
            raise problem from None


def _owner(handle: int) -> str:
    with suppress(OSError):  # a folder
        number = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
        return f" (process {number})" if number else ""
    return ""
