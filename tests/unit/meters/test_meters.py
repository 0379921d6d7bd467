"""Lists made by hand for what the captures do not have: scales, absent objects, other makers, clocks, names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from exporter.meters import interpret, safe_text, to_utc
from exporter.meters.clock import OSLO
from exporter.model.reading import ClockHabit, Reading
from exporter.protocol.apdu import decode
from exporter.protocol.axdr import DecodeError, parse_date_time
from tests.support.octets import array, clock, notification, obis, octet_string, structure, u16, u32, visible

NULL = b"\x00"


def read(value: bytes, date_time: bytes = b"\x00") -> Reading:
    return interpret(decode(notification(value, date_time)))


def values(reading: Reading) -> dict[str, tuple[float, str]]:
    return {str(m.obis): (m.value, m.unit) for m in reading.measurements}


def kamstrup(meter_type: str, *pairs: bytes) -> bytes:
    named = (obis("1-1:0.0.5"), visible("5706567000000000"), obis("1-1:96.1.1"), visible(meter_type))
    return structure(visible("Kamstrup_V0001"), *named, *pairs)


@pytest.mark.parametrize(
    ("meter_type", "energy", "current"),
    [
        ("6841121BN243101040", 123450.0, 16.21),
        ("6851121BN243101040", 123450.0, 1.621),
        ("6841131BN299901092", 12345.0, 16.21),
        ("6841138AN243101090", 12345.0, 16.21),
        ("6851131BN299901092", 12345.0, 1.621),
    ],
)
def test_kamstrup_scales_by_type(meter_type: str, energy: float, current: float) -> None:
    measured = values(read(kamstrup(meter_type, obis("1-1:1.8.0"), u32(12345), obis("1-1:31.7.0"), u32(1621))))
    assert measured == {"1-1:1.8.0": (energy, "Wh"), "1-1:31.7.0": (current, "A")}


def test_kamstrup_voltage_in_hundredths_is_recognised_by_its_size() -> None:
    measured = values(read(kamstrup("x", obis("1-1:32.7.0"), u16(23417), obis("1-1:52.7.0"), u16(231))))
    assert measured == {"1-1:32.7.0": (234.17, "V"), "1-1:52.7.0": (231.0, "V")}


def test_kamstrup_null_pairs_are_absent() -> None:
    reading = read(kamstrup("x", obis("1-1:1.7.0"), u32(5), NULL, NULL, NULL, NULL, obis("1-1:32.7.0"), u16(231)))
    assert values(reading) == {"1-1:1.7.0": (5.0, "W"), "1-1:32.7.0": (231.0, "V")}


def test_the_scaler_in_the_frame_is_used_rather_than_the_table() -> None:
    scaling = structure(b"\x0f\xfd", b"\x16\x21")
    assert values(read(kamstrup("x", obis("1-1:31.7.0"), u32(1621), scaling))) == {"1-1:31.7.0": (1.621, "A")}


def kaifa(meter_type: str, *rest: bytes) -> bytes:
    return structure(octet_string("KFM_001"), octet_string("6970631400012345"), octet_string(meter_type), *rest)


def test_kaifa_one_phase_lists() -> None:
    powers = (u32(1), u32(2), u32(3), u32(4))
    list2 = values(read(kaifa("MA105H2E", *powers, u32(3296), u32(2394))))
    assert list2 == {
        "1-0:1.7.0": (1.0, "W"),
        "1-0:2.7.0": (2.0, "W"),
        "1-0:3.7.0": (3.0, "var"),
        "1-0:4.7.0": (4.0, "var"),
        "1-0:31.7.0": (3.296, "A"),
        "1-0:32.7.0": (239.4, "V"),
    }
    stamp = octet_string(clock(2021, 7, 1, 14, 0, 10))
    reading = read(kaifa("MA105H2E", *powers, u32(3296), u32(2394), stamp, u32(10), u32(11), u32(12), u32(13)))
    assert values(reading) == list2 | {
        "1-0:1.8.0": (10.0, "Wh"),
        "1-0:2.8.0": (11.0, "Wh"),
        "1-0:3.8.0": (12.0, "varh"),
        "1-0:4.8.0": (13.0, "varh"),
    }
    assert reading.clock == datetime(2021, 7, 1, 12, 0, 10, tzinfo=UTC)  # civil time: summer is UTC+2
    assert reading.list_clock


def kaifa_three(meter_type: str, i2: int, u2: int) -> set[str]:
    reading = read(kaifa(meter_type, *[u32(1)] * 4, u32(1000), u32(i2), u32(1000), u32(2300), u32(u2), u32(2300)))
    return {str(m.obis) for m in reading.measurements}


def test_zero_is_a_value_except_on_a_three_wire_net() -> None:
    assert {"1-0:51.7.0", "1-0:52.7.0"} <= kaifa_three("MA304H4D", 0, 0)
    assert not {"1-0:51.7.0", "1-0:52.7.0"} & kaifa_three("MA304H3E", 0, 0)
    assert "1-0:51.7.0" in kaifa_three("MA304H3E", 865, 0)
    assert {"1-0:51.7.0", "1-0:52.7.0"} <= kaifa_three("MA304H3E", 0, 2300)  # U2 is measured: not a 3-wire net


def test_swedish_kaifa_by_obis_without_scalers() -> None:
    pairs = (
        (obis("1-0:0.2.129"), octet_string("KFM_001")),
        (obis("0-0:96.1.0"), octet_string("6970631400000000")),
        (obis("0-0:96.1.7"), octet_string("MA304H4")),
        (obis("1-0:1.7.0"), u32(2000)),
        (obis("1-0:31.7.0"), u32(3296)),
        (obis("1-0:32.7.0"), u32(2322)),
        (obis("0-0:1.0.0"), octet_string(clock(2023, 7, 1, 12, 0, 10, "ffffc400"))),
        (obis("1-0:1.8.0"), u32(777)),
    )
    reading = read(structure(*[part for pair in pairs for part in pair]))
    assert reading.meter.maker == "Kaifa"
    assert reading.meter.id == "6970631400000000"
    assert reading.list_id == "KFM_001"
    assert values(reading) == {
        "1-0:1.7.0": (2000.0, "W"),
        "1-0:31.7.0": (3.296, "A"),
        "1-0:32.7.0": (232.2, "V"),
        "1-0:1.8.0": (777.0, "Wh"),
    }
    assert reading.clock == datetime(2023, 7, 1, 11, 0, 10, tzinfo=UTC)  # deviation -60, also in summer


def test_swedish_kaifa_with_scalers_and_long_registers() -> None:
    long = b"\x15" + (5_000_000_000).to_bytes(8, "big")
    reading = read(
        structure(
            *(obis("1-0:0.2.129"), octet_string("KFM_001")),
            *(obis("1-0:31.7.0"), u32(3296), b"\x0f\xfe"),
            *(obis("1-0:1.8.0"), long, b"\x0f\x00"),
        )
    )
    assert values(reading) == {"1-0:31.7.0": (32.96, "A"), "1-0:1.8.0": (5e9, "Wh")}


def test_kaifa_list_of_unknown_length() -> None:
    with pytest.raises(DecodeError, match=r"unknown list KFM_001 of 5"):
        read(kaifa("MA304H3E", u32(1), u32(2)))


def test_aidon_current_below_zero() -> None:
    row = structure(obis("1-0:31.7.0"), b"\x10\xff\xcd", structure(b"\x0f\xff", b"\x16\x21"))
    name = structure(obis("1-1:0.2.129"), visible("AIDON_V0001"))
    assert values(read(array(name, row))) == {"1-0:31.7.0": (-5.1, "A")}


@pytest.mark.parametrize("tail", ["ff000000", "ff003c00", "ff800000"])
def test_aidon_clock_is_standard_time_with_any_deviation(tail: str) -> None:
    name = structure(obis("1-1:0.2.129"), visible("AIDON_V0001"))
    reading = read(array(name, structure(obis("0-0:1.0.0"), octet_string(clock(2022, 7, 1, 13, 0, 0, tail)))))
    assert reading.clock == datetime(2022, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("flat", [True, False])
def test_an_unknown_maker_with_obis_codes_is_read(flat: bool) -> None:
    rows = [
        (obis("0-0:96.1.0"), visible("X1")),
        (obis("1-0:1.7.0"), u32(12), structure(b"\x0f\x01", b"\x16\x1b")),
        (obis("1-0:14.7.0"), u16(4998), structure(b"\x0f\xfe", b"\x16\x2c")),
        (obis("1-0:99.7.0"), u16(7)),
    ]
    value = structure(*[part for row in rows for part in row]) if flat else array(*[structure(*row) for row in rows])
    reading = read(value)
    assert reading.meter.maker is None
    assert reading.meter.id == "X1"
    assert values(reading) == {
        "1-0:1.7.0": (120.0, "W"),
        "1-0:14.7.0": (49.98, "Hz"),
        "1-0:99.7.0": (7.0, ""),
    }


def test_attribute_descriptors_are_not_values() -> None:
    descriptor = structure(u16(3), octet_string(bytes([1, 0, 1, 7, 0, 255])), b"\x0f\x02", u16(0))
    with pytest.raises(DecodeError, match="unknown list"):
        read(structure(array(descriptor, descriptor), u32(5)))


@pytest.mark.parametrize("value", [structure(visible("ISK1030"), u32(1), u32(2)), u32(5), structure(), NULL])
def test_unknown_lists_raise(value: bytes) -> None:
    with pytest.raises(DecodeError, match="unknown list"):
        read(value)


def utc(text: str, habit: ClockHabit, near: datetime | None = None, tail: str = "ff800000") -> str | None:
    local = datetime.fromisoformat(text)
    data = clock(local.year, local.month, local.day, local.hour, local.minute, local.second, tail)
    found = to_utc(parse_date_time(data), habit, OSLO, near)
    return None if found is None else found.isoformat().removesuffix("+00:00")


def test_clock_rules() -> None:
    assert utc("2022-07-01T12:00:05", ClockHabit.STANDARD) == "2022-07-01T11:00:05"
    assert utc("2022-01-01T12:00:05", ClockHabit.STANDARD) == "2022-01-01T11:00:05"
    assert utc("2022-07-01T12:00:05", ClockHabit.CIVIL) == "2022-07-01T10:00:05"
    assert utc("2022-01-01T12:00:05", ClockHabit.CIVIL) == "2022-01-01T11:00:05"
    assert utc("2022-07-01T12:00:05", ClockHabit.UTC) == "2022-07-01T12:00:05"
    # standard time has no gap and no hour twice
    assert utc("2022-03-27T02:30:00", ClockHabit.STANDARD) == "2022-03-27T01:30:00"
    assert utc("2022-10-30T02:30:00", ClockHabit.STANDARD) == "2022-10-30T01:30:00"


def test_the_hour_that_comes_twice() -> None:
    first, second = datetime(2022, 10, 30, 0, 30, tzinfo=UTC), datetime(2022, 10, 30, 1, 30, tzinfo=UTC)
    assert utc("2022-10-30T02:30:00", ClockHabit.CIVIL) == "2022-10-30T00:30:00"
    assert utc("2022-10-30T02:30:00", ClockHabit.CIVIL, first) == "2022-10-30T00:30:00"
    assert utc("2022-10-30T02:30:00", ClockHabit.CIVIL, second) == "2022-10-30T01:30:00"
    assert utc("2022-10-30T03:30:00", ClockHabit.CIVIL, second - timedelta(hours=9)) == "2022-10-30T02:30:00"


@pytest.mark.parametrize("data", ["ffffffffffffffffff800000", "07e60d01ff0c0000ff800000", "07e60101ffff0000ff800000"])
def test_an_impossible_date_gives_no_clock(data: str) -> None:
    assert to_utc(parse_date_time(bytes.fromhex(data)), ClockHabit.CIVIL) is None


def test_the_edge_of_the_calendar() -> None:
    assert to_utc(parse_date_time(clock(1, 1, 1, 0, 0, 0)), ClockHabit.STANDARD) is None
    assert to_utc(parse_date_time(clock(9999, 12, 31, 23, 59, 59, "fffda000")), ClockHabit.UTC) is not None


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"6970631400012345", "6970631400012345"),
        (b"10012345\x00\x00\x00\x00", "10012345"),
        (b"id  ", "id"),
        (b" id", " id"),
        (b"\x00\x00", None),
        (b"", None),
        (b"   ", None),
        (b'a,b c="d"', 'a,b c="d"'),
        (b"a\nb\rc\td", "a%0Ab%0Dc%09d"),
        (b"a\\b%c", "a%5Cb%25c"),
        (b"\xff\xfe1", "%FF%FE1"),
        (b"m\xc3\xa5ler", "måler"),
        (b"a\xc2\x85b", "a%C2%85b"),
        (b"a\xe2\x80\xa8b", "a%E2%80%A8b"),  # LINE SEPARATOR
        (b"\xe2\x80\xaeevil", "%E2%80%AEevil"),  # RIGHT-TO-LEFT OVERRIDE
    ],
)
def test_names_are_made_safe(data: bytes, text: str | None) -> None:
    assert safe_text(data) == text


def test_long_names_are_cut_and_stay_different() -> None:
    one, two = safe_text(b"1" * 300), safe_text(b"1" * 299 + b"2")
    assert one is not None
    assert two is not None
    assert one != two
    assert one.startswith("1" * 128)
    assert len(one) < 150
    assert safe_text(b"1" * 128) == "1" * 128
