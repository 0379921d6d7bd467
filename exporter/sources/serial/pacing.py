"""How long to leave a wire alone in the middle of a frame.

At 2400 baud a list takes a second, and each octet or few would wake the process: most of what `run` costs with a meter
that really hangs on a wire. A frame says its length at its start, and its end cannot come before the octets between:
until then they may gather in the kernel, and still the closing flag is read when it comes. Sans-I/O.
"""

from __future__ import annotations

from typing import Final

from exporter.protocol.hdlc import FLAG

__all__ = ["LONGEST", "Pacing"]

LONGEST: Final = 0.1
"""Seconds at a time: so late is the one frame by which a port is found out that is faster than its line's speed."""
_HELD_BACK: Final = 0.02
"""Seconds that an adapter may keep octets itself (a USB one by FTDI 16 ms): so much sooner can the end be there."""
_AT_ONCE: Final = 64
"""Octets that an adapter may hand over late and in one piece: a USB packet."""


class Pacing:
    """Told what was heard, says how long nothing can come that ends the frame that has begun; 0 is: not known."""

    def __init__(self) -> None:
        self._head = b""
        self._rested = 0.0
        self._quicker = False

    def heard(self, octets: bytes, waiting: int, byte_seconds: float) -> float:
        """Take a chunk; gives the seconds to rest before the next.

        `waiting` is Deframer.waiting behind it, `byte_seconds` the time of an octet on the wire, 0 if there is none.
        """
        rested, self._rested = self._rested, 0.0
        if self._quicker or not byte_seconds:
            return 0.0
        if rested and len(octets) > rested / byte_seconds + _AT_ONCE:
            self._quicker = True  # a virtual port: nothing is paced by the speed that it was set to
            return 0.0
        if waiting <= len(octets):
            self._head = octets[len(octets) - waiting :][:3]
        elif len(self._head) < 3:
            self._head = (self._head + octets)[:3]
        before_the_end = _whole(self._head) - waiting - 1
        self._rested = max(0.0, min(LONGEST, before_the_end * byte_seconds - _HELD_BACK))
        return self._rested


def _whole(head: bytes) -> int:
    """Octets of the frame that begins so, with its closing flag; 0 when it is none, or not known yet.

    The format field is A and the length in the lower 11 bits; the opening flag may be the closing one of the frame
    before, which waits no more (hdlc.py).
    """
    flag = head[:1] == bytes([FLAG])
    field = head[flag : flag + 2]
    if len(field) < 2 or field[0] & 0xF0 != 0xA0:
        return 0
    return int(flag) + ((field[0] & 0x07) << 8 | field[1]) + 1
