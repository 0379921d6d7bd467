"""The framers of this product: the kinds of stream that can be cut into messages.

A framer is sans-I/O. Its contract: any slicing of the same bytes gives the same result; every byte belongs to exactly
one Message or Rejected, or still waits; a damaged message does not make the messages before and after it unreadable;
memory and the work for each byte are bounded; no timer is used. A new framer is one module and one line in FRAMERS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from exporter.protocol import hdlc
from exporter.protocol.message import Kind, Message, Rejected

__all__ = ["FRAMERS", "HDLC", "Framer", "Kind", "Message", "Rejected", "open_framer"]

HDLC: Final = "HDLC"


class Framer(Protocol):
    """Cuts one stream into messages."""

    @property
    def fed(self) -> int:
        """How many bytes were fed."""
        ...

    @property
    def waiting(self) -> int:
        """How many bytes were fed and are not in a Message or Rejected yet; bounded."""
        ...

    @property
    def missing(self) -> int:
        """How many bytes must still come, at least, before a message that has begun can end; 0 if that is not known.

        A message that has not begun yet can end earlier.
        """
        ...

    def feed(self, data: bytes) -> Sequence[Message | Rejected]:
        """Take bytes and return what is decided now, in stream order. Never raises."""
        ...

    def passed(self, size: int) -> None:
        """Skip the next `size` bytes, which were whole messages that the caller took. Only if nothing is waiting."""
        ...

    def end(self) -> Sequence[Rejected]:
        """End the stream and return all that was waiting. What is fed later is a new stream at this offset."""
        ...


FRAMERS: Final[Mapping[str, Callable[[], Framer]]] = {HDLC: hdlc.Deframer}
"""Framers by the name of what the stream is framed with; every command shows this name."""


def open_framer(framing: str = HDLC) -> Framer:
    """A framer for a new stream."""
    return FRAMERS[framing]()
