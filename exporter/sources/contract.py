"""Where octets come from: a serial URL, a capture file, a simulated meter.

A source is opened, broken and opened again inside `chunks`; whoever consumes it only sees octets, and events that say
in words what happened. New sources are one module here and one line in `open_source`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Chunk:
    """Octets as they came in one piece.

    `received` is UTC: when the last octet of the chunk was here; None in a capture without time stamps.
    `byte_seconds` is the wire time of one octet on a serial port (10/2400 s at 2400 baud), so that the closing flag
    of a frame can be placed before the octets that follow it in the chunk; 0 where that says nothing.
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
    """The port is open and no octet came for 60 s."""
    LOST = "lost"
    """The port was open and reading it failed (unplugged, connection cut)."""
    NO_FRAMES = "no frames"
    """Octets come and no frame checks; the words say what is done about it. Told again when that changes."""
    FOUND = "frames found"
    """Frames check after NO_FRAMES; the words say with which speed and parity."""


@dataclass(frozen=True, slots=True)
class SourceEvent:
    """Something that happened to a source; `words` tell the owner what, and what to do about it."""

    what: Happened
    words: str


Report = Callable[[SourceEvent], None]


class SourceError(Exception):
    """A source that can never work as it was given; the message says what to change."""


class Source(Protocol):
    """Where octets come from.

    `name` is short and stable (`ttyUSB0`, `capture.hex`, `kamstrup`): it names the source in logs and tags.
    `chunks` yields until `stop` is set (it looks at least once a second) or the source has an end. It never raises
    for something that can mend itself: it reports, waits (tenacity: 1 s to 30 s, exponential, with jitter) and opens
    again. It raises SourceError for what never can (a directory, an unknown parameter).
    `live` is False for a file read at full speed: `received` is then the capture's, not now.
    """

    name: str
    live: bool

    def chunks(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        """Yield octets as they come."""
        ...


@runtime_checkable
class Learns(Protocol):
    """A source that finds out what it should know again after a restart, as text in `learnt`; empty at first.

    It is set before `chunks`, and read when the source has reported FOUND.
    """

    learnt: str
