"""Refused lines: sent again or removed by the command `rejected`, with or without a running service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from exporter.outbox.queue import Outbox, OutboxError
from exporter.outbox.rows import Ranges

_PATIENCE_S: Final = 5.0
"""Seconds. A reading is sent within milliseconds, so there is soon a moment when no line waits."""


@dataclass(frozen=True, slots=True)
class Retried:
    """How many lines are in the queue again, and how many were left since newer versions may be waiting there."""

    lines: int
    left: int = 0


def retry(outbox: Outbox, ids: Ranges, patience_s: float = 0.0) -> Retried:
    """Put refused lines back into the queue. Raises OutboxError; lines that were moved before that stay there.

    A line with a key is a version of a point, and the newest version must be the last to arrive: such lines go back
    when no line is waiting, for which this waits `patience_s`. All others go back at once.
    """
    until = time.monotonic() + patience_s
    while True:
        moved, left = outbox.retry_keyed(ids)
        if not left or time.monotonic() >= until:
            break
        time.sleep(0.05)
    return Retried(moved + outbox.retry_unkeyed(ids), left)


def ranges(ids: Iterable[int]) -> list[tuple[int, int]]:
    """Return ids as ranges, in their order."""
    found: list[tuple[int, int]] = []
    for one in sorted(set(ids)):
        if found and found[-1][1] == one - 1:
            found[-1] = (found[-1][0], one)
        else:
            found.append((one, one))
    return found


def as_text(ids: Ranges) -> str:
    """Return ranges as text, like `3,7-9`."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ids)


def from_text(text: str) -> list[tuple[int, int]]:
    """Return the ranges in a text like `3,7-9`. Raises ValueError."""
    found = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))):
            raise ValueError(f"{part.strip()!r} is not the ID of a line; write it like 7, or 7-12")
        found.append((int(first), int(last) if dash else int(first)))
    return found


def commands(outbox: Outbox) -> dict[str, Callable[[str], Mapping[str, Any]]]:
    """Return what a running service can be asked for, by name. A function returns `error` when it failed."""

    def retry_(ids: str) -> Mapping[str, Any]:
        try:
            return {"retried": asdict(retry(outbox, from_text(ids), _PATIENCE_S))}
        except (OutboxError, ValueError) as error:
            return {"error": str(error)}

    def drop(ids: str) -> Mapping[str, Any]:
        try:
            return {"dropped": outbox.drop_refused(from_text(ids))}
        except (OutboxError, ValueError) as error:
            return {"error": str(error)}

    return {"retry_rejected": retry_, "drop_rejected": drop}
