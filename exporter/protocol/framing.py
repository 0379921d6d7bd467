"""The framers that there are, and what a stream speaks.

A framer is sans-I/O. Its contract: any slicing of the same bytes gives the same result; every byte belongs to exactly
one Message or Rejected or still waits; a lost message costs no neighbour; memory and the work for each byte are
bounded; no timer is involved. A new framer is one module, and one line in FRAMERS.
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
        """How many bytes were fed and not given out yet; bounded."""
        ...

    @property
    def missing(self) -> int:
        """How many bytes must still come, at least, before a message that has begun can end; 0 where not known.

        A message that has not begun yet can end earlier.
        """
        ...

    def feed(self, data: bytes) -> Sequence[Message | Rejected]:
        """Take bytes in and give out what they settle, in stream order. Never raises."""
        ...

    def passed(self, size: int) -> None:
        """The next `size` bytes were whole messages that the caller took; only where nothing waits."""
        ...

    def end(self) -> Sequence[Rejected]:
        """The stream ended: give out all that waits. What is fed then is a new stream at this offset."""
        ...


FRAMERS: Final[Mapping[str, Callable[[], Framer]]] = {HDLC: hdlc.Deframer}
"""What a stream may speak, by the name that every command shows, and its framer."""


def open_framer(speaks: str = HDLC) -> Framer:
    """A framer for a new stream."""
    return FRAMERS[speaks]()
