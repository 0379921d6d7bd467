"""Values -> bytes, the reverse of exporter/protocol: A-XDR, Data-Notification, LLC and HDLC.

The sources are the same: IEC 61334-6 and IEC 62056-62 for the values, IEC 62056-46 for the frame, and the makers'
interface descriptions for what they use of these.
"""

from __future__ import annotations

import struct
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from exporter.model.reading import MeterClock
from exporter.protocol.apdu import DATA_NOTIFICATION, LLC, Notification
from exporter.protocol.axdr import Tag, Value
from exporter.protocol.hdlc import FLAG, crc

__all__ = [
    "Addresses",
    "date_time",
    "encode_value",
    "frame",
    "information",
    "local_clock",
    "number",
    "stamp",
    "standard_time",
    "text",
]

_FORMAT: Final = 0xA000
_MAX_LENGTH: Final = 0x7FF
_UNSPECIFIED: Final = 0xFF
_UNSPECIFIED_DEVIATION: Final = -0x8000
_DATE_TIME: Final = struct.Struct(">HBBBBBBBhB")

_FORMATS: Final = {
    Tag.BOOLEAN: ">?",
    Tag.INT32: ">i",
    Tag.UINT32: ">I",
    Tag.BCD: ">B",
    Tag.INT8: ">b",
    Tag.INT16: ">h",
    Tag.UINT8: ">B",
    Tag.UINT16: ">H",
    Tag.INT64: ">q",
    Tag.UINT64: ">Q",
    Tag.ENUM: ">B",
    Tag.FLOAT32: ">f",
    Tag.FLOAT64: ">d",
}
_STRINGS: Final = frozenset({Tag.OCTET_STRING, Tag.VISIBLE_STRING, Tag.UTF8_STRING})


class Addresses(NamedTuple):
    """What is between length and HCS: destination and source as sent, and the control byte."""

    destination: bytes
    source: bytes
    control: int


def text(tag: Tag, data: bytes) -> Value:
    """A string of the kind `tag`."""
    return Value(tag, data)


def number(tag: Tag, value: float, per_unit: float = 1) -> Value:
    """An integer of the kind `tag`: `value` in steps of 1/`per_unit`, rounded to the nearest."""
    return Value(tag, round(value * per_unit))


def stamp(clock: MeterClock) -> Value:
    """The clock of a list: an octet-string of 12 bytes."""
    return Value(Tag.OCTET_STRING, date_time(clock))


def standard_time(moment: datetime, zone: ZoneInfo) -> datetime:
    """The local time without daylight saving, as a naive datetime."""
    local = moment.astimezone(zone)
    return local.replace(tzinfo=None) - (local.dst() or timedelta())


def local_clock(local: datetime, *, deviation: int | None, sunday: int = 7) -> MeterClock:
    """A local time as a meter's clock. `sunday` is the number that the meter sends for that day: 7, or 0 (Aidon)."""
    weekday = local.isoweekday()
    return MeterClock(
        year=local.year,
        month=local.month,
        day=local.day,
        weekday=sunday if weekday == 7 else weekday,
        hour=local.hour,
        minute=local.minute,
        second=local.second,
        hundredths=None,
        deviation=deviation,
        status=0,
    )


def date_time(clock: MeterClock) -> bytes:
    """The 12 bytes of a COSEM date-time. Raises ValueError if a field does not fit."""
    fields = (clock.month, clock.day, clock.weekday, clock.hour, clock.minute, clock.second, clock.hundredths)
    try:
        return _DATE_TIME.pack(
            0xFFFF if clock.year is None else clock.year,
            *(_UNSPECIFIED if field is None else field for field in fields),
            _UNSPECIFIED_DEVIATION if clock.deviation is None else clock.deviation,
            _UNSPECIFIED if clock.status is None else clock.status,
        )
    except struct.error as error:
        raise ValueError(f"{clock} cannot be sent: {error}") from None


def encode_value(value: Value) -> bytes:
    """The bytes of one A-XDR value, tag first.

    Raises ValueError if the content does not fit the tag, for example a number that is too large, or a string in place
    of a number.
    """
    tag, content = value.tag, value.content
    try:
        return bytes((tag,)) + _content(tag, content)
    except (struct.error, TypeError) as error:
        raise ValueError(f"{content!r} cannot be sent as {tag.name}: {error}") from None


def _content(tag: Tag, content: object) -> bytes:
    if tag in _FORMATS:
        return struct.pack(_FORMATS[tag], content)
    if tag is Tag.NULL and content is None:
        return b""
    if isinstance(content, tuple) and tag in (Tag.ARRAY, Tag.STRUCTURE):
        return _length(len(content)) + b"".join(encode_value(element) for element in content)
    if isinstance(content, MeterClock) and tag is Tag.DATE_TIME:
        return date_time(content)
    if not isinstance(content, bytes):
        raise TypeError(f"not the content of a {tag.name}")
    if tag in _STRINGS:
        return _length(len(content)) + content
    if tag is Tag.BIT_STRING:
        return _length(8 * len(content)) + content
    size = {Tag.DATE: 5, Tag.TIME: 4}.get(tag)
    if size != len(content):
        raise TypeError(f"not the content of a {tag.name}")
    return content


def _length(count: int) -> bytes:
    if count < 0x80:
        return bytes((count,))
    data = count.to_bytes((count.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(data),)) + data


def information(notification: Notification, *, tagged_clock: bool = False) -> bytes:
    """The information field: LLC and Data-Notification.

    With `tagged_clock` the date-time of the header is 09 0C and 12 bytes, as Kaifa and Kamstrup before document 3.0
    send it, instead of 0C and 12 bytes. Raises ValueError if something does not fit.
    """
    clock = b"\x00"
    if notification.date_time is not None:
        clock = (b"\x09\x0c" if tagged_clock else b"\x0c") + date_time(notification.date_time)
    invoke_id = notification.invoke_id.to_bytes(4, "big")
    return LLC + bytes((DATA_NOTIFICATION,)) + invoke_id + clock + encode_value(notification.value)


def frame(addresses: Addresses, information: bytes) -> bytes:
    """An HDLC frame of format type 3 with this information field and both flags.

    Raises ValueError if it is longer than a frame can be.
    """
    header = addresses.destination + addresses.source + bytes((addresses.control,))
    length = 2 + len(header) + 2 + len(information) + 2
    if length > _MAX_LENGTH:
        raise ValueError(f"a frame has at most {_MAX_LENGTH} bytes between its flags, not {length}")
    header = (_FORMAT | length).to_bytes(2, "big") + header
    body = header + crc(header).to_bytes(2, "little") + information
    flag = bytes((FLAG,))
    return flag + body + crc(body).to_bytes(2, "little") + flag
