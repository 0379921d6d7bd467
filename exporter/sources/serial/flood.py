"""A device that floods: bytes without end and without a message, faster than any meter sends.

It is read more slowly then, so that the other sources and the writer get their share of the processor. Bytes that are
not read in time wait at the far end of a network, or the kernel drops them, since its buffer is bounded. Nothing of a
meter is lost by that: a source is never read more slowly while valid messages come. Sans-I/O.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ALLOWED", "RATE", "Flood"]

RATE: Final = 16_384
"""Bytes per second that are read of a flood: more than a port with 115200 baud gives."""
ALLOWED: Final = 262_144
"""Bytes that may come at once without being a flood: after a failure, a network delivers what it kept."""
_PER_CHUNK: Final = 64
"""What taking one more chunk costs, in bytes."""


class Flood:
    """A budget of bytes: what comes uses it, time adds to it, and a message fills it up.

    Times are seconds of a monotonic clock. `received` counts the bytes that came after `since`, when the budget was
    full for the last time. The caller sets `reported` once it has reported the flood; a message resets it.
    """

    def __init__(self) -> None:
        self._left = float(ALLOWED)
        self._last = self.since = 0.0
        self.received = 0
        self.reported = False

    def heard(self, size: int, messages: int, now: float) -> float:
        """Take a chunk of `size` bytes that ended so many messages; return the seconds to pause before the next."""
        self._left = min(ALLOWED, self._left + (now - self._last) * RATE)
        self._last = now
        if messages or self._left >= ALLOWED:
            self._left, self.since, self.received = ALLOWED, now, 0
            self.reported = self.reported and not messages
        self._left -= size + _PER_CHUNK
        self.received += size
        return max(0.0, -self._left / RATE)
