"""A device that floods: octets without end and without a frame, faster than any meter sends.

Sans-I/O. It is read more slowly then, so that the other sources and the writer have their share of the processor. What
is not read in time waits at the far end of a network, or is dropped by the kernel, whose buffer is bounded; nothing of
a meter is lost by that, for as long as frames check nothing is slowed down.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ALLOWED", "RATE", "Flood"]

RATE: Final = 16_384
"""Octets a second that are read of a flood: more than 115200 baud carry."""
ALLOWED: Final = 262_144
"""Octets that may come at once before it is one: a network that was away hands over what it kept."""
_EACH: Final = 64
"""What taking one more chunk costs, counted in octets."""


class Flood:
    """A bucket that octets empty, that time fills and a frame fills up. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._left = float(ALLOWED)
        self._last = self.since = 0.0
        self.octets = 0
        """What came since `since`, when the bucket was last full."""
        self.told = False

    def heard(self, octets: int, frames: int, now: float) -> float:
        """Take a chunk; gives the seconds to rest before the next."""
        self._left = min(ALLOWED, self._left + (now - self._last) * RATE)
        self._last = now
        if frames or self._left >= ALLOWED:
            self._left, self.since, self.octets = ALLOWED, now, 0
            self.told = self.told and not frames
        self._left -= octets + _EACH
        self.octets += octets
        return max(0.0, -self._left / RATE)
