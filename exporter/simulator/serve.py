"""A simulated meter's octets on a file descriptor, at the pace of a wire: what stands behind a pseudo-terminal."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

_PIECE_SECONDS: Final = 0.05  # how often octets are handed over
_PATIENCE_SECONDS: Final = 0.25  # how often `stop` is looked at while nobody reads


def feed(
    fd: int,
    frames: Iterable[bytes],
    octets_per_second: float,
    stop: threading.Event,
    monotonic: Callable[[], float] = time.monotonic,
) -> int:
    """Write the frames one behind the other, no faster than `octets_per_second` (240 at 2400 baud 8N1).

    Gives how many octets were written: all, or those before `stop` was set. Raises OSError when the descriptor can
    no longer be written.
    """
    piece = max(1, int(octets_per_second * _PIECE_SECONDS))
    began, written = monotonic(), 0
    for frame in frames:
        for at in range(0, len(frame), piece):
            rest = frame[at : at + piece]
            while rest:
                ahead = written / octets_per_second - (monotonic() - began)
                if stop.wait(max(ahead, 0)):
                    return written
                if select.select([], [fd], [], _PATIENCE_SECONDS)[1]:
                    count = os.write(fd, rest)
                    rest, written = rest[count:], written + count
    return written
