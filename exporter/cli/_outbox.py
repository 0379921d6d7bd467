"""The outbox, as commands see it that only look at it: what it holds, and what is wrong with it."""

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
    """Return whether the file exists. True, too, if this user may not see that: opening it says why."""
    try:
        return path.exists()
    except OSError:
        return True


def explain(error: OutboxError, path: Path) -> str:
    """Return what is wrong with an outbox that could not be read, and what `run` does with it if it is damaged."""
    cause = error.__cause__
    if not fails_check(cause):
        return str(error)
    if _is_empty(path):
        return (
            f"The outbox {path} is empty, a file of 0 bytes: what it held, if anything, is lost. `han-exporter run` "
            "begins a new one in it."
        )
    return (
        f"The outbox {path} is damaged ({cause}). `han-exporter run` keeps it as {path.name}.corrupt-TIME, begins a "
        "new one, and sends what can be read out of the old one. Its log says how many lines that was."
    )


def check_outbox(path: Path) -> Status:
    """Check an outbox as `run` does before it uses it, and return what it holds.

    Raises OutboxError for an outbox that is damaged, or that a newer version made. Nothing is changed, and a process
    that uses the outbox does not wait.
    """
    with closing(OutboxFile(path, read_only=True, clock=time.time)) as file, file.as_outbox_error():
        file.read(lambda db: check_file(db, path))
    with closing(Outbox(path, read_only=True)) as outbox:
        return outbox.status()


def states(path: Path, prefix: str) -> dict[str, str]:
    """Return the state under keys that begin with `prefix`; nothing if there is no outbox, or it cannot be read."""
    if not is_there(path):
        return {}
    try:
        with closing(Outbox(path, read_only=True)) as outbox:
            return outbox.states(prefix)
    except OutboxError:
        return {}


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0 and not Path(f"{path}-wal").exists()
    except OSError:
        return False
