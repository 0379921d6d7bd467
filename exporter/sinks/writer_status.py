"""How it goes with the writer, for telemetry and `check`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["WriterState", "WriterStatus"]


class WriterState(Enum):
    """How it goes, in a word."""

    STARTING = "starting"
    OK = "ok"
    WAITING = "waiting"
    """InfluxDB does not answer, or asks to wait."""
    MISCONFIGURED = "misconfigured"
    """InfluxDB answers no, and someone must mend something."""


@dataclass(frozen=True, slots=True)
class WriterStatus:
    """A snapshot for telemetry. Counts are since the start; a line that is sent twice counts twice."""

    state: WriterState = WriterState.STARTING
    points_written: int = 0
    lines_rejected: int = 0
    retries: int = 0
    last_latency_s: float | None = None
    """Of the last post that was taken."""
    last_error: str = ""
    """The words of the last failure, kept after it is over."""
