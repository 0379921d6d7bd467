"""What the outbox hands out: a batch of waiting lines, a refused line, how much it holds."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Batch", "RefusedLine", "Status"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Waiting lines, oldest first, and what `Outbox.delete` needs to remove them.

    `keys` has one entry for each line: empty, or the name of the point that the line is a version of. `oldest` and
    `newest` say when the first and the last of the lines were appended, in seconds since 1970. `out_of_order` is set
    when lines that are older than these are waiting.
    """

    lines: tuple[str, ...]
    keys: tuple[str, ...]
    oldest: float
    newest: float
    out_of_order: bool
    rows: tuple[tuple[int, int], ...]
    """(row id, number of its lines), in the order of `lines`."""
    generation: int
    """Which file the row ids belong to: a damaged file is replaced by a new one."""


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line that the database refused: when (seconds since 1970), and why, as the database said it."""

    id: int
    at: float
    line: str
    message: str


@dataclass(frozen=True, slots=True)
class Status:
    """What the outbox holds. `dropped_lines` is never reset; `oldest_age_s` is None when no line is waiting."""

    depth_lines: int
    oldest_age_s: float | None
    size_bytes: int
    dropped_lines: int
    rejected_lines: int
