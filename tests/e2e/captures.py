"""Captures of known frames in the three forms, and other content that an owner may give."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.octets import crc_x25, frame, notification, structure, u16, u32

FIRST = datetime(2026, 10, 1, 6, 0, 3, 123000, tzinfo=UTC)


def write_raw(path: Path, frames: Iterable[bytes]) -> Path:
    """Raw bytes."""
    path.write_bytes(b"".join(frames))
    return path


def write_hex(path: Path, frames: Iterable[bytes]) -> Path:
    """Hex in lines of 16 bytes, with comments and blanks."""
    data = b"".join(frames)
    lines = [data[at : at + 16].hex(" ") for at in range(0, len(data), 16)]
    path.write_text("# a meter\n\n" + "  # here\n".join(lines) + "\n")
    return path


def stamp(moment: datetime) -> str:
    """A time stamp as `capture` writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_stamped(path: Path, chunks: Iterable[tuple[datetime, bytes]]) -> Path:
    """Time-stamped hex, one line for each chunk."""
    path.write_text("".join(f"{stamp(moment)} {data.hex().upper()}\n" for moment, data in chunks))
    return path


def every_ten_seconds(frames: Iterable[bytes], first: datetime = FIRST) -> list[tuple[datetime, bytes]]:
    """Each frame with a time."""
    return [(first + timedelta(seconds=10 * n), data) for n, data in enumerate(frames)]


def in_pieces(chunks: Iterable[tuple[datetime, bytes]], size: int) -> Iterator[tuple[datetime, bytes]]:
    """Frames as a port gives them: the last piece of each at its time, the others before it at 2400 baud."""
    for moment, data in chunks:
        for at in range(0, len(data), size):
            left = len(data) - min(at + size, len(data))
            yield moment - timedelta(milliseconds=round(left * 1000 / 240)), data[at : at + size]


def damaged(data: bytes) -> bytes:
    """A frame with one wrong bit in its information field."""
    return data[:60] + bytes([data[60] ^ 0x04]) + data[61:]


def fcs_words(data: bytes) -> str:
    """The message for a frame with a wrong FCS; both values in the order of the frame."""
    sent, calculated = data[-3:-1], crc_x25(data[1:-3])
    assert sent != calculated
    return f"FCS {sent.hex().upper()}, calculated {calculated.hex().upper()}"


ENCRYPTED = frame(b"\xe6\xe7\x00\xdb\x08KAM\x45\x00\x00\x01\x02" + b"\x2f\x30\x00\x00\x12\x34" + bytes(range(42)))
"""General-glo-ciphering, as Danish Kamstrup meters send it."""
UNKNOWN_LIST = frame(notification(structure(u32(1), u16(2))))
PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde"
    b"\x00\x00\x00\x0cIDAT" + zlib.compress(b"\x00\xff\x00\x00") + b"\x00\x00\x00\x00IEND\xaeB`\x82"
)
P1 = (
    b"/KFM5KAIFA-METER\r\n\r\n1-3:0.2.8(42)\r\n0-0:1.0.0(161113205757W)\r\n1-0:1.8.1(001581.123*kWh)\r\n"
    b"1-0:1.7.0(02.027*kW)\r\n!6EEE\r\n"
)
