"""decode(encode(x)) == x: the lists of every maker, and any notification, with the real deframer and decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.meters import interpret
from exporter.model.obis import ObisCode, describe
from exporter.model.reading import MeterClock, Reading
from exporter.protocol.apdu import Notification, decode
from exporter.protocol.axdr import Tag, Value
from exporter.protocol.hdlc import Deframer, Frame
from exporter.simulator import aidon, kaifa, kamstrup
from exporter.simulator.encoder import Addresses, encode_value, frame, information
from exporter.simulator.sample import Flows, Identity, PerPhase, Sample

UINT16, UINT32 = (1 << 16) - 1, (1 << 32) - 1
POWERS, ENERGIES = ("1.7.0", "2.7.0", "3.7.0", "4.7.0"), ("1.8.0", "2.8.0", "3.8.0", "4.8.0")
CURRENTS, VOLTAGES = ("31.7.0", "51.7.0", "71.7.0"), ("32.7.0", "52.7.0", "72.7.0")


def deframed(wire_bytes: bytes) -> Notification:
    (found,) = Deframer().feed(wire_bytes)
    assert isinstance(found, Frame)
    assert found.size == len(wire_bytes)
    return decode(found.content)


def read(wire_bytes: bytes, zone: ZoneInfo) -> Reading:
    return interpret(deframed(wire_bytes), zone)


def expected(prefix: str, sample: Sample) -> dict[ObisCode, tuple[float, str]]:
    """What a reading of the sample must have: SI values, with the units of the catalogue."""
    named: list[tuple[str, float | None]] = [
        *zip(POWERS, sample.power, strict=True),
        *zip(CURRENTS, sample.currents, strict=True),
        *zip(VOLTAGES, sample.voltages, strict=True),
    ]
    for group_c, flows in zip((20, 40, 60), sample.phase_power or (), strict=False):
        named += [(f"{group_c + n}.7.0", value) for n, value in enumerate(flows, 1)]
    if sample.registers is not None:
        named += zip(ENERGIES, sample.registers, strict=True)
    measured = {}
    for tail, value in named:
        code = ObisCode.parse(f"{prefix}:{tail}")
        quantity = describe(code)
        assert quantity is not None
        if value is not None:
            measured[code] = (value, quantity.unit)
    return measured


def measured(reading: Reading) -> dict[ObisCode, tuple[float, str]]:
    found = {m.obis: (m.value, m.unit) for m in reading.measurements}
    assert len(found) == len(reading.measurements)
    return found


names = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcxyz0123456789-_", min_size=1, max_size=40).map(str.encode)
zones = st.sampled_from(["Europe/Oslo", "Europe/Stockholm", "Europe/Helsinki", "UTC"]).map(ZoneInfo)
moments = st.integers(
    int(datetime(2010, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2090, 1, 1, tzinfo=UTC).timestamp())
).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))


def flows(step: int = 1) -> st.SearchStrategy[Flows]:
    number = st.integers(0, UINT32).map(lambda raw: raw * step)
    return st.builds(Flows, number, number, number, number)


def steps(low: int, high: int, per_unit: int) -> st.SearchStrategy[float]:
    return st.integers(low, high).map(lambda raw: raw / per_unit)


def per_phase(values: st.SearchStrategy[float]) -> st.SearchStrategy[PerPhase]:
    """Three phases, one, or three of which any can be missing."""
    some = st.one_of(st.none(), values)
    return st.one_of(
        st.tuples(values, values, values),
        st.tuples(values, st.none(), st.none()),
        st.tuples(values, st.none(), values),
        st.tuples(some, some, some),
    )


def samples(
    current: st.SearchStrategy[float], voltage: st.SearchStrategy[float], register_step: int
) -> st.SearchStrategy[Sample]:
    return st.builds(Sample, flows(), per_phase(current), per_phase(voltage), st.none(), flows(register_step))


def assert_names(reading: Reading, maker: str, list_id: str, meter: Identity) -> None:
    assert (reading.meter.maker, reading.list_id) == (maker, list_id)
    assert (reading.meter.id, reading.meter.type) == (meter.id.decode(), meter.type.decode())


def without_registers(sample: Sample) -> Sample:
    return Sample(sample.power, sample.currents, sample.voltages)


@pytest.mark.parametrize(
    ("meter_type", "per_ampere", "register_step"),
    [(b"6841121BN243101040", 100, 10), (b"6851121BN243101040", 1000, 10), (b"6841131BN299901092", 100, 1)],
)
@given(data=st.data(), meter_id=names, at=moments, zone=zones, tagged=st.booleans(), nulls=st.booleans())
def test_kamstrup(
    meter_type: bytes,
    per_ampere: int,
    register_step: int,
    data: st.DataObject,
    meter_id: bytes,
    at: datetime,
    zone: ZoneInfo,
    tagged: bool,
    nulls: bool,
) -> None:
    # The decoder reads a voltage above 1000 as hundredths of a volt, which some firmware sends.
    strategy = samples(steps(0, UINT32, per_ampere), steps(0, 1000, 1), register_step)
    sample, meter = data.draw(strategy), Identity(meter_id, meter_type)
    clock = kamstrup.clock(at, zone)
    ten = read(kamstrup.list1(meter, sample, clock, tagged_clock=tagged, nulls=nulls), zone)
    hour = read(kamstrup.hourly(meter, sample, clock, tagged_clock=tagged, nulls=nulls), zone)
    assert measured(ten) == expected("1-1", without_registers(sample))
    assert measured(hour) == expected("1-1", sample)
    assert ten.clock == hour.clock == at
    assert (ten.list_clock, hour.list_clock) == (False, True)
    for reading in (ten, hour):
        assert_names(reading, "Kamstrup", "Kamstrup_V0001", meter)


@pytest.mark.parametrize(("form", "maker"), [(aidon.AIDON, "Aidon"), (aidon.E350, "Landis+Gyr")])
@given(data=st.data(), meter=st.builds(Identity, names, names), at=moments, zone=zones)
def test_aidon(
    form: aidon.Form, maker: str, data: st.DataObject, meter: Identity, at: datetime, zone: ZoneInfo
) -> None:
    # With the E350, U2 = 0 means that it is not measured.
    current = steps(-32768, 32767, 10**form.ampere_decimals)
    sample = data.draw(samples(current, steps(int(form is aidon.E350), UINT16, 10), 10))
    sent = Identity(meter.id.ljust(16, b"\0"), meter.type) if form is aidon.E350 else meter
    ten = read(aidon.list2(sent, sample, form), zone)
    hour = read(aidon.list3(sent, sample, aidon.clock(at, zone), form), zone)
    assert measured(ten) == expected("1-0", without_registers(sample))
    assert measured(hour) == expected("1-0", sample)
    assert ten.clock is None
    assert hour.clock == at.replace(minute=0, second=0)
    assert hour.list_clock
    for reading in (ten, hour):
        assert_names(reading, maker, form.list_id.decode(), meter)


@given(power=flows(), zone=zones)
def test_aidon_list_1(power: Flows, zone: ZoneInfo) -> None:
    reading = read(aidon.list1(Sample(power)), zone)
    assert measured(reading) == {ObisCode(1, 0, 1, 7, 0): (power.active_import, "W")}
    assert (reading.meter.id, reading.clock) == (None, None)


@given(
    sample=st.builds(
        Sample,
        flows(),
        st.tuples(*[steps(-32768, 32767, 10)] * 3),
        st.tuples(*[steps(0, UINT16, 10)] * 3),
        st.tuples(flows(), flows(), flows()),
        flows(),
    ),
    at=moments,
    zone=zones,
)
def test_aidon_swedish(sample: Sample, at: datetime, zone: ZoneInfo) -> None:
    reading = read(aidon.swedish(sample, kamstrup.clock(at, zone)), zone)
    assert measured(reading) == expected("1-0", sample)
    assert (reading.meter.id, reading.clock, reading.list_clock) == (None, at, True)


def twice(at: datetime, zone: ZoneInfo) -> bool:
    """Whether the civil clock shows the local time of this moment twice."""
    return any(
        (at + shift).astimezone(zone).replace(tzinfo=None) == at.astimezone(zone).replace(tzinfo=None)
        for shift in (timedelta(hours=-1), timedelta(hours=1))
    )


def assert_civil(reading: Reading, at: datetime, zone: ZoneInfo) -> None:
    assert reading.clock is not None
    assert reading.clock == at or (twice(at, zone) and abs(reading.clock - at) == timedelta(hours=1))


milliamperes, decivolts = steps(0, UINT32, 1000), steps(0, UINT32, 10)


@pytest.mark.parametrize("phases", [1, 3])
@given(data=st.data(), meter_id=names, at=moments, zone=zones)
@example(data=None, meter_id=b"1", at=datetime(2026, 10, 25, 0, 30, tzinfo=UTC), zone=ZoneInfo("Europe/Oslo"))
@example(data=None, meter_id=b"1", at=datetime(2026, 10, 25, 1, 30, tzinfo=UTC), zone=ZoneInfo("Europe/Oslo"))
def test_kaifa_by_position(
    phases: int, data: st.DataObject | None, meter_id: bytes, at: datetime, zone: ZoneInfo
) -> None:
    sample = Sample(Flows(1, 2, 3, 4), (1.5, 2.5, 3.5), (230.1, 230.2, 230.3), None, Flows(5, 6, 7, 8))
    if data is not None:
        currents, volts = (data.draw(st.tuples(*[s] * 3)) for s in (milliamperes, decivolts))
        sample = Sample(data.draw(flows()), currents, volts, None, data.draw(flows()))
    if phases == 1:
        one = (sample.currents[0], None, None), (sample.voltages[0], None, None)
        sample = Sample(sample.power, *one, None, sample.registers)
    meter = Identity(meter_id, b"MA105H2E" if phases == 1 else b"MA304H4")
    clock = kaifa.clock(at, zone)
    ten = read(kaifa.list2(meter, sample, clock), zone)
    hour = read(kaifa.list3(meter, sample, clock), zone)
    assert measured(ten) == expected("1-0", without_registers(sample))
    assert measured(hour) == expected("1-0", sample)
    assert (ten.list_clock, hour.list_clock) == (False, True)
    for reading in (ten, hour):
        assert_names(reading, "Kaifa", "KFM_001", meter)
        assert_civil(reading, at, zone)


@given(
    current=st.tuples(milliamperes, st.one_of(st.none(), steps(1, UINT32, 1000)), milliamperes),
    voltage=st.tuples(decivolts, st.none(), decivolts),
    power=flows(),
    registers=flows(),
)
def test_kaifa_on_a_three_wire_net(current: PerPhase, voltage: PerPhase, power: Flows, registers: Flows) -> None:
    sample, oslo = Sample(power, current, voltage, None, registers), ZoneInfo("Europe/Oslo")
    meter, clock = Identity(b"1", b"MA304H3E"), kaifa.clock(datetime(2026, 7, 1, tzinfo=UTC), oslo)
    assert measured(read(kaifa.list3(meter, sample, clock), oslo)) == expected("1-0", sample)


@given(power=flows(), at=moments, zone=zones)
def test_kaifa_list_1(power: Flows, at: datetime, zone: ZoneInfo) -> None:
    reading = read(kaifa.list1(Sample(power), kaifa.clock(at, zone)), zone)
    assert measured(reading) == {ObisCode(1, 0, 1, 7, 0): (power.active_import, "W")}
    assert_civil(reading, at, zone)


@given(sample=samples(milliamperes, decivolts, 1), meter_id=names, at=moments, hourly=st.booleans())
def test_kaifa_by_obis(sample: Sample, meter_id: bytes, at: datetime, hourly: bool) -> None:
    zone, meter = ZoneInfo("Europe/Stockholm"), Identity(meter_id, b"MA304H4PSE")
    sample = sample if hourly else without_registers(sample)
    reading = read(kaifa.pairs(meter, sample, kaifa.clock(at, zone)), zone)
    assert measured(reading) == expected("1-0", sample)
    assert reading.list_clock is hourly
    assert_names(reading, "Kaifa", "KFM_001", meter)
    assert_civil(reading, at, zone)


byte = st.one_of(st.none(), st.integers(0, 254))
date_times = st.builds(
    MeterClock,
    st.one_of(st.none(), st.integers(0, 0xFFFE)),
    *[byte] * 7,
    st.one_of(st.none(), st.integers(-32767, 32767)),
    byte,
)
_INTEGERS = {
    Tag.INT8: (-(1 << 7), (1 << 7) - 1),
    Tag.INT16: (-(1 << 15), (1 << 15) - 1),
    Tag.INT32: (-(1 << 31), (1 << 31) - 1),
    Tag.INT64: (-(1 << 63), (1 << 63) - 1),
    Tag.UINT8: (0, (1 << 8) - 1),
    Tag.UINT16: (0, UINT16),
    Tag.UINT32: (0, UINT32),
    Tag.UINT64: (0, (1 << 64) - 1),
    Tag.ENUM: (0, 255),
    Tag.BCD: (0, 255),
}
simple_values = st.one_of(
    st.just(Value(Tag.NULL, None)),
    st.builds(Value, st.just(Tag.BOOLEAN), st.booleans()),
    *[st.builds(Value, st.just(tag), st.integers(*limits)) for tag, limits in _INTEGERS.items()],
    st.builds(Value, st.just(Tag.FLOAT32), st.floats(width=32, allow_nan=False)),
    st.builds(Value, st.just(Tag.FLOAT64), st.floats(allow_nan=False)),
    st.builds(
        Value,
        st.sampled_from([Tag.OCTET_STRING, Tag.VISIBLE_STRING, Tag.UTF8_STRING, Tag.BIT_STRING]),
        st.binary(max_size=300),
    ),
    st.builds(Value, st.just(Tag.DATE), st.binary(min_size=5, max_size=5)),
    st.builds(Value, st.just(Tag.TIME), st.binary(min_size=4, max_size=4)),
    st.builds(Value, st.just(Tag.DATE_TIME), date_times),
)


def _nested(inner: st.SearchStrategy[Value], depth: int) -> st.SearchStrategy[Value]:
    lists = st.lists(inner, max_size=4).map(tuple)
    outer = st.one_of(inner, st.builds(Value, st.sampled_from([Tag.ARRAY, Tag.STRUCTURE]), lists))
    return outer if depth == 1 else _nested(outer, depth - 1)


@given(
    notification=st.builds(
        Notification, st.integers(0, UINT32), st.one_of(st.none(), date_times), _nested(simple_values, 4)
    ),
    tagged=st.booleans(),
)
@example(Notification(0, None, Value(Tag.STRUCTURE, (Value(Tag.NULL, None),) * 300)), False)
@example(Notification(0, None, Value(Tag.OCTET_STRING, bytes(70_000))), False)
def test_any_notification(notification: Notification, tagged: bool) -> None:
    assert decode(information(notification, tagged_clock=tagged)) == notification


addresses = st.integers(1, 4).flatmap(
    lambda count: st.lists(st.integers(0, 127), min_size=count, max_size=count).map(
        lambda septets: bytes([*(s << 1 for s in septets[:-1]), septets[-1] << 1 | 1])
    )
)


@given(destination=addresses, source=addresses, control=st.integers(0, 255), inside=st.binary(min_size=1, max_size=500))
def test_any_frame(destination: bytes, source: bytes, control: int, inside: bytes) -> None:
    wire_bytes = frame(Addresses(destination, source, control), inside)
    (found,) = Deframer().feed(wire_bytes)
    assert isinstance(found, Frame)
    assert (found.destination, found.source, found.control) == (destination, source, control)
    assert (found.content, found.segmented) == (inside, False)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: encode_value(Value(Tag.UINT16, 65536)),
        lambda: encode_value(Value(Tag.UINT32, b"12")),
        lambda: encode_value(Value(Tag.VISIBLE_STRING, 12)),
        lambda: encode_value(Value(Tag.DATE, b"1234")),
        lambda: encode_value(Value(Tag.STRUCTURE, None)),
        lambda: frame(kaifa.ADDRESSES, bytes(2040)),
        lambda: aidon.list1(Sample(Flows(-1, 0, 0, 0))),
        lambda: aidon.list3(Identity(b"1", b"6534"), Sample(Flows(0, 0, 0, 0)), MeterClock(*[1] * 10)),
        lambda: kamstrup.hourly(Identity(b"1", b"6"), Sample(Flows(0, 0, 0, 0)), MeterClock(*[1] * 10)),
        lambda: kaifa.list1(Sample(Flows(0, 0, 0, 0)), MeterClock(70_000, *[1] * 9)),
    ],
)
def test_a_value_that_does_not_fit_raises(wrong: Callable[[], Iterable[int]]) -> None:
    with pytest.raises(ValueError):
        wrong()
