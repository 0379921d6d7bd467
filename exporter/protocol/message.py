"""What a framer makes of a stream of bytes: messages, and bytes that belong to none.

Every byte of a stream belongs to exactly one Message or Rejected, or still waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Kind", "Message", "Rejected"]


@dataclass(frozen=True, slots=True)
class Message:
    """One whole message whose check sums are right.

    `offset` counts from the first byte ever fed, `size` is how many bytes of the stream belong to the message.
    `content` is what the next layer reads.
    """

    offset: int
    size: int
    content: bytes

    @property
    def end(self) -> int:
        """Offset of the first byte after the message."""
        return self.offset + self.size


class Kind(Enum):
    """Why octets are no frame; the value is the name of the counter."""

    NOISE = "noise"
    FILL = "fill"
    """Nothing but flags, which HDLC allows between frames."""
    HEADER = "hcs"
    FCS = "fcs"
    CLOSING_FLAG = "closing_flag"
    BROKEN_OFF = "broken_off"
    INCOMPLETE = "incomplete"
    """The stream ended inside a frame."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Octets of the stream that belong to no frame, and why, in words."""

    offset: int
    size: int
    kind: Kind
    reason: str
