"""What a file is, judged by its first bytes: one of the three forms of a capture, or something else.

The forms are raw bytes; hex text, in which white space and `#` comments are ignored; and time-stamped hex, with one
line for each chunk as it came: `2026-11-22T17:00:10.123Z 7EA0E2…`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from exporter.model.reading import LATEST
from exporter.protocol.framing import Message, open_framer
from exporter.sources.contract import SourceError

__all__ = [
    "NO_BYTES",
    "Form",
    "LineError",
    "NotACapture",
    "identify",
    "name_content",
    "parse_hex",
    "shorten",
    "split_stamp",
]


class Form(Enum):
    """A form of capture; the value is its name for a person."""

    RAW = "raw bytes"
    HEX = "hex text"
    STAMPED = "time-stamped hex"


class NotACapture(SourceError):  # noqa: N818 (it is also an answer of `identify`)
    """The file is not a capture; `what` says what it is ("a PNG picture")."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class LineError(ValueError):
    """A line of a text capture that cannot be read; the message says why."""


_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF-", "a PDF document"),
    (b"\x1f\x8b\x08", "a gzip file; unpack it first (gunzip)"),
    (b"BZh", "a bzip2 file; unpack it first (bunzip2)"),
    (b"\xfd7zXZ\x00", "an xz file; unpack it first (unxz)"),
    (b"\x28\xb5\x2f\xfd", "a zstd file; unpack it first (unzstd)"),
    (b"PK\x03\x04", "a ZIP file (or an office document); unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip file; unpack it first"),
    (b"\x7fELF", "a program (ELF)"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\xd4\xc3\xb2\xa1", "a network capture (pcap)"),
    (b"\xa1\xb2\xc3\xd4", "a network capture (pcap)"),
    (b"\n\r\r\n", "a network capture (pcapng)"),
    (b"RIFF", "a sound or picture file (RIFF)"),
)

NO_BYTES: Final = "text without any bytes: only blanks and comments"

_P1: Final = "a P1 telegram (from the port of Dutch, Belgian and Swedish meters, in ASCII; han-exporter reads HDLC)"
_SML: Final = "SML (the format of German meters; han-exporter reads HDLC)"
_MBUS: Final = "M-Bus frames (68 … 16, as some Austrian and Swiss meters send; han-exporter reads HDLC)"
_SML_START: Final = bytes.fromhex("1b1b1b1b01010101")

_P1_FIRST_LINE: Final = re.compile(rb"(?:\A|\n)\s*/[A-Za-z]{3}[0-9]")
_P1_VALUE: Final = re.compile(rb"(?m)^[0-9]-[0-9]{1,2}:[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,3}\([^)\n]*\)")
_JSON: Final = re.compile(rb'\s*(?:\{\s*["}]|\[\s*["{\[\]])')
_HEX_DUMP: Final = re.compile(rb"\s*0{6,16}(?::| {1,2}(?:[0-9A-Fa-f]{2}){1,2} )")  # xxd, hexdump -C, od: address 0
_NO_TEXT: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")

_HEX_OR_BLANK: Final = b"0123456789ABCDEFabcdef \t\r\n"
_DIGITS: Final = re.compile(r"[0-9A-Fa-f]*")
_NO_DIGITS: Final = re.compile(r"[^0-9A-Fa-f]")
_PAIR: Final = re.compile(r"[0-9A-Fa-f]{2}")
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""The time of a computer that does not know the time."""
_SEPARATORS: Final = re.compile(r"[\s,;:\-]+")
_ONE_BYTE: Final = re.compile(r"0[xX][0-9A-Fa-f]{1,2}|[0-9A-Fa-f]{2}")


def identify(head: bytes) -> Form | NotACapture:
    """Say what begins with these bytes. A few hundred are enough; with more the answer is more certain.

    Bytes that are not text and not another known format are RAW. Only a framer can say whether they contain frames.
    """
    if not head:
        return NotACapture("empty")
    if not _is_text(head):
        name = name_content(head)
        return _raw_or_damaged_text(head) if name == Form.RAW.value else NotACapture(name)
    if not head.strip(b"~"):
        return Form.RAW  # only flags, which happen to be ASCII
    if _HEX_DUMP.match(head):
        return NotACapture(name_content(head))
    stamped, plain, other = _count_lines(head)
    if stamped:
        return Form.STAMPED
    # An index, a price list or prose may have a few lines of hex, and a capture a few damaged lines.
    if plain and plain >= other:
        return Form.HEX
    return NotACapture(name_content(head))


def name_content(head: bytes) -> str:
    """The name of it for the owner: "a PNG picture", "a P1 telegram (…)", "text", "raw bytes"."""
    if not head:
        return "empty"
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it first"
    if _is_utf16(head):
        return "text in UTF-16 (Windows); save it as UTF-8"
    if _P1_FIRST_LINE.search(head) or _P1_VALUE.search(head):
        return _P1
    if _SML_START in head:
        return _SML
    if len(head) > 3 and head[0] == head[3] == 0x68 and head[1] == head[2]:
        return _MBUS
    return _name_text(head) if _is_text(head) else Form.RAW.value


def parse_hex(text: str) -> bytes:
    """The bytes of a line of hex: `7EA0E2`, `7e a0 e2`, `0x7E, 0xA0`, `7E:A0:E2`; `#` begins a comment.

    Separators other than blanks are allowed only between single bytes: in `0000: 7EA0`, 0000 is an address. Raises
    LineError.
    """
    try:
        return bytes.fromhex(text)  # nearly every line
    except ValueError:
        digits = "".join(text.partition("#")[0].split())
    if _DIGITS.fullmatch(digits):
        if len(digits) % 2:
            raise LineError(f"an odd number of hex digits ({len(digits)})")
        return bytes.fromhex(digits)
    tokens = [token for token in _SEPARATORS.split(text.partition("#")[0].strip()) if token]
    if not all(_ONE_BYTE.fullmatch(token) for token in tokens):
        raise LineError(f"not hex: {shorten(text)}")
    return bytes(int(token, 16) for token in tokens)


def readable_hex(text: str) -> bytes:
    """What can still be read of a line of hex that holds many frames, when some characters are wrong or one is missing.

    The line is read byte by byte from its start, without the bytes that are no hex. The frame that was damaged fails
    its check sum then, the others do not. Empty where that gives no whole message, or less than nine tenths are hex.
    """
    digits = "".join(text.partition("#")[0].split())
    if len(_NO_DIGITS.sub("", digits)) < 0.9 * len(digits):
        return b""
    pairs = (digits[i : i + 2] for i in range(0, len(digits) - 1, 2))
    readable = bytes(int(pair, 16) for pair in pairs if _PAIR.fullmatch(pair))
    return readable if any(isinstance(found, Message) for found in open_framer().feed(readable)) else b""


def split_stamp(text: str) -> tuple[datetime, str] | None:
    """The time stamp of a line in UTC and the text after it; None if the line does not begin with one.

    Raises LineError for a stamp that is cut, impossible, of a time that no reading has, or without a time zone.
    """
    stamp, _, rest = text.strip().partition(" ")
    if not (stamp[:4].isdigit() and stamp[4:5] == "-"):
        return None
    try:
        when = datetime.fromisoformat(stamp)
        if when.tzinfo is None:
            raise LineError(f"a time stamp without a time zone: {shorten(stamp)} (write 2026-11-22T17:00:10.123Z)")
        when = when.astimezone(UTC)
        if not _EARLIEST <= when < LATEST:
            raise LineError(f"a time stamp that no reading has: {shorten(stamp)}")
        return when, rest
    except LineError:
        raise
    except (ValueError, OverflowError):
        raise LineError(f"not a time stamp: {shorten(stamp)} (write 2026-11-22T17:00:10.123Z)") from None


def _raw_or_damaged_text(head: bytes) -> Form:
    """A text capture may have a few bytes that are not text: a power cut leaves NULs, a worn card anything."""
    stamped, plain, _ = _count_lines(head)
    if stamped:
        return Form.STAMPED
    # About a third of the raw bytes of a meter are hex digits or blanks by chance, but they never are a whole line.
    digits = len(head) - len(head.translate(None, _HEX_OR_BLANK))
    return Form.HEX if plain and digits > 0.8 * len(head) else Form.RAW


def _count_lines(head: bytes) -> tuple[int, int, int]:
    """How many lines are time-stamped hex, plain hex, and neither; blank lines and comments are not counted."""
    counts = {Form.STAMPED: 0, Form.HEX: 0, None: 0}
    for line in head.decode("utf-8", "replace").split("\n"):
        if line.partition("#")[0].strip():
            counts[_line_form(line.lstrip("\ufeff"))] += 1
    return counts[Form.STAMPED], counts[Form.HEX], counts[None]


def _line_form(line: str) -> Form | None:
    try:
        stamped = split_stamp(line)
    except LineError:
        return None
    rest = line if stamped is None else stamped[1]
    # An odd number of digits means damage, or the end of `head`; the line is still hex.
    if not _DIGITS.fullmatch("".join(rest.partition("#")[0].split())):
        try:
            parse_hex(rest)
        except LineError:
            if not readable_hex(rest):
                return None
    if stamped is None:
        return Form.HEX
    return Form.STAMPED if rest.strip() else None


def _is_text(head: bytes) -> bool:
    if _NO_TEXT.search(head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 and error.reason == "unexpected end of data"
    return True


def _is_utf16(head: bytes) -> bool:
    low, high = head[2:64:2], head[3:64:2]
    return len(high) > 1 and (
        (head.startswith(b"\xff\xfe") and not any(high)) or (head.startswith(b"\xfe\xff") and not any(low))
    )


def _name_text(head: bytes) -> str:
    if _JSON.match(head):
        return "JSON"
    start = head[:256].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML)"
    if start.startswith(b"<?xml"):
        return "XML"
    if _HEX_DUMP.match(head):
        return "a hex dump with addresses; leave them out (xxd -p, od -An -v -tx1)"
    lines = head.decode("utf-8-sig", "replace").splitlines()
    first = next((line for line in lines if line.partition("#")[0].strip()), None)
    if first is None:
        return NO_BYTES
    return f"text that is not hex: {shorten(first.strip())}"


def shorten(text: str) -> str:
    """Text for a message: quoted, so that no control character reaches a terminal, and cut if it is long."""
    return repr(text if len(text) <= 40 else text[:40] + "…")
