"""The Deframer with any bytes, compared with a reference that tries every start and every end."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from exporter.protocol.framing import Rejected
from exporter.protocol.hdlc import Deframer, Frame
from tests.support.examples import examples
from tests.support.octets import all_frames, crc_x25, frame

SHORT = [data for data in all_frames() if len(data) < 200]


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A right header, of a frame that may never end."""
    length = draw(st.sampled_from([7, 9, 10, 12, 20, 60, 300]))
    addresses = draw(st.sampled_from([b"\x03\x05", b"\x02\x02\x02\x03\x02\x03", b"\x41\x08\x83"]))
    head = bytes([0xA0 | length >> 8, length & 0xFF]) + addresses + b"\x13"
    return b"\x7e" + head + crc_x25(head)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from(SHORT))
    at = draw(st.integers(0, len(data) - 1))
    instead = draw(st.binary(max_size=2))
    return data[:at] + instead + data[at + draw(st.integers(0, 2)) :]


def pieces() -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.sampled_from(SHORT),
        st.sampled_from(SHORT).map(lambda data: data[1:]),  # opened by the flag that closed the frame before
        st.sampled_from(SHORT).flatmap(lambda data: st.integers(0, len(data)).map(lambda n: data[:n])),
        st.binary(max_size=30).map(frame),
        damaged(),
        headers(),
        st.binary(max_size=40),
        st.integers(1, 5).map(lambda n: b"\x7e" * n),
    )


streams = st.lists(pieces(), max_size=7).map(b"".join)


def fed(data: bytes, cuts: list[int]) -> list[Frame | Rejected]:
    deframer = Deframer()
    found: list[Frame | Rejected] = []
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in pairwise(bounds):
        found += deframer.feed(data[start:stop])
        assert sum(item.size for item in found) + deframer.waiting == stop == deframer.fed
    return found + list(deframer.end())


def reference(data: bytes) -> list[tuple[int, int]]:
    """(flag, closing flag) of the frames: earliest end first, then earliest start; frames do not overlap."""
    ends = []
    for at in range(len(data) - 8):
        end = at + 1 + ((data[at + 1] & 7) << 8 | data[at + 2])
        whole = data[at] == 0x7E and data[at + 1] >> 4 == 0xA and end < len(data) and data[end] == 0x7E
        if whole and _header_checks(data, at, end) and crc_x25(data[at + 1 : end - 2]) == data[end - 2 : end]:
            ends.append((end, at))
    found: list[tuple[int, int]] = []
    for end, at in sorted(ends):
        if not found or at >= found[-1][1]:
            found.append((at, end))
    return found


def _header_checks(data: bytes, at: int, end: int) -> bool:
    i = at + 3
    for _ in range(2):
        first = i
        while i < end and not data[i] & 1:
            i += 1
        i += 1
        if i - first > 4:
            return False
    return i + 2 < end and crc_x25(data[at + 1 : i + 1]) == data[i + 1 : i + 3]


@examples(400)
@given(streams, st.lists(st.integers(0, 2000), max_size=6))
def test_no_byte_is_lost_and_any_slicing_gives_the_same(data: bytes, cuts: list[int]) -> None:
    at_once = fed(data, [])
    offset = 0
    for item in at_once:
        assert item.offset == offset
        assert item.size > 0
        offset += item.size
    assert offset == len(data)
    assert fed(data, cuts) == at_once


@examples(200)
@given(streams)
def test_byte_by_byte_gives_the_same_at_every_moment(data: bytes) -> None:
    slow = Deframer()
    given_out: list[Frame | Rejected] = []
    for n, byte in enumerate(data, 1):
        given_out += slow.feed(bytes([byte]))
        if n % 13 == 0 or n == len(data):
            quick = Deframer()
            assert quick.feed(data[:n]) == given_out
            assert quick.waiting == slow.waiting
            assert quick.missing == slow.missing


@examples(400)
@given(streams, streams, st.integers(0, 2000))
def test_no_frame_that_has_begun_ends_before_what_is_missing(before: bytes, after: bytes, cut: int) -> None:
    stream = before + after
    split = cut % (len(stream) + 1)
    deframer = Deframer()
    deframer.feed(stream[:split])
    missing = deframer.missing
    assert missing >= 0
    begun = [end for at, end in reference(stream) if at < split <= end]
    assert all(end + 1 - split >= missing for end in begun)


@examples(200)
@given(streams, st.sampled_from(SHORT), st.integers(0, 2000))
def test_what_is_missing_is_never_more_than_the_frame_needs(noise: bytes, data: bytes, cut: int) -> None:
    split = 3 + cut % (len(data) - 3)
    deframer = Deframer()
    deframer.feed(noise + data[:split])
    assert deframer.missing <= len(data) - split


@examples(400)
@given(streams)
def test_finds_what_the_reference_finds(data: bytes) -> None:
    ends = [item.end - 1 for item in fed(data, []) if isinstance(item, Frame)]
    assert ends == [end for _, end in reference(data)]


@examples(200)
@given(st.binary(max_size=3000))
def test_any_bytes(data: bytes) -> None:
    found = fed(data, [100, 1000])
    assert sum(item.size for item in found) == len(data)
