"""What the writer needs of a database, and what a database says about a write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

__all__ = ["Sink", "Verdict", "WriteResult"]


class Verdict(Enum):
    """Why lines were not taken."""

    TAKEN = "taken"
    RETRY = "retry"
    """The network, or a busy server: the same lines will be taken later."""
    MISCONFIGURED = "misconfigured"
    """The settings or the server: no line is wrong, and someone must fix something."""
    BAD_LINES = "bad lines"
    """At least one line is wrong, by the database's own words. It may have taken the others, or none of them."""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of a write.

    `message` is a sentence for the owner, the database's words for BAD_LINES, and "" for TAKEN. `retry_after` is in
    seconds, and None when the database did not ask for a pause. `too_large` says that fewer lines may be taken.
    """

    verdict: Verdict
    message: str = ""
    retry_after: float | None = None
    too_large: bool = False


class Sink(Protocol):
    """A database that takes lines."""

    address: str
    """Where it is, as it may be shown in a message."""

    def write(self, lines: Sequence[str], *, timeout: float | None = None) -> WriteResult:
        """Write lines as one batch, within `timeout` seconds if that is given. Raises nothing."""
        ...
