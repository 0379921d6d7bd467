"""Writes the bytes of a simulated meter to a file descriptor, such as a pseudo-terminal, at the pace of a wire."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

_PIECE_SECONDS: Final = 0.05  # how often bytes are written
_PATIENCE_SECONDS: Final = 0.25  # how often it looks at `stop` while nobody reads


def feed(
    fd: int,
    frames: Iterable[bytes],
    bytes_per_second: float,
    stop: threading.Event,
    monotonic: Callable[[], float] = time.monotonic,
) -> int:
    """Write the frames one after another, not faster than `bytes_per_second` (240 at 2400 baud 8N1).

    Returns how many bytes were written: all, or those before `stop` was set. Raises OSError if the descriptor cannot
    be written any more.
    """
    piece = max(1, int(bytes_per_second * _PIECE_SECONDS))
    began, written = monotonic(), 0
    for frame in frames:
        for at in range(0, len(frame), piece):
            rest = frame[at : at + piece]
            while rest:
                ahead = written / bytes_per_second - (monotonic() - began)
                if stop.wait(max(ahead, 0)):
                    return written
                if select.select([], [fd], [], _PATIENCE_SECONDS)[1]:
                    count = os.write(fd, rest)
                    rest, written = rest[count:], written + count
    return written
