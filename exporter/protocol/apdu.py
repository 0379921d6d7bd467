"""Information field of a frame -> Data-Notification with typed values.

LLC header and APDU are those of IEC 62056-46 and -53, as the makers' interface descriptions use them; axdr.py reads the
values. Only complete notifications are returned: anything cut, nested too deep or left over raises DecodeError, and
nothing else is ever raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from exporter.model.reading import MeterClock
from exporter.protocol.axdr import DATE_TIME_SIZE, Reader, Span, SpanReader, Tag, Value, parse_date_time

LLC: Final = b"\xe6\xe7\x00"
DATA_NOTIFICATION: Final = 0x0F

_BLOCK_TRANSFER: Final = 0xE0
# APDUs that a meter may send and that are not read: tag -> message.
_OTHER_APDUS: Final = {
    0xDB: "encrypted; not supported yet",  # general-glo-ciphering
    0xDC: "encrypted; not supported yet",  # general-ded-ciphering
    0xDD: "encrypted; not supported yet",  # general-ciphering
    0xDF: "signed (general-signing); not supported yet",
    _BLOCK_TRANSFER: "sent in blocks (General-Block-Transfer); not supported yet",
    0xC2: "an event notification; not supported yet",
}


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
    return _notification(Reader(information))[0]


@dataclass(frozen=True, slots=True)
class Spans:
    """Where the values of a notification are: their contents, without tag and length, in the order of the bytes.

    `date_time` is that of the header. `of` looks for the very object that it is given, not for an equal one.
    """

    notification: Notification
    date_time: Span | None
    _found: tuple[tuple[Value, Span], ...]

    def of(self, value: Value) -> Span:
        """The place of a value. Raises LookupError for a value of another notification, an array or a structure."""
        for found, span in self._found:
            if found is value:
                return span
        raise LookupError("no value of this notification")


def decode_with_spans(information: bytes) -> Spans:
    """As `decode`, and also says where each value is. Raises DecodeError."""
    reader = SpanReader(information)
    notification, header_end = _notification(reader)
    date_time = None
    if notification.date_time is not None:
        date_time = Span(header_end - DATE_TIME_SIZE, header_end)
    return Spans(notification, date_time, tuple(reader.found))


def _notification(reader: Reader) -> tuple[Notification, int]:
    """The notification, and the offset after its header's date-time."""
    information = reader.data
    if not information:
        reader.fail("a frame without an information field", 0)
    if information[0] == _BLOCK_TRANSFER:  # the blocks after the first come without LLC
        reader.fail(_OTHER_APDUS[_BLOCK_TRANSFER], 0)
    if information[:3] != LLC:
        reader.fail(f"expected LLC E6 E7 00 at byte 0, found {information[:3].hex(' ').upper()}", 0)
    reader.at = 3
    tag = reader.byte("an APDU tag")
    if tag != DATA_NOTIFICATION:
        reader.fail(_OTHER_APDUS.get(tag, f"expected a Data-Notification (0F) at byte 3, found {tag:02X}"), 3)
    invoke_id = reader.unsigned(4, "long-invoke-id-and-priority")
    date_time = _header_date_time(reader)
    header_end = reader.at
    value = reader.value(0)
    if reader.at != len(information):
        reader.fail(f"expected the end of the list at byte {reader.at}, found {reader.left} more")
    return Notification(invoke_id, date_time, value), header_end


def _header_date_time(reader: Reader) -> MeterClock | None:
    """Length 00; 0C and 12 bytes; or 09 0C and 12 bytes (Kaifa, Kamstrup before document 3.0)."""
    at = reader.at
    length = reader.byte("the header's date-time")
    if length == Tag.OCTET_STRING:
        length = reader.byte("the length of the header's date-time")
    if length == 0:
        return None
    if length != DATE_TIME_SIZE:
        reader.fail(f"expected a date-time of 0 or 12 bytes at byte {at}, found {length}", at)
    return parse_date_time(reader.take(length, "the header's date-time"))
