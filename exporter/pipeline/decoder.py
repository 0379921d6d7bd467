"""Octets -> readings, frame by frame: the way that `run`, `import`, `decode` and `watch` have in common.

Sans-I/O like the protocol it calls. What each reading is called and when it was is `placing.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from exporter.meters import OSLO, interpret, to_utc
from exporter.model.reading import Reading, Zone
from exporter.protocol.apdu import decode
from exporter.protocol.axdr import DecodeError
from exporter.protocol.framing import Rejected
from exporter.protocol.hdlc import Deframer, Frame


@dataclass(frozen=True, slots=True)
class Heard:
    """A frame and what it says."""

    frame: Frame
    reading: Reading


@dataclass(frozen=True, slots=True)
class Unread:
    """A frame that checks and cannot be read, and why in words."""

    frame: Frame
    words: str


Outcome: TypeAlias = Heard | Unread | Rejected


class Intake:
    """One source's octets -> outcomes in stream order. Bad input becomes an outcome, never an exception."""

    def __init__(self, zone: Zone = OSLO) -> None:
        self._zone = zone
        self._deframer = Deframer()
        self._received: datetime | None = None

    @property
    def octets(self) -> int:
        """Octets fed so far."""
        return self._deframer.fed

    def feed(self, octets: bytes, received: datetime | None = None, byte_seconds: float = 0.0) -> list[Outcome]:
        """Take one chunk. `received` (UTC) is when its last octet was here; see `sources.Chunk`.

        A reading carries when its closing flag came: `received` less the wire time of the octets behind it, but not
        before the chunk before: octets that come faster than on a wire (a pseudo-terminal, a buffer that is emptied)
        would else overtake those before them.
        """
        before, self._received = self._received, received
        found = self._deframer.feed(octets)
        fed = self._deframer.fed
        outcomes: list[Outcome] = []
        for item in found:
            if isinstance(item, Rejected):
                outcomes.append(item)
                continue
            moment, behind = received, fed - item.end
            if received is not None:
                moment = received - timedelta(seconds=behind * byte_seconds)
                if before is not None and moment < before <= received and behind < len(octets):
                    moment = before
            outcomes.append(read_frame(item, moment, self._zone))
        return outcomes

    def end(self) -> list[Outcome]:
        """The stream ended or broke: what was left waiting, as rejects."""
        return list(self._deframer.end())


def read_frame(frame: Frame, received: datetime | None, zone: Zone) -> Heard | Unread:
    """What a frame says; `received` (UTC) is when its closing flag came."""
    try:
        if frame.segmented:
            raise DecodeError(0, "one segment of a longer message; not supported yet")
        reading = interpret(decode(frame.content), zone)
    except DecodeError as error:
        return Unread(frame, str(error))
    if received is not None:
        clock = reading.clock
        if reading.meter_clock is not None:  # the hour that comes twice in autumn
            clock = to_utc(reading.meter_clock, reading.habit, zone, received)
        reading = replace(reading, received=received, clock=clock)
    return Heard(frame, reading)
