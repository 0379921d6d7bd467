"""The outbox as commands see it that only look: what it holds, and what is wrong with it, in words."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from exporter.outbox.batch import Status
from exporter.outbox.checks import check_file
from exporter.outbox.errors import fails_check
from exporter.outbox.file import OutboxFile
from exporter.outbox.queue import Outbox, OutboxError


def is_there(path: Path) -> bool:
    """Whether there is such a file; also True for what this user may not look at: opening it says so."""
    try:
        return path.exists()
    except OSError:
        return True


def in_words(error: OutboxError, path: Path) -> str:
    """What is wrong with an outbox that could not be read, and what becomes of it when it is damaged."""
    cause = error.__cause__
    if not fails_check(cause):
        return str(error)
    if _empty(path):
        return (
            f"The outbox {path} is empty, a file of 0 octets: what it held, if anything, is lost. `han-exporter run` "
            "begins a new one in it."
        )
    return (
        f"The outbox {path} is damaged ({cause}). `han-exporter run` sets it aside as {path.name}.corrupt-TIME, begins "
        "a new one and sends what can be read out of the old; its log says how much that was."
    )


def look_through(path: Path) -> Status:
    """Read all of an outbox that is not too large for it, and say what it holds.

    Raises OutboxError for what `run` would not begin with: it is damaged, or a newer version's. Nothing is changed, and
    nobody who uses it is held up.
    """
    with closing(OutboxFile(path, read_only=True, clock=time.time)) as file, file.in_words():
        file.read(lambda db: check_file(db, path))
    with closing(Outbox(path, read_only=True)) as outbox:
        return outbox.status()


def states(path: Path, prefix: str) -> dict[str, str]:
    """What an outbox remembers under keys that begin so; nothing when there is none, or it cannot be read."""
    if not is_there(path):
        return {}
    try:
        with closing(Outbox(path, read_only=True)) as outbox:
            return outbox.states(prefix)
    except OutboxError:
        return {}


def _empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0 and not Path(f"{path}-wal").exists()
    except OSError:
        return False
