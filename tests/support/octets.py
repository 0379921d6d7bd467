"""Octets for tests, built by hand: no code of the product makes what the product is tested with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CAPTURES = Path(__file__).parents[1] / "captures"


def crc_x25(octets: bytes) -> bytes:
    """CRC-16/X-25 bit by bit, low octet first."""
    register = 0xFFFF
    for octet in octets:
        register ^= octet
        for _ in range(8):
            register = register >> 1 ^ (0x8408 if register & 1 else 0)
    return (register ^ 0xFFFF).to_bytes(2, "little")


def frame(
    information: bytes, *, addresses: bytes = b"\x41\x08\x83", control: int = 0x13, segmented: bool = False
) -> bytes:
    """An HDLC frame with both flags."""
    length = 2 + len(addresses) + 1 + (2 if information else 0) + len(information) + 2
    head = bytes([0xA0 | 0x08 * segmented | length >> 8, length & 0xFF]) + addresses + bytes([control])
    body = head + (crc_x25(head) + information if information else b"")
    return b"\x7e" + body + crc_x25(body) + b"\x7e"


def notification(value: bytes, date_time: bytes = b"\x00", *, invoke_id: int = 0x40000000) -> bytes:
    """LLC and a Data-Notification around an A-XDR value."""
    return b"\xe6\xe7\x00\x0f" + invoke_id.to_bytes(4, "big") + date_time + value


def frames_of(name: str, folder: Path = CAPTURES) -> list[bytes]:
    """The frames of a capture, one a line; comments begin with #. Those of tests/captures if no folder is named."""
    lines = (folder / f"{name}.hex").read_text().splitlines()
    return [bytes.fromhex(line) for line in lines if line.strip() and not line.startswith("#")]


def expected(folder: Path = CAPTURES) -> dict[str, list[dict[str, Any]]]:
    """Capture name -> what each of its frames says."""
    content: dict[str, list[dict[str, Any]]] = json.loads((folder / "expected.json").read_text())
    return content


def all_frames() -> list[bytes]:
    """Every frame of every capture."""
    return [octets for name in sorted(expected()) for octets in frames_of(name)]


def structure(*elements: bytes) -> bytes:
    """An A-XDR structure of encoded elements."""
    return bytes([2, len(elements)]) + b"".join(elements)


def array(*elements: bytes) -> bytes:
    """An A-XDR array of encoded elements."""
    return bytes([1, len(elements)]) + b"".join(elements)


def octet_string(octets: bytes | str) -> bytes:
    """An A-XDR octet-string."""
    octets = octets.encode() if isinstance(octets, str) else octets
    return bytes([9, len(octets)]) + octets


def visible(text: str) -> bytes:
    """An A-XDR visible-string."""
    return bytes([10, len(text)]) + text.encode()


def u32(value: int) -> bytes:
    """A double-long-unsigned."""
    return b"\x06" + value.to_bytes(4, "big")


def u16(value: int) -> bytes:
    """A long-unsigned."""
    return b"\x12" + value.to_bytes(2, "big")


def obis(text: str) -> bytes:
    """`1-0:1.7.0` as an octet-string of six."""
    for sign in "-:.":
        text = text.replace(sign, " ")
    return octet_string(bytes([*map(int, text.split()), 255]))


def clock(year: int, month: int, day: int, hour: int, minute: int, second: int, tail: str = "ff800000") -> bytes:
    """The 12 octets of a date-time; `tail` is hundredths, deviation and status."""
    return year.to_bytes(2, "big") + bytes([month, day, 0xFF, hour, minute, second]) + bytes.fromhex(tail)


def joined(parts: Iterable[bytes]) -> bytes:
    """One stream of all."""
    return b"".join(parts)
