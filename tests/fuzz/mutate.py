"""Mutations that know what they change: of octets, of frames (lengths and checksums made right again), of text."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from exporter.protocol.hdlc import crc
from tests.support.octets import frame, notification

Mutator: TypeAlias = Callable[[bytes, random.Random], bytes]

_INTERESTING: Final = (
    *range(0x1C),
    *b"\x7e\x7f\x80\x83\xa0\xa8\xaf\xdb\xe0\xe6\xe7\xfe\xff",
)
_START: Final = re.compile(rb"\x7e[\xa0-\xaf]")
_CODES: Final = tuple(
    bytes.fromhex(code)
    for code in (
        "0906 0100010700ff 0906 0101000005ff 0906 0000010000ff 0906 0101000281ff 0906 01001f0700ff 0906 01010108ffff "
        "0906 0000600100ff 0906 0101600101ff 090c 07ea0a19000230ffff800000 090c 07ea03fffe0230ff00800080"
    )
    .replace("0906 ", "0906")
    .replace("090c ", "090c")
    .split()
)
_WORDS: Final = (
    b"2026-11-22T17:00:10.123Z 7EA0",
    b"0001-01-01T00:00:00Z ",
    b"9999-12-31T23:59:59.999999-14:00 ",
    b"2026-10-25T02:30:00+02:00 ",
    b"\n",
    b"# ",
    b"\r\n",
    b"0x7E, 0xA0",
    b"7E:A0:E2",
    b"~\xa0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\0\0\0\0",
    b" " * 50,
    b"nan",
    b"1e309",
    b"-0",
    b"9" * 5000,
    b"[" * 3000,
    b'"',
    b"'''",
    b'[meter."',
    b"\\u0000",
    b"\\ud800",
    b"../../",
    b"://",
    b"?",
    b"&",
    b"sim:",
    b"socket://",
    b"rfc2217://",
    b"file:",
    b"---\n",
    "٣".encode(),
    b"%00",
    b"~root/",
    b"[::1]:2001",
)

_SIMPLE: Final = (
    *((0, 0), (3, 1), (5, 4), (6, 4), (15, 1), (16, 2), (17, 1), (18, 2), (20, 8), (21, 8), (22, 1), (23, 4), (24, 8)),
    *((25, 12), (26, 5), (27, 4), (9, -1), (10, -1), (12, -1), (4, -8)),
)
"""Tags of values that are no lists, and their octets: -1 and -8 for a length before them, in octets or bits."""


def octets(data: bytes, dice: random.Random) -> bytes:
    """One to four changes of octets, without knowing what they are."""
    content = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 4])):
        at = dice.randrange(len(content) + 1)
        match dice.randrange(7):
            case 0 if content:
                content[at % len(content)] = dice.choice(_INTERESTING)
            case 1 if content:
                content[at % len(content)] ^= 1 << dice.randrange(8)
            case 2:
                del content[at : at + dice.choice([1, 2, 8, 64])]
            case 3:
                content[at:at] = dice.randbytes(dice.choice([1, 2, 8, 20]))
            case 4:
                end = at + dice.choice([1, 9, 13, 60, 300])
                content[at:at] = content[at:end] * dice.choice([1, 1, 2, 10])
            case 5:
                other = dice.randrange(len(content) + 1)
                length = dice.choice([1, 4, 20, 100])
                content[at : at + length] = content[other : other + length]
            case _:
                content[at:at] = dice.choice(_CODES)
    return bytes(content)


def framed(data: bytes, dice: random.Random) -> bytes:
    """Octets of a stream, changed; most often its frames check afterwards, so that what they hold is looked at."""
    if dice.random() < 0.15:
        data += frame(notification(value(dice)))
    match dice.randrange(10):
        case 0:
            return octets(data, dice)
        case 1:  # a header that checks, and promises more than there is; many of them
            length = dice.choice([9, 20, 300, 0x7FF])
            head = bytes([0xA0 | length >> 8, length & 0xFF, 3, 3, 0x13])
            at = dice.randrange(len(data) + 1)
            starts = (b"\x7e" + head + crc(head).to_bytes(2, "little")) * dice.choice([1, 2, 300])
            return data[:at] + starts + data[at:]
        case _:
            return mended(octets(data, dice))


def mended(stream: bytes) -> bytes:
    """Every frame of a stream with the length up to its flag, and checksums that are right."""
    content = bytearray(stream)
    at = 0
    while (found := _START.search(content, at)) is not None:
        start = found.start()
        length = (content[start + 1] & 7) << 8 | content[start + 2] if start + 2 < len(content) else 0
        end = start + 1 + length
        if length < 9 or end >= len(content) or content[end] != 0x7E:
            end = content.find(0x7E, start + 12)
            length = end - start - 1
            if not 9 <= length <= 0x7FF:
                at = start + 1
                continue
            content[start + 1] = content[start + 1] & 0xF8 | length >> 8
            content[start + 2] = length & 0xFF
        _check(content, start, end)
        at = end
    return bytes(content)


def _check(content: bytearray, start: int, end: int) -> None:
    at = start + 3
    for _ in range(2):
        first = at
        while at < min(end, first + 4) and not content[at] & 1:
            at += 1
        at += 1
    if at + 3 < end - 2:
        content[at + 1 : at + 3] = crc(bytes(content[start + 1 : at + 1])).to_bytes(2, "little")
    content[end - 2 : end] = crc(bytes(content[start + 1 : end - 2])).to_bytes(2, "little")


def value(dice: random.Random, depth: int = 0) -> bytes:
    """An A-XDR value of any type."""
    if depth < 3 and dice.random() < 0.5:
        count = dice.choice([0, 1, 2, 3, 4, 9, 13, 14, 18])
        return bytes([dice.choice([1, 2]), count]) + b"".join(value(dice, depth + 1) for _ in range(count))
    if dice.random() < 0.3:
        return dice.choice(_CODES)
    tag, size = dice.choice(_SIMPLE)
    if size >= 0:
        return bytes([tag]) + dice.choice([dice.randbytes(size), b"\xff" * size, bytes(size), b"\x7f" * size])
    length = dice.choice([0, 1, 6, 12, 16, 18])
    return bytes([tag, length * (8 if size == -8 else 1)]) + dice.choice(
        [dice.randbytes(length), b"5706567100012345AB"[:length], b"Kamstrup_V0001, =\n"[:length], b"KFM_001"[:length]]
    ).ljust(length, b"\\")


def text(data: bytes, dice: random.Random) -> bytes:
    """Text, changed word by word or octet by octet."""
    if dice.random() < 0.4:
        return octets(data, dice)
    at = dice.randrange(len(data) + 1)
    match dice.randrange(4):
        case 0:
            return data[:at] + dice.choice(_WORDS) + data[at:]
        case 1:
            lines = data.split(b"\n")
            lines.insert(dice.randrange(len(lines) + 1), dice.choice(lines))
            return b"\n".join(lines)
        case 2:
            lines = data.split(b"\n")
            del lines[dice.randrange(len(lines))]
            return b"\n".join(lines)
        case _:
            end = at + dice.choice([1, 2, 5, 30])
            return data[:at] + dice.choice(_WORDS) + data[end:]


def capture(data: bytes, dice: random.Random) -> bytes:
    """A capture in one of its forms, or its octets changed and written in another."""
    if dice.random() < 0.7:
        return text(data, dice)
    stream = framed(data[:600], dice)
    if dice.random() < 0.3:
        return stream
    lines = [stream[at : at + 50].hex() for at in range(0, len(stream), 50)]
    if dice.random() < 0.5:
        return "\n".join(lines).encode()
    year = dice.choice(["2026-10-25", "0001-01-01", "9999-12-31", "2026-03-29", "1969-12-31"])
    return "".join(f"{year}T{n % 24:02}:00:10.5Z {line}\n" for n, line in enumerate(lines)).encode()


def damage(data: bytes, dice: random.Random) -> bytes:
    """A list of damages (outbox.py), one more or one less or one changed."""
    flags, rest = data[:1] or b"\0", bytearray(data[1:])
    match dice.randrange(5):
        case 0:
            return bytes([dice.randrange(8)]) + rest
        case 1:
            at = dice.randrange(len(rest) // 9 + 1) * 9
            del rest[at : at + 9]
        case 2 if rest:
            rest[dice.randrange(len(rest))] = dice.randrange(256)
        case _:
            for _ in range(dice.choice([1, 1, 2, 5, 20])):
                offset = dice.choice([dice.randrange(120), dice.randrange(4096), 4096 - dice.randrange(1, 400)])
                rest += bytes([dice.choice([0, 0, 0, 1, 1, 2, 3, 4, 5]), dice.choice([0, 1, 0x81])])
                rest += dice.randrange(64).to_bytes(2, "big") + offset.to_bytes(2, "big") + dice.randbytes(3)
    return flags + rest


def joined(data: Sequence[bytes], dice: random.Random) -> bytes:
    """A piece of one, and behind it one of another."""
    one, other = dice.choice(data), dice.choice(data)
    return one[: dice.randrange(len(one) + 1)] + other[dice.randrange(len(other) + 1) :]
