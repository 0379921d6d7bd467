"""Numbers of things in messages: `1 line`, `12 345 lines`."""

from __future__ import annotations

__all__ = ["counted", "grouped"]


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """The number with its noun. The plural is the singular with an s if it is not given."""
    return f"{grouped(number)} {singular if number == 1 else plural or f'{singular}s'}"


def grouped(number: float) -> str:
    """A number rounded to a whole one, its digits in groups of three: `12 345`."""
    return f"{round(number):,}".replace(",", " ")
