"""Messages -> readings. Sans-I/O like the protocol that it calls; bad input becomes an outcome, never an exception."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from exporter.meters import interpret, to_utc
from exporter.model.reading import Reading, Zone
from exporter.protocol.apdu import decode
from exporter.protocol.axdr import DecodeError
from exporter.protocol.framing import Message, Rejected
from exporter.protocol.hdlc import Frame

__all__ = ["Decoded", "Outcome", "Undecoded", "decode_message"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A message and what it says."""

    message: Message
    reading: Reading


@dataclass(frozen=True, slots=True)
class Undecoded:
    """A message whose check sums are right and that cannot be decoded, and why."""

    message: Message
    reason: str


Outcome: TypeAlias = Decoded | Undecoded | Rejected
"""What became of some bytes of a stream."""


def decode_message(message: Message, received: datetime | None, zone: Zone) -> Decoded | Undecoded:
    """What a message says; `received` (UTC) is when its last byte came."""
    try:
        if isinstance(message, Frame) and message.segmented:
            raise DecodeError(0, "one segment of a longer message; not supported yet")
        reading = interpret(decode(message.content), zone)
    except DecodeError as error:
        return Undecoded(message, str(error))
    if received is not None:
        clock = reading.clock
        if reading.meter_clock is not None:  # the hour that comes twice in autumn
            clock = to_utc(reading.meter_clock, reading.habit, zone, received)
        reading = replace(reading, received=received, clock=clock)
    return Decoded(message, reading)
