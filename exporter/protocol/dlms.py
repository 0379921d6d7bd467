"""Information field of a frame -> Data-Notification with typed values.

LLC header and APDU as the makers' interface descriptions use IEC 62056-46 and -53; values in A-XDR
(IEC 61334-6) with the data types of IEC 62056-62. Only complete notifications come out: whatever is cut, nested
too deep or left over raises DecodeError, and nothing else is ever raised.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NoReturn, TypeAlias

from exporter.model.reading import MeterClock

LLC: Final = b"\xe6\xe7\x00"
DATA_NOTIFICATION: Final = 0x0F
MAX_DEPTH: Final = 8
"""Real lists nest three deep; a deeper one is not a meter's."""

_DATE_TIME_OCTETS: Final = 12
_BLOCK_TRANSFER: Final = 0xE0
# APDUs a meter may push that are not read: tag -> what to say.
_OTHER_APDUS: Final = {
    0xDB: "encrypted; not supported yet",  # general-glo-ciphering
    0xDC: "encrypted; not supported yet",  # general-ded-ciphering
    0xDD: "encrypted; not supported yet",  # general-ciphering
    0xDF: "signed (general-signing); not supported yet",
    _BLOCK_TRANSFER: "sent in blocks (General-Block-Transfer); not supported yet",
    0xC2: "an event notification; not supported yet",
}


class DecodeError(ValueError):
    """A frame that checks and cannot be read.

    `offset` is the octet of the information field where reading stopped; `str()` says what was expected there, or
    what the frame is.
    """

    def __init__(self, offset: int, words: str) -> None:
        super().__init__(words)
        self.offset = offset


class Tag(IntEnum):
    """A-XDR type tags (IEC 62056-62, data types; domain.md lists those that meters were seen to send)."""

    NULL = 0x00
    ARRAY = 0x01
    STRUCTURE = 0x02
    BOOLEAN = 0x03
    BIT_STRING = 0x04
    INT32 = 0x05
    UINT32 = 0x06
    OCTET_STRING = 0x09
    VISIBLE_STRING = 0x0A
    UTF8_STRING = 0x0C
    BCD = 0x0D
    INT8 = 0x0F
    INT16 = 0x10
    UINT8 = 0x11
    UINT16 = 0x12
    INT64 = 0x14
    UINT64 = 0x15
    ENUM = 0x16
    FLOAT32 = 0x17
    FLOAT64 = 0x18
    DATE_TIME = 0x19
    DATE = 0x1A
    TIME = 0x1B


Content: TypeAlias = "int | float | bool | bytes | MeterClock | tuple[Value, ...] | None"


@dataclass(frozen=True, slots=True)
class Value:
    """One A-XDR value: strings, bit strings (padded to octets), bcd, date and time as octets."""

    tag: Tag
    content: Content


@dataclass(frozen=True, slots=True)
class Notification:
    """A Data-Notification: long-invoke-id-and-priority, the date-time of its header, and the list."""

    invoke_id: int
    date_time: MeterClock | None
    value: Value


def decode(information: bytes) -> Notification:
    """Read the information field of one frame: LLC E6 E7 00, then the APDU.

    Raises DecodeError, and nothing else, when it is not one whole Data-Notification.
    """
    return _notification(_Reader(information))


@dataclass(frozen=True, slots=True)
class Span:
    """Octets `start` to `end` (behind the last) of an information field."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Spans:
    """Where a notification's values stand: their contents, without tag and length, in the order of the octets.

    `date_time` is the header's; `of` finds a value by itself, not by what is in it.
    """

    notification: Notification
    date_time: Span | None
    _found: tuple[tuple[Value, Span], ...]

    def of(self, value: Value) -> Span:
        """Raises LookupError for a value of another notification, and for an array or structure."""
        for found, span in self._found:
            if found is value:
                return span
        raise LookupError("no value of this notification")


def decode_with_spans(information: bytes) -> Spans:
    """As `decode`, and where each value stands. Raises DecodeError."""
    reader = _SpanReader(information)
    notification = _notification(reader)
    date_time = None
    if notification.date_time is not None:
        date_time = Span(reader.header_end - _DATE_TIME_OCTETS, reader.header_end)
    return Spans(notification, date_time, tuple(reader.found))


def _notification(reader: _Reader) -> Notification:
    information = reader.octets
    if not information:
        reader.fail("a frame without an information field", 0)
    if information[0] == _BLOCK_TRANSFER:  # its further blocks come without LLC
        reader.fail(_OTHER_APDUS[_BLOCK_TRANSFER], 0)
    if information[:3] != LLC:
        reader.fail(f"expected LLC E6 E7 00 at octet 0, found {information[:3].hex(' ').upper()}", 0)
    reader.at = 3
    tag = reader.octet("an APDU tag")
    if tag != DATA_NOTIFICATION:
        reader.fail(_OTHER_APDUS.get(tag, f"expected a Data-Notification (0F) at octet 3, found {tag:02X}"), 3)
    invoke_id = reader.unsigned(4, "long-invoke-id-and-priority")
    date_time = reader.header_date_time()
    value = reader.value(0)
    if reader.at != len(information):
        reader.fail(f"expected the end of the list at octet {reader.at}, found {reader.left} more")
    return Notification(invoke_id, date_time, value)


def parse_date_time(octets: bytes) -> MeterClock:
    """Read the 12 octets of a COSEM date-time. Raises ValueError for any other length."""
    if len(octets) != _DATE_TIME_OCTETS:
        raise ValueError(f"a date-time has 12 octets, not {len(octets)}")
    year, month, day, weekday, hour, minute, second, hundredths, deviation, status = _DATE_TIME.unpack(octets)
    return MeterClock(
        None if year == 0xFFFF else year,
        _specified(month),
        _specified(day),
        _specified(weekday),
        _specified(hour),
        _specified(minute),
        _specified(second),
        _specified(hundredths),
        None if deviation == -0x8000 else deviation,
        _specified(status),
    )


_DATE_TIME: Final = struct.Struct(">HBBBBBBBhB")


def _specified(octet: int) -> int | None:
    return None if octet == 0xFF else octet


class _Reader:
    """A cursor over the information field; every octet is taken through `take`, so none is read past the end."""

    __slots__ = ("at", "octets")

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.octets) - self.at

    def fail(self, words: str, at: int | None = None) -> NoReturn:
        raise DecodeError(self.at if at is None else at, words)

    def take(self, count: int, what: str) -> bytes:
        if count > self.left:
            self.fail(f"expected {what} ({count} octets) at octet {self.at}, found {self.left} left")
        start = self.at
        self.at += count
        return self.octets[start : self.at]

    def octet(self, what: str) -> int:
        return self.take(1, what)[0]

    def unsigned(self, count: int, what: str) -> int:
        return int.from_bytes(self.take(count, what), "big")

    def length(self, what: str) -> int:
        first = self.octet(f"the length of {what}")
        if first < 0x80:
            return first
        count = first & 0x7F
        if not 1 <= count <= 4:
            self.fail(f"expected the length of {what} at octet {self.at - 1}, found {first:02X}", self.at - 1)
        return self.unsigned(count, f"the length of {what}")

    def header_date_time(self) -> MeterClock | None:
        """Length 00; 0C and 12 octets; or 09 0C and 12 octets (Kaifa, Kamstrup before document 3.0)."""
        at = self.at
        length = self.octet("the header's date-time")
        if length == Tag.OCTET_STRING:
            length = self.octet("the length of the header's date-time")
        if length == 0:
            return None
        if length != _DATE_TIME_OCTETS:
            self.fail(f"expected a date-time of 0 or 12 octets at octet {at}, found {length}", at)
        return parse_date_time(self.take(length, "the header's date-time"))

    def value(self, depth: int) -> Value:
        at = self.at
        octet = self.octet("a value")
        tag = _TAGS.get(octet)
        if tag is None:
            self.fail(f"expected a value's tag at octet {at}, found {octet:02X}", at)
        if tag in (Tag.ARRAY, Tag.STRUCTURE):
            return Value(tag, self._elements(tag, depth))
        number = _NUMBERS.get(tag)
        if number is not None:
            (content,) = number.unpack(self.take(number.size, tag.name))
            return Value(tag, content)
        return Value(tag, _OTHERS[tag](self))

    def _elements(self, tag: Tag, depth: int) -> tuple[Value, ...]:
        at = self.at
        if depth >= MAX_DEPTH:
            self.fail(f"a list nested more than {MAX_DEPTH} deep at octet {at}")
        count = self.length(f"the {tag.name.lower()}")
        if count > self.left:  # each element has one octet at least
            self.fail(f"expected {count} elements at octet {at}, found {self.left} octets left", at)
        return tuple([self.value(depth + 1) for _ in range(count)])

    def string(self) -> bytes:
        return self.take(self.length("a string"), "a string")

    def bits(self) -> bytes:
        return self.take((self.length("a bit-string") + 7) // 8, "a bit-string")


class _SpanReader(_Reader):
    """Remembers where the values that are no lists stand."""

    __slots__ = ("found", "header_end")

    def __init__(self, octets: bytes) -> None:
        super().__init__(octets)
        self.found: list[tuple[Value, Span]] = []
        self.header_end = 0

    def header_date_time(self) -> MeterClock | None:
        date_time = super().header_date_time()
        self.header_end = self.at
        return date_time

    def value(self, depth: int) -> Value:
        start = self.at + 1
        value = super().value(depth)
        if not isinstance(value.content, tuple):
            # A string's length comes before it; every other form has its octets behind the tag.
            count = len(value.content) if isinstance(value.content, bytes) else self.at - start
            self.found.append((value, Span(self.at - count, self.at)))
        return value


_TAGS: Final = {int(tag): tag for tag in Tag}
_NUMBERS: Final = {
    Tag.BOOLEAN: struct.Struct(">?"),
    Tag.INT32: struct.Struct(">i"),
    Tag.UINT32: struct.Struct(">I"),
    Tag.BCD: struct.Struct(">B"),
    Tag.INT8: struct.Struct(">b"),
    Tag.INT16: struct.Struct(">h"),
    Tag.UINT8: struct.Struct(">B"),
    Tag.UINT16: struct.Struct(">H"),
    Tag.INT64: struct.Struct(">q"),
    Tag.UINT64: struct.Struct(">Q"),
    Tag.ENUM: struct.Struct(">B"),
    Tag.FLOAT32: struct.Struct(">f"),
    Tag.FLOAT64: struct.Struct(">d"),
}
_OTHERS: Final[dict[Tag, Callable[[_Reader], Content]]] = {
    Tag.NULL: lambda _reader: None,
    Tag.BIT_STRING: _Reader.bits,
    Tag.OCTET_STRING: _Reader.string,
    Tag.VISIBLE_STRING: _Reader.string,
    Tag.UTF8_STRING: _Reader.string,
    Tag.DATE_TIME: lambda reader: parse_date_time(reader.take(_DATE_TIME_OCTETS, "a date-time")),
    Tag.DATE: lambda reader: reader.take(5, "a date"),
    Tag.TIME: lambda reader: reader.take(4, "a time"),
}
