"""Bytes -> typed values: A-XDR (IEC 61334-6) with the data types of IEC 62056-62.

A value that is cut or nested too deep raises DecodeError; nothing else is ever raised.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NoReturn, TypeAlias

from exporter.counted import counted
from exporter.model.reading import MeterClock

MAX_DEPTH: Final = 8
"""The lists of real meters are nested 3 deep."""

DATE_TIME_SIZE: Final = 12


class DecodeError(ValueError):
    """A frame whose check sums are right, but that cannot be read.

    `offset` is the byte of the information field where reading stopped; `str()` says what was expected there, or
    what kind of frame it is.
    """

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(message)
        self.offset = offset


class Tag(IntEnum):
    """A-XDR type tags (IEC 62056-62, data types; docs/protocol.md lists those that meters have been seen to send)."""

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
    """One A-XDR value. Strings, bit strings (filled up to whole bytes), date and time have bytes as `content`."""

    tag: Tag
    content: Content


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes of an information field from `start` up to `end`, which is not included."""

    start: int
    end: int


def parse_date_time(data: bytes) -> MeterClock:
    """Read the 12 bytes of a COSEM date-time. Raises ValueError for any other length."""
    if len(data) != DATE_TIME_SIZE:
        raise ValueError(f"a date-time has 12 bytes, not {len(data)}")
    year, month, day, weekday, hour, minute, second, hundredths, deviation, status = _DATE_TIME.unpack(data)
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


def _specified(byte: int) -> int | None:
    return None if byte == 0xFF else byte


class Reader:
    """A cursor over the information field. Every byte is read through `take`, so none is read past the end."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self.data) - self.at

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        """Raise DecodeError with this message, for the offset `at` or the current one."""
        raise DecodeError(self.at if at is None else at, message)

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes; `what` names them in error messages."""
        if count > self.left:
            self.fail(f"expected {what} ({counted(count, 'byte')}) at byte {self.at}, found {self.left} left")
        start = self.at
        self.at += count
        return self.data[start : self.at]

    def byte(self, what: str) -> int:
        """The next byte."""
        return self.take(1, what)[0]

    def unsigned(self, count: int, what: str) -> int:
        """The next `count` bytes as a number, most significant first."""
        return int.from_bytes(self.take(count, what), "big")

    def length(self, what: str) -> int:
        """A length: one byte below 0x80, or 0x80 + the number of bytes that follow with the length."""
        first = self.byte(f"the length of {what}")
        if first < 0x80:
            return first
        count = first & 0x7F
        if not 1 <= count <= 4:
            self.fail(f"expected the length of {what} at byte {self.at - 1}, found {first:02X}", self.at - 1)
        return self.unsigned(count, f"the length of {what}")

    def value(self, depth: int) -> Value:
        """The next value with all that it contains; `depth` is the number of lists around it."""
        at = self.at
        found = self.byte("a value")
        tag = _TAGS.get(found)
        if tag is None:
            self.fail(f"expected a value's tag at byte {at}, found {found:02X}", at)
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
            self.fail(f"a list nested more than {MAX_DEPTH} deep at byte {at}")
        count = self.length(f"the {tag.name.lower()}")
        if count > self.left:  # each element has at least one byte
            self.fail(f"expected {counted(count, 'element')} at byte {at}, found {counted(self.left, 'byte')} left", at)
        return tuple([self.value(depth + 1) for _ in range(count)])

    def string(self) -> bytes:
        """A string, after its tag."""
        return self.take(self.length("a string"), "a string")

    def bits(self) -> bytes:
        """A bit-string, after its tag, as bytes."""
        return self.take((self.length("a bit-string") + 7) // 8, "a bit-string")


class SpanReader(Reader):
    """A Reader that also remembers where each value is; arrays and structures are left out."""

    __slots__ = ("found",)

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.found: list[tuple[Value, Span]] = []

    def value(self, depth: int) -> Value:
        """The next value with all that it contains; `depth` is the number of lists around it."""
        start = self.at + 1
        value = super().value(depth)
        if not isinstance(value.content, tuple):
            # A string has its length between its tag and its bytes; any other value begins after its tag.
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
_OTHERS: Final[dict[Tag, Callable[[Reader], Content]]] = {
    Tag.NULL: lambda _reader: None,
    Tag.BIT_STRING: Reader.bits,
    Tag.OCTET_STRING: Reader.string,
    Tag.VISIBLE_STRING: Reader.string,
    Tag.UTF8_STRING: Reader.string,
    Tag.DATE_TIME: lambda reader: parse_date_time(reader.take(DATE_TIME_SIZE, "a date-time")),
    Tag.DATE: lambda reader: reader.take(5, "a date"),
    Tag.TIME: lambda reader: reader.take(4, "a time"),
}
