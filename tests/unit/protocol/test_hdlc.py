"""The Deframer with streams made by hand: what is a frame, what is rejected, and why."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

from exporter.protocol.framing import Kind, Rejected
from exporter.protocol.hdlc import MAX_FRAME, Deframer, Frame, crc
from tests.support.octets import all_frames, crc_x25, frame

A = frame(b"\xe6\xe7\x00first")
B = frame(b"\xe6\xe7\x00second one")


def parts(*pieces: bytes) -> list[Frame | Rejected]:
    deframer = Deframer()
    found = [item for piece in pieces for item in deframer.feed(piece)]
    return found + list(deframer.end())


def short(items: Sequence[Frame | Rejected]) -> list[tuple[int, int, Kind | str]]:
    """(offset, size, why it was rejected or what it says) of each."""
    return [(i.offset, i.size, i.kind if isinstance(i, Rejected) else i.content[3:].decode()) for i in items]


def reasons(items: Sequence[Frame | Rejected]) -> list[str]:
    return [i.reason for i in items if isinstance(i, Rejected)]


def test_crc_is_x25() -> None:
    assert crc(b"123456789") == 0x906E  # the check value of CRC-16/X-25
    assert crc(A[1:-3]).to_bytes(2, "little") == crc_x25(A[1:-3])


def test_a_frame_and_its_parts() -> None:
    (found,) = parts(frame(b"\xe6\xe7\x00x", addresses=b"\x02\x03\x21", control=0x10))
    assert found == Frame(0, 16, b"\xe6\xe7\x00x", b"\x02\x03", b"\x21", 0x10, False)
    assert isinstance(found, Frame)
    assert found.end == 16


def test_segmentation_bit() -> None:
    (found,) = parts(frame(b"\xe6\xe7\x00x", segmented=True))
    assert isinstance(found, Frame)
    assert found.segmented


def test_a_frame_without_information() -> None:
    (found,) = parts(frame(b""))
    assert isinstance(found, Frame)
    assert found.content == b""


def test_one_flag_closes_and_opens() -> None:
    assert short(parts(A + B[1:])) == [(0, 20, "first"), (20, 24, "second one")]
    assert short(parts(A + B)) == [(0, 20, "first"), (20, 25, "second one")]


def test_flags_between_frames_are_fill() -> None:
    found = parts(A + b"\x7e\x7e" + B)
    assert short(found) == [(0, 20, "first"), (20, 2, Kind.FILL), (22, 25, "second one")]


def test_wrong_fcs() -> None:
    broken = A[:-3] + bytes([A[-3] ^ 0xFF, A[-2]]) + A[-1:]
    sent, calculated = broken[-3:-1].hex().upper(), A[-3:-1].hex().upper()
    found = parts(broken + B)
    assert short(found) == [(0, 20, Kind.FCS), (20, 25, "second one")]
    (reason,) = reasons(found)
    assert sent in reason
    assert calculated in reason


def test_wrong_fcs_before_a_shared_flag() -> None:
    broken = A[:-3] + bytes([A[-3] ^ 0xFF, A[-2]]) + A[-1:]
    found = short(parts(broken + B[1:]))
    assert found == [(0, 19, Kind.FCS), (19, 25, "second one")]


def test_wrong_header() -> None:
    broken = A[:1] + bytes([A[1], A[2] ^ 0x01]) + A[3:]
    assert short(parts(broken + B)) == [(0, len(A), Kind.HEADER), (len(A), 25, "second one")]


def test_a_frame_that_breaks_off_neither_destroys_nor_delays_the_next() -> None:
    long = frame(b"\xe6\xe7\x00" + bytes(500))
    deframer = Deframer()
    assert deframer.feed(long[:100]) == []
    found = deframer.feed(B)
    assert short(found) == [(0, 100, Kind.BROKEN_OFF), (100, 25, "second one")]
    assert f"100 of {len(long)} bytes" in reasons(found)[0]


def test_false_start_inside_a_frame() -> None:
    start = b"\x7e\xa0\x20\x41\x08\x83\x13"
    start += crc_x25(start[1:])
    inside = frame(b"\xe6\xe7\x00" + start + b"rest")
    found = parts(inside + B)
    assert [item.size for item in found] == [len(inside), len(B)]
    assert all(isinstance(item, Frame) for item in found)


def test_closing_flag_missing() -> None:
    found = parts(A[:-1] + b"\x00" + B)
    assert short(found) == [(0, 20, Kind.CLOSING_FLAG), (20, 25, "second one")]
    assert "20 bytes" in reasons(found)[0]


def test_incomplete_at_the_end() -> None:
    for size, figures in ((9, "9 of 25 bytes"), (3, "3 of 25 bytes"), (2, "2 bytes"), (1, "1 byte")):
        found = parts(A + B[:size])
        assert short(found) == [(0, 20, "first"), (20, size, Kind.INCOMPLETE)]
        assert reasons(found)[0].endswith(figures)


def test_address_too_long() -> None:
    found = parts(b"\x7e\xa0\x20" + b"\x02" * 6 + A)
    assert isinstance(found[0], Rejected)
    assert "address" in found[0].reason
    assert isinstance(found[1], Frame)


def test_longest_frame() -> None:
    longest = frame(b"\xe6\xe7\x00" + bytes(2047 - 13))
    assert len(longest) == MAX_FRAME
    (found,) = parts(longest)
    assert isinstance(found, Frame)


def test_a_new_stream_can_follow_the_end() -> None:
    deframer = Deframer()
    deframer.feed(A[:10])
    deframer.end()
    (found,) = deframer.feed(B)
    assert (found.offset, found.size) == (10, 25)


def missing(*pieces: bytes) -> int:
    deframer = Deframer()
    for piece in pieces:
        deframer.feed(piece)
    return deframer.missing


def test_how_many_bytes_are_missing_is_known_from_the_length_on() -> None:
    for n in range(len(B)):
        assert missing(B[:n]) == (len(B) - n if n >= 3 else 0)
        assert missing(A, B[:n]) == (len(B) - n if n >= 3 else 0)
        assert missing(A, B[1:][:n]) == (len(B) - 1 - n if n >= 2 else 0), "one flag closes and opens"
    assert missing(A) == missing(A, B) == 0


def test_a_false_start_is_missing_nothing() -> None:
    damaged = bytes([A[0], A[1], A[2] ^ 0x01]) + A[3:-1]
    assert missing(damaged[:9]) == 0, "its HCS is wrong"
    assert missing(b"\x7e\xa0\x00") == 0, "it would end before its header does"
    assert missing(A[:-1] + b"\x00") == 0, "it has no closing flag"


def test_the_nearest_end_of_all_that_can_be_frames() -> None:
    long = frame(b"\xe6\xe7\x00" + bytes(500))
    assert missing(long[:100], B[:10]) == len(B) - 10
    assert missing(B[:10], long[:10]) == len(B) - 20
    assert missing(long[:100], b"\x7e") == 0, "it may be the start of a short frame"


def test_after_the_end_nothing_is_missing() -> None:
    deframer = Deframer()
    deframer.feed(A[:10])
    deframer.end()
    assert deframer.missing == 0


def test_memory_is_bounded() -> None:
    head = b"\x7e\xa7\xff\x41\x08\x83\x13"
    worst = (head + crc_x25(head[1:])) * 400  # starts with right headers, each waiting for 2047 bytes
    deframer = Deframer()
    tracemalloc.start()
    for _ in range(20):
        deframer.feed(worst)
        assert deframer.waiting <= 2 * MAX_FRAME
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_all_captures_are_all_frames() -> None:
    found = parts(b"".join(all_frames()))
    assert [item.size for item in found if isinstance(item, Frame)] == [len(data) for data in all_frames()]
