"""decode and interpret with any bytes: they return a reading or raise DecodeError, and nothing else."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from exporter.meters import interpret
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.pipeline import NoState, Pipeline, Purpose
from exporter.protocol.apdu import decode
from exporter.protocol.axdr import DecodeError
from exporter.sources.contract import Chunk
from tests.support.examples import examples
from tests.support.octets import all_frames, frame, notification
from tests.support.pipeline import Naming

INFORMATION = [data[data.index(b"\xe6\xe7\x00") : -3] for data in all_frames()]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(INFORMATION)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data) - 1))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            data[at] = draw(st.integers(0, 255))
        elif kind == 1:
            del data[at : at + draw(st.integers(1, 8))]
        elif kind == 2:
            data[at:at] = draw(st.binary(max_size=8))
        else:
            data[at] = draw(st.sampled_from([*range(0x1C), 0xFF, 0x7F, 0x80]))
        if not data:
            return b""
    return bytes(data)


values = st.recursive(
    st.one_of(
        st.sampled_from([b"\x00", b"\x03\x01", b"\x16\x1b", b"\x0f\x80", b"\x0f\x7f", b"\x19" + b"\xff" * 12]),
        st.binary(min_size=4, max_size=4).map(lambda b: b"\x06" + b),
        st.binary(min_size=4, max_size=4).map(lambda b: b"\x17" + b),
        st.binary(min_size=8, max_size=8).map(lambda b: b"\x18" + b),
        st.binary(min_size=8, max_size=8).map(lambda b: b"\x15" + b),
        st.binary(max_size=20).map(lambda b: bytes([9, len(b)]) + b),
        st.binary(max_size=20).map(lambda b: bytes([10, len(b)]) + b),
        st.sampled_from(["0100010700ff", "0101000005ff", "0000010000ff", "0101000281ff", "01001f0700ff"]).map(
            lambda text: b"\x09\x06" + bytes.fromhex(text)
        ),
    ),
    lambda inner: st.tuples(st.sampled_from([1, 2]), st.lists(inner, max_size=6)).map(
        lambda made: bytes([made[0], len(made[1])]) + b"".join(made[1])
    ),
    max_leaves=20,
)


def only_decode_errors(information: bytes) -> None:
    try:
        reading = interpret(decode(information))
    except DecodeError as error:
        assert str(error)
        assert 0 <= error.offset <= max(len(information), 3)
        return
    assert all(math.isfinite(m.value) for m in reading.measurements)


@examples(600)
@given(mutated())
def test_mutated_lists(information: bytes) -> None:
    only_decode_errors(information)


@examples(300)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=300).map(notification)))
def test_any_bytes(information: bytes) -> None:
    only_decode_errors(information)


@examples(600)
@given(values, st.sampled_from([b"\x00", b"\x09\x0c" + b"\xff" * 12, bytes.fromhex("0c07e30a1b0702000aff800000")]))
def test_any_values_become_lines_or_words(value: bytes, date_time: bytes) -> None:
    pipeline = Pipeline("test", Naming(), NoState(), HostClock(), purpose=Purpose.VALUES)
    fed = pipeline.feed((Chunk(frame(notification(value, date_time)), None),))
    rows = [*fed.rows, *pipeline.end().rows]
    assert rows or pipeline.counts.undecoded or pipeline.counts.readings
    for row in rows:
        for line in row.body.decode().split("\n"):
            assert line.isprintable(), line


def test_deep_nesting_is_refused() -> None:
    for depth in (9, 200, 900):
        try:
            decode(notification(b"\x02\x01" * depth + b"\x00"))
        except DecodeError as error:
            assert "deep" in str(error)
        else:
            raise AssertionError(depth)
