"""What a framer finds in a stream of bytes: messages, and bytes that belong to none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Kind", "Message", "Rejected"]


@dataclass(frozen=True, slots=True)
class Message:
    """One complete message whose check sums are right.

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
    """Why bytes are not part of a message; the value is the name of the counter."""

    NOISE = "noise"
    FILL = "fill"
    """Only flags, which HDLC allows between frames."""
    HEADER = "hcs"
    FCS = "fcs"
    CLOSING_FLAG = "closing_flag"
    BROKEN_OFF = "broken_off"
    INCOMPLETE = "incomplete"
    """The stream ended before the message did."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Bytes of the stream that belong to no message; `reason` says why, for a person."""

    offset: int
    size: int
    kind: Kind
    reason: str
