"""Lines as the rows that an outbox takes."""

from __future__ import annotations

from collections.abc import Iterable

from exporter.model.point import Row, replaced_key

__all__ = ["rows"]


def rows(lines: Iterable[str]) -> list[Row]:
    """Each line as a row of its own, with its key, in their order."""
    return [Row(line.encode(), replaced_key(line)) for line in lines]
