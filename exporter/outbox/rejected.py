"""Lines that InfluxDB refused: sent again, or removed, by `rejected`, beside a running service or without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from exporter.outbox.queue import Outbox, OutboxError
from exporter.outbox.rows import Ranges

_PATIENCE_S: Final = 5.0
"""What is read is sent within milliseconds, so that soon nothing waits."""


@dataclass(frozen=True, slots=True)
class Retried:
    """How many lines are in the queue again, and how many sums were left since newer ones may wait there."""

    lines: int
    left: int = 0


def retry(outbox: Outbox, ids: Ranges, patience_s: float = 0.0) -> Retried:
    """Put rejected lines back into the queue. Raises OutboxError; what was done until then is done.

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
    """Ids as ranges, in their order."""
    found: list[tuple[int, int]] = []
    for one in sorted(set(ids)):
        if found and found[-1][1] == one - 1:
            found[-1] = (found[-1][0], one)
        else:
            found.append((one, one))
    return found


def as_text(ids: Ranges) -> str:
    """Ranges as they are said: `3,7-9`."""
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ids)


def from_text(text: str) -> list[tuple[int, int]]:
    """Ranges from what was said. Raises ValueError."""
    found = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))):
            raise ValueError(f"{part.strip()!r} is no number of a line; write it like 7, or 7-12")
        found.append((int(first), int(last) if dash else int(first)))
    return found


def commands(outbox: Outbox) -> dict[str, Callable[[str], Mapping[str, Any]]]:
    """What a running service is asked for: name -> what does it; `error` in words when it could not."""

    def retry_(said: str) -> Mapping[str, Any]:
        try:
            return {"retried": asdict(retry(outbox, from_text(said), _PATIENCE_S))}
        except (OutboxError, ValueError) as error:
            return {"error": str(error)}

    def drop(said: str) -> Mapping[str, Any]:
        try:
            return {"dropped": outbox.drop_refused(from_text(said))}
        except (OutboxError, ValueError) as error:
            return {"error": str(error)}

    return {"retry_rejected": retry_, "drop_rejected": drop}
