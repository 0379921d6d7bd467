"""A capture of any size: a Kamstrup meter's 10 s list and hourly list, with a clock that advances from frame to frame.

As raw bytes, or as time-stamped hex with one line for each frame.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final

from exporter.protocol.hdlc import crc
from exporter.simulator.meter import Frame, SimulatedMeter
from tests.benchmarks import frames

BLOCK_DAYS: Final = 2
_START: Final = datetime(2024, 1, 1, tzinfo=UTC)
_FIRST_DAY: Final = datetime(2022, 1, 1, tzinfo=UTC)
"""So early that the last of ten million frames is in the past too."""
BLOCK_FRAMES: Final = BLOCK_DAYS * (8640 + 24)
_HEADER_CLOCK: Final = 17
_LIST_CLOCK: Final = re.compile(rb"\x09\x06\x00\x01\x01\x00\x00\xff\x09\x0c")


class Capture:
    """A file that grows: `grow_to` a number of frames. The first frames are always the same."""

    def __init__(self, path: Path, *, stamped: bool = False) -> None:
        self.path = path
        self.frames = 0
        self._stamped = stamped
        path.write_bytes(b"")

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.path.stat().st_size

    def grow_to(self, count: int) -> None:
        """Append frames until it has `count`."""
        with self.path.open("ab") as file:
            while self.frames < count:
                block, at = divmod(self.frames, BLOCK_FRAMES)
                wanted = _block()[at : at + count - self.frames]
                later = _FIRST_DAY - _START + timedelta(days=BLOCK_DAYS * block)
                file.write(b"".join(self._written(one.complete + later, _shifted(later, one.data)) for one in wanted))
                self.frames += len(wanted)

    def _written(self, received: datetime, frame: bytes) -> bytes:
        if not self._stamped:
            return frame
        stamp = received.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"{stamp} {frame.hex().upper()}\n".encode()


@lru_cache(maxsize=1)
def _block() -> Sequence[Frame]:
    """The frames of some whole days, as the simulated meter sends them."""
    meter = SimulatedMeter("kamstrup", meter_id=frames.identity("kamstrup").id.decode())
    first = _START - timedelta(hours=1)  # its clock is local standard time
    made = list(islice(meter.frames(first), BLOCK_FRAMES))
    assert made[0].data[_HEADER_CLOCK : _HEADER_CLOCK + 2] == (2024).to_bytes(2, "big")
    return made


def _shifted(later: timedelta, data: bytes) -> bytes:
    """The same frame some whole days later: what the encoder would make, in a fortieth of the time."""
    frame = bytearray(data)
    places = [_HEADER_CLOCK]
    if len(frame) > 250 and (found := _LIST_CLOCK.search(data)):
        places.append(found.end())
    for at in places:
        frame[at : at + 5] = _date(later, data[at : at + 4])
    frame[-3:-1] = crc(bytes(frame[1:-3])).to_bytes(2, "little")
    return bytes(frame)


@lru_cache(maxsize=1024)
def _date(later: timedelta, date: bytes) -> bytes:
    day = datetime(int.from_bytes(date[:2], "big"), date[2], date[3], tzinfo=UTC) + later
    return day.year.to_bytes(2, "big") + bytes((day.month, day.day, day.isoweekday()))
