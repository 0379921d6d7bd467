"""Captures of known frames in the three forms, and what an owner may give in place of one."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.octets import crc_x25, frame, notification, structure, u16, u32

FIRST = datetime(2026, 10, 1, 6, 0, 3, 123000, tzinfo=UTC)


def write_raw(path: Path, frames: Iterable[bytes]) -> Path:
    """Octets as they are."""
    path.write_bytes(b"".join(frames))
    return path


def write_hex(path: Path, frames: Iterable[bytes]) -> Path:
    """Hex in lines of 16 octets, with comments and blanks."""
    octets = b"".join(frames)
    lines = [octets[at : at + 16].hex(" ") for at in range(0, len(octets), 16)]
    path.write_text("# a meter\n\n" + "  # here\n".join(lines) + "\n")
    return path


def stamp(moment: datetime) -> str:
    """As `capture` writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def write_stamped(path: Path, chunks: Iterable[tuple[datetime, bytes]]) -> Path:
    """Time-stamped hex, one line a chunk."""
    path.write_text("".join(f"{stamp(moment)} {octets.hex().upper()}\n" for moment, octets in chunks))
    return path


def every_ten_seconds(frames: Iterable[bytes], first: datetime = FIRST) -> list[tuple[datetime, bytes]]:
    """A stamp for each frame."""
    return [(first + timedelta(seconds=10 * n), octets) for n, octets in enumerate(frames)]


def in_pieces(chunks: Iterable[tuple[datetime, bytes]], size: int) -> Iterator[tuple[datetime, bytes]]:
    """As a port hands frames over: the last piece of each comes at its time, the others at 2400 baud before it."""
    for moment, octets in chunks:
        for at in range(0, len(octets), size):
            left = len(octets) - min(at + size, len(octets))
            yield moment - timedelta(milliseconds=round(left * 1000 / 240)), octets[at : at + size]


def damaged(octets: bytes) -> bytes:
    """A frame with one bit turned in its information field."""
    return octets[:60] + bytes([octets[60] ^ 0x04]) + octets[61:]


def fcs_words(octets: bytes) -> str:
    """What is to be said of a frame whose FCS is wrong; both as they stand on the wire."""
    sent, calculated = octets[-3:-1], crc_x25(octets[1:-3])
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
