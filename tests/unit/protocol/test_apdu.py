"""Notifications made by hand: each A-XDR type, each form of the header, and what is wrong with the others."""

from __future__ import annotations

import struct

import pytest

from exporter.model.reading import MeterClock
from exporter.protocol.apdu import decode
from exporter.protocol.axdr import DecodeError, Tag, Value, parse_date_time
from tests.support.octets import clock, notification


def value(data: bytes) -> Value:
    return decode(notification(data)).value


@pytest.mark.parametrize(
    ("data", "tag", "content"),
    [
        (b"\x00", Tag.NULL, None),
        (b"\x03\x01", Tag.BOOLEAN, True),
        (b"\x04\x09\xff\x80", Tag.BIT_STRING, b"\xff\x80"),
        (b"\x05\xff\xff\xff\xfe", Tag.INT32, -2),
        (b"\x06\xff\xff\xff\xfe", Tag.UINT32, 4294967294),
        (b"\x09\x03abc", Tag.OCTET_STRING, b"abc"),
        (b"\x0a\x03abc", Tag.VISIBLE_STRING, b"abc"),
        (b"\x0c\x02\xc3\xa6", Tag.UTF8_STRING, "æ".encode()),
        (b"\x0d\x42", Tag.BCD, 0x42),
        (b"\x0f\xff", Tag.INT8, -1),
        (b"\x10\xff\xcd", Tag.INT16, -51),
        (b"\x11\xff", Tag.UINT8, 255),
        (b"\x12\x09\x04", Tag.UINT16, 2308),
        (b"\x14" + b"\xff" * 8, Tag.INT64, -1),
        (b"\x15" + b"\xff" * 8, Tag.UINT64, 2**64 - 1),
        (b"\x16\x1b", Tag.ENUM, 27),
        (b"\x17" + struct.pack(">f", 1.5), Tag.FLOAT32, 1.5),
        (b"\x18" + struct.pack(">d", -2.25), Tag.FLOAT64, -2.25),
        (b"\x1a\x07\xe3\x01\x1f\x04", Tag.DATE, b"\x07\xe3\x01\x1f\x04"),
        (b"\x1b\x0d\x24\x0a\xff", Tag.TIME, b"\x0d\x24\x0a\xff"),
    ],
)
def test_each_type(data: bytes, tag: Tag, content: object) -> None:
    assert value(data) == Value(tag, content)  # type: ignore[arg-type]


def test_date_time_type() -> None:
    assert value(b"\x19" + clock(2019, 1, 31, 13, 36, 10)).content == MeterClock(
        2019, 1, 31, None, 13, 36, 10, None, None, 0
    )


def test_containers_and_long_lengths() -> None:
    assert value(b"\x02\x02\x00\x11\x05").content == (Value(Tag.NULL, None), Value(Tag.UINT8, 5))
    assert value(b"\x01\x00").content == ()
    assert value(b"\x09\x81\x80" + bytes(128)).content == bytes(128)
    assert value(b"\x09\x82\x01\x00" + bytes(256)).content == bytes(256)
    assert value(b"\x01\x81\x01\x00").content == (Value(Tag.NULL, None),)


@pytest.mark.parametrize("form", [b"\x0c", b"\x09\x0c"])
def test_header_date_time(form: bytes) -> None:
    decoded = decode(notification(b"\x00", form + clock(2021, 7, 1, 12, 0, 5, "ff ffc4 80")))
    assert decoded.date_time == MeterClock(2021, 7, 1, None, 12, 0, 5, None, -60, 0x80)
    assert decoded.invoke_id == 0x40000000


@pytest.mark.parametrize("form", [b"\x00", b"\x09\x00"])
def test_header_without_date_time(form: bytes) -> None:
    assert decode(notification(b"\x00", form)).date_time is None


def test_unspecified_fields() -> None:
    assert parse_date_time(bytes.fromhex("ffffffffffffffffff8000ff")) == MeterClock(*[None] * 10)


@pytest.mark.parametrize(
    ("information", "offset", "part"),
    [
        (b"", 0, "without an information field"),
        (b"\x01\x02\x03\x04", 0, "01 02 03"),
        (b"\xe6\xe7\x00", 3, "APDU tag"),
        (b"\xe6\xe7\x00\xdb\x08", 3, "encrypted"),
        (b"\xe6\xe7\x00\xdd\x08", 3, "encrypted"),
        (b"\xe6\xe7\x00\xe0\x08", 3, "blocks"),
        (b"\xe0\x40\x00\x02", 0, "blocks"),
        (b"\xe6\xe7\x00\x10\x08", 3, "found 10"),
        (notification(b"\x00\x00"), 10, "found 1 more"),
        (notification(b"\x06\x00\x00"), 10, "UINT32 (4 bytes) at byte 10, found 2"),
        (notification(b"\x07\x00"), 9, "found 07"),
        (notification(b"\x02\x05\x00"), 10, "5 elements"),
        (notification(b"\x09\x85\x01"), 10, "found 85"),
        (notification(b"", b"\x0b" + bytes(11)), 8, "0 or 12 bytes at byte 8, found 11"),
    ],
)
def test_what_is_wrong_and_where(information: bytes, offset: int, part: str) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(information)
    assert part in str(caught.value)
    assert caught.value.offset == offset


def test_encrypted_comes_first_in_the_message() -> None:
    with pytest.raises(DecodeError, match=r"^encrypted"):
        decode(b"\xe6\xe7\x00\xdb\x08KAMEABCD")
