"""How long a serial port can be left alone in the middle of a message. Sans-I/O.

At 2400 baud a list takes a second, and every few bytes would wake the process up: most of the processor time of `run`
with a real meter would go there. Most messages say their length at their start, so it is known how many bytes come
before their end. Until then the bytes can wait in the kernel, and the last byte is still read when it comes.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LONGEST", "Pacing"]

LONGEST: Final = 0.1
"""Longest pause in seconds. The first message of a port that is faster than its baud rate is read this much later."""
_HELD_BACK: Final = 0.02
"""Seconds that an adapter may hold bytes back (FTDI's USB adapters: 16 ms). The last byte can come this much sooner."""
_IN_ONE_PIECE: Final = 64
"""Bytes that an adapter may hand over late and in one piece: a USB packet."""


class Pacing:
    """Says how long nothing can come that ends the message that has begun."""

    def __init__(self) -> None:
        self._pause = 0.0
        self._ignores_baud = False

    def heard(self, size: int, missing: int, byte_seconds: float) -> float:
        """Take the size of a chunk; return the seconds to pause before the next read.

        `missing` is `Framer.missing` after the chunk. `byte_seconds` is the wire time of one byte, 0 without a wire.
        """
        paused, self._pause = self._pause, 0.0
        if self._ignores_baud or not byte_seconds:
            return 0.0
        if paused and size > paused / byte_seconds + _IN_ONE_PIECE:
            self._ignores_baud = True  # a virtual port, whose bytes come faster than its baud rate
            return 0.0
        self._pause = max(0.0, min(LONGEST, (missing - 1) * byte_seconds - _HELD_BACK))
        return self._pause
