"""Where bytes come from: a serial URL, a capture file, a simulated meter.

`chunks` opens a source, and opens it again when it fails. Its caller sees only bytes, and events with a message for the
owner. A new source is one module in this package and one line in `open_source`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import NamedTuple, Protocol, runtime_checkable


class Chunk(NamedTuple):
    """Bytes as they came in one piece.

    `received` is when the last byte of the chunk came, in UTC; None in a capture without time stamps. `byte_seconds`
    is the wire time of one byte on a serial port (10/2400 s at 2400 baud); 0 if the source has no wire. With it the
    closing flag of a frame gets its time, although more bytes follow it in the chunk.
    """

    data: bytes
    received: datetime | None
    byte_seconds: float = 0.0


class Happened(Enum):
    """What a source reports about itself."""

    OPENED = "opened"
    MISSING = "missing"
    """The port does not exist or cannot be opened."""
    SILENT = "silent"
    """The port is open and no byte came for 60 s."""
    LOST = "lost"
    """The port was open and reading it failed (unplugged, connection cut)."""
    NO_FRAMES = "no frames"
    """Bytes come, but no valid frame. The message says what is done about it; a change of that is reported again."""
    FOUND = "frames found"
    """Valid frames come after NO_FRAMES. The message says with which baud rate and parity."""


@dataclass(frozen=True, slots=True)
class SourceEvent:
    """Something that happened to a source; `message` tells the owner about it, and what to do."""

    what: Happened
    message: str


Report = Callable[[SourceEvent], None]
Pause = Callable[[threading.Event, float], object]
"""Waits for so many seconds, or until the event is set."""


class SourceError(Exception):
    """A source that can never work as it is configured; the message says what to change."""


class Source(Protocol):
    """Where bytes come from.

    `name` is short and does not change (`ttyUSB0`, `capture.hex`, `kamstrup`); it names the source in logs and tags.
    `chunks` yields until `stop` is set (it looks at it at least once a second) or the source has ended. If an error can
    pass by itself, `chunks` reports it, waits (tenacity: 1 s to 30 s, exponential, with jitter) and opens the source
    again. It raises SourceError for an error that can never pass (a directory, an unknown parameter).
    `live` is False for a file that is read at full speed. `received` is then the time in the capture, not now.
    """

    name: str
    live: bool

    def chunks(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        """Yield bytes as they come."""
        ...


@runtime_checkable
class Remembers(Protocol):
    """A source with something to remember over a restart, as text in `remembered`; empty at first.

    The caller sets it before `chunks`, and reads it when the source has reported FOUND.
    """

    remembered: str
