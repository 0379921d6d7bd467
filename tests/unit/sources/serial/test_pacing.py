"""A wire is left alone in the middle of a frame, and never longer than its end can be away."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.cli.capture import Gatherer
from exporter.protocol.framing import Message, open_framer
from exporter.simulator.meter import SimulatedMeter
from exporter.sources.serial.pacing import LONGEST, Pacing

OCTET = 10 / 2400
START = datetime(2026, 11, 22, 17, tzinfo=UTC)
FRAMES = [octets for _, octets in islice(SimulatedMeter("kamstrup").frames(START, None), 3)]


def played(octets: bytes, group: int, byte_seconds: float = OCTET) -> tuple[list[tuple[float, bytes]], float]:
    """Read a wire that hands over `group` octets at a time, as SerialSource does: (when, chunk), and how late a frame.

    A frame is late by the time between its closing flag's group and the chunk that had it.
    """
    comes = [((n + group) * byte_seconds, octets[n : n + group]) for n in range(0, len(octets), group)]
    pacing, framer, now, late = Pacing(), open_framer(), 0.0, 0.0
    chunks = []
    while comes:
        now = max(now, comes[0][0])
        here = [piece for at, piece in comes if at <= now]
        last = comes[len(here) - 1][0]
        comes = comes[len(here) :]
        chunk = b"".join(here)
        chunks.append((now, chunk))
        frames = [found for found in framer.feed(chunk) if isinstance(found, Message)]
        if frames and framer.waiting == 0:
            late = max(late, now - last)
        now += pacing.heard(len(chunk), framer.missing, byte_seconds)
    return chunks, late


@pytest.mark.parametrize("group", [1, 4, 16, 62])
def test_no_frame_is_read_later_for_it(group: int) -> None:
    for frame in FRAMES:
        chunks, late = played(frame, group)
        assert b"".join(chunk for _, chunk in chunks) == frame
        assert late <= max(0, group * OCTET - 0.02), "what the adapter kept itself for longer"
        assert len(chunks) <= len(frame) * OCTET / LONGEST + 10


def test_frames_that_share_a_flag_are_left_alone_too() -> None:
    shared = FRAMES[0] + FRAMES[1][1:]
    chunks, late = played(shared, 1)
    assert late == 0
    assert len(chunks) < len(shared) / 10


def test_a_port_that_is_quicker_than_its_line_is_found_out_at_once() -> None:
    pacing, framer = Pacing(), open_framer()
    frame = FRAMES[0] * 2
    rests = []
    for piece in (frame[:64], frame[64:], FRAMES[1][:64], FRAMES[1][64:128]):
        framer.feed(piece)
        rests.append(pacing.heard(len(piece), framer.missing, OCTET))
    assert rests == [LONGEST, 0, 0, 0]


def test_without_a_wire_nothing_rests() -> None:
    assert Pacing().heard(10, 200, 0.0) == 0


@given(octets=st.binary(max_size=60), cuts=st.lists(st.integers(1, 20), max_size=20))
def test_whatever_comes_it_is_read_again_soon(octets: bytes, cuts: list[int]) -> None:
    pacing, framer = Pacing(), open_framer()
    for cut in cuts:
        piece, octets = octets[:cut], octets[cut:]
        framer.feed(piece)
        assert 0 <= pacing.heard(len(piece), framer.missing, OCTET) <= LONGEST


def test_capture_writes_a_frame_on_one_line_though_it_is_read_in_pieces() -> None:
    gatherer = Gatherer()
    lines = []
    for at, chunk in played(FRAMES[0], 1)[0]:
        lines += gatherer.add(chunk, START + timedelta(seconds=at), OCTET)
    assert [line.data for line in lines] == [FRAMES[0]]
