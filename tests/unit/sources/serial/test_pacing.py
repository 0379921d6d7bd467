"""A port is left alone in the middle of a message, but never so long that its end is read late."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.cli.capture import Gatherer
from exporter.protocol.framing import Message, open_framer
from exporter.simulator.meter import SimulatedMeter
from exporter.sources.serial.pacing import LONGEST, Pacing

BYTE_SECONDS = 10 / 2400
START = datetime(2026, 11, 22, 17, tzinfo=UTC)
FRAMES = [data for _, data in islice(SimulatedMeter("kamstrup").frames(START, None), 3)]


def played(data: bytes, group: int, byte_seconds: float = BYTE_SECONDS) -> tuple[list[tuple[float, bytes]], float]:
    """Read a wire that gives `group` bytes at a time, as SerialSource does: (when, chunk), and how late a frame is.

    A frame is late by the time between the group with its closing flag and the chunk that has it.
    """
    comes = [((n + group) * byte_seconds, data[n : n + group]) for n in range(0, len(data), group)]
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
def test_no_frame_is_read_late(group: int) -> None:
    for frame in FRAMES:
        chunks, late = played(frame, group)
        assert b"".join(chunk for _, chunk in chunks) == frame
        assert late <= max(0, group * BYTE_SECONDS - 0.02), "only if the adapter held it back for longer"
        assert len(chunks) <= len(frame) * BYTE_SECONDS / LONGEST + 10


def test_frames_that_share_a_flag_are_left_alone_too() -> None:
    shared = FRAMES[0] + FRAMES[1][1:]
    chunks, late = played(shared, 1)
    assert late == 0
    assert len(chunks) < len(shared) / 10


def test_a_port_that_is_faster_than_its_baud_rate_is_recognised_at_once() -> None:
    pacing, framer = Pacing(), open_framer()
    frame = FRAMES[0] * 2
    pauses = []
    for piece in (frame[:64], frame[64:], FRAMES[1][:64], FRAMES[1][64:128]):
        framer.feed(piece)
        pauses.append(pacing.heard(len(piece), framer.missing, BYTE_SECONDS))
    assert pauses == [LONGEST, 0, 0, 0]


def test_without_a_wire_there_is_no_pause() -> None:
    assert Pacing().heard(10, 200, 0.0) == 0


@given(data=st.binary(max_size=60), cuts=st.lists(st.integers(1, 20), max_size=20))
def test_with_any_bytes_the_pause_is_short(data: bytes, cuts: list[int]) -> None:
    pacing, framer = Pacing(), open_framer()
    for cut in cuts:
        piece, data = data[:cut], data[cut:]
        framer.feed(piece)
        assert 0 <= pacing.heard(len(piece), framer.missing, BYTE_SECONDS) <= LONGEST


def test_capture_writes_a_frame_on_one_line_although_it_is_read_in_pieces() -> None:
    gatherer = Gatherer()
    lines = []
    for at, chunk in played(FRAMES[0], 1)[0]:
        lines += gatherer.add(chunk, START + timedelta(seconds=at), BYTE_SECONDS)
    assert [line.data for line in lines] == [FRAMES[0]]
