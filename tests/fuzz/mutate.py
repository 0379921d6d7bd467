"""Mutations of bytes, of frames (with lengths and check sums repaired), and of text."""

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
"""Tags of values that are not lists, and their bytes. -1 and -8: a length is before them, in bytes or in bits."""


def any_bytes(data: bytes, chance: random.Random) -> bytes:
    """One to four changes of any bytes."""
    content = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4])):
        at = chance.randrange(len(content) + 1)
        match chance.randrange(7):
            case 0 if content:
                content[at % len(content)] = chance.choice(_INTERESTING)
            case 1 if content:
                content[at % len(content)] ^= 1 << chance.randrange(8)
            case 2:
                del content[at : at + chance.choice([1, 2, 8, 64])]
            case 3:
                content[at:at] = chance.randbytes(chance.choice([1, 2, 8, 20]))
            case 4:
                end = at + chance.choice([1, 9, 13, 60, 300])
                content[at:at] = content[at:end] * chance.choice([1, 1, 2, 10])
            case 5:
                other = chance.randrange(len(content) + 1)
                length = chance.choice([1, 4, 20, 100])
                content[at : at + length] = content[other : other + length]
            case _:
                content[at:at] = chance.choice(_CODES)
    return bytes(content)


def framed(data: bytes, chance: random.Random) -> bytes:
    """A changed stream. In most cases its check sums are repaired, so that the content of its frames is decoded."""
    if chance.random() < 0.15:
        data += frame(notification(value(chance)))
    match chance.randrange(10):
        case 0:
            return any_bytes(data, chance)
        case 1:  # headers with a right check sum, of frames that are not complete
            length = chance.choice([9, 20, 300, 0x7FF])
            head = bytes([0xA0 | length >> 8, length & 0xFF, 3, 3, 0x13])
            at = chance.randrange(len(data) + 1)
            starts = (b"\x7e" + head + crc(head).to_bytes(2, "little")) * chance.choice([1, 2, 300])
            return data[:at] + starts + data[at:]
        case _:
            return repaired(any_bytes(data, chance))


def repaired(stream: bytes) -> bytes:
    """The stream with the right length and check sums in every frame."""
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


def value(chance: random.Random, depth: int = 0) -> bytes:
    """An A-XDR value of any type."""
    if depth < 3 and chance.random() < 0.5:
        count = chance.choice([0, 1, 2, 3, 4, 9, 13, 14, 18])
        return bytes([chance.choice([1, 2]), count]) + b"".join(value(chance, depth + 1) for _ in range(count))
    if chance.random() < 0.3:
        return chance.choice(_CODES)
    tag, size = chance.choice(_SIMPLE)
    if size >= 0:
        return bytes([tag]) + chance.choice([chance.randbytes(size), b"\xff" * size, bytes(size), b"\x7f" * size])
    length = chance.choice([0, 1, 6, 12, 16, 18])
    return bytes([tag, length * (8 if size == -8 else 1)]) + chance.choice(
        [chance.randbytes(length), b"5706567100012345AB"[:length], b"Kamstrup_V0001, =\n"[:length], b"KFM_001"[:length]]
    ).ljust(length, b"\\")


def text(data: bytes, chance: random.Random) -> bytes:
    """Text with changed words or bytes."""
    if chance.random() < 0.4:
        return any_bytes(data, chance)
    at = chance.randrange(len(data) + 1)
    match chance.randrange(4):
        case 0:
            return data[:at] + chance.choice(_WORDS) + data[at:]
        case 1:
            lines = data.split(b"\n")
            lines.insert(chance.randrange(len(lines) + 1), chance.choice(lines))
            return b"\n".join(lines)
        case 2:
            lines = data.split(b"\n")
            del lines[chance.randrange(len(lines))]
            return b"\n".join(lines)
        case _:
            end = at + chance.choice([1, 2, 5, 30])
            return data[:at] + chance.choice(_WORDS) + data[end:]


def capture(data: bytes, chance: random.Random) -> bytes:
    """A changed capture in one of the forms, or its changed bytes in another form."""
    if chance.random() < 0.7:
        return text(data, chance)
    stream = framed(data[:600], chance)
    if chance.random() < 0.3:
        return stream
    lines = [stream[at : at + 50].hex() for at in range(0, len(stream), 50)]
    if chance.random() < 0.5:
        return "\n".join(lines).encode()
    year = chance.choice(["2026-10-25", "0001-01-01", "9999-12-31", "2026-03-29", "1969-12-31"])
    return "".join(f"{year}T{n % 24:02}:00:10.5Z {line}\n" for n, line in enumerate(lines)).encode()


def damage(data: bytes, chance: random.Random) -> bytes:
    """A list of damages (outbox.py) with one more, one less, or one changed."""
    flags, rest = data[:1] or b"\0", bytearray(data[1:])
    match chance.randrange(5):
        case 0:
            return bytes([chance.randrange(8)]) + rest
        case 1:
            at = chance.randrange(len(rest) // 9 + 1) * 9
            del rest[at : at + 9]
        case 2 if rest:
            rest[chance.randrange(len(rest))] = chance.randrange(256)
        case _:
            for _ in range(chance.choice([1, 1, 2, 5, 20])):
                offset = chance.choice([chance.randrange(120), chance.randrange(4096), 4096 - chance.randrange(1, 400)])
                rest += bytes([chance.choice([0, 0, 0, 1, 1, 2, 3, 4, 5]), chance.choice([0, 1, 0x81])])
                rest += chance.randrange(64).to_bytes(2, "big") + offset.to_bytes(2, "big") + chance.randbytes(3)
    return flags + rest


def joined(data: Sequence[bytes], chance: random.Random) -> bytes:
    """The start of one, and after it the end of another."""
    one, other = chance.choice(data), chance.choice(data)
    return one[: chance.randrange(len(one) + 1)] + other[chance.randrange(len(other) + 1) :]
