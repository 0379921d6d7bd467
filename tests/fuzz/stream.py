"""Any bytes on the port: frames, values, readings, lines. No exception except DecodeError, and no byte is lost."""

from __future__ import annotations

import math
import random
import re
import time
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

from exporter.config import Settings
from exporter.meters import interpret
from exporter.pipeline.decoder import Undecoded
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.pipeline import Fed, NoState, Pipeline
from exporter.protocol.apdu import decode
from exporter.protocol.axdr import DecodeError
from exporter.protocol.framing import Rejected
from exporter.protocol.hdlc import MAX_FRAME, Deframer, Frame
from exporter.sources.contract import Chunk

SETTINGS: Final = Settings()
RECEIVED: Final = datetime(2026, 11, 22, 17, 0, 10, tzinfo=UTC)
MOST_WAITING: Final = 2 * MAX_FRAME
SECONDS_A_BYTE: Final = 500e-6
"""The most that a byte may take. It takes some microseconds, unless the time grows with the square of the length."""
_SLACK_S: Final = 0.5
_REWRITES: Final = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""Characters in a name that could break or change a line of the log."""
_LINE: Final = re.compile(
    r"[a-z_]+(,[a-z_]+=([^\\ ,=\x00-\x1f\x7f]|\\[ ,=]|\\(?![ ,=]))+)+ "
    r'[a-z_]+=(-?[0-9.e+-]+|"([^"\\\n]|\\.)*")(,[a-z_]+=(-?[0-9.e+-]+|"([^"\\\n]|\\.)*"))* -?[0-9]+'
)


def slices(data: bytes) -> list[bytes]:
    """The bytes in pieces; always the same pieces for the same bytes."""
    chance = random.Random(zlib.crc32(data))
    largest = chance.choice([1 if len(data) < 500 else 20, 60, 400, 5000])
    pieces, at = [], 0
    while at < len(data):
        size = chance.randint(1, largest)
        pieces.append(data[at : at + size])
        at += size
    return pieces


def run(data: bytes) -> None:
    """Feed it. Raises AssertionError, or another error that must never happen."""
    began = time.thread_time()
    for item in deframed(data):
        if isinstance(item, Frame):
            decoded(item.content)
    lines_of(data)
    took = time.thread_time() - began
    assert took < _SLACK_S + SECONDS_A_BYTE * len(data), f"{took:.2f} s for {len(data)} bytes"


def deframed(data: bytes) -> list[Frame | Rejected]:
    """What the Deframer finds, in pieces and at once: the same, and every byte belongs to one item."""
    deframer, found, fed = Deframer(), list[Frame | Rejected](), 0
    for piece in slices(data):
        found += deframer.feed(piece)
        fed += len(piece)
        assert deframer.fed == fed
        given_out = found[-1].offset + found[-1].size if found else 0
        assert given_out + deframer.waiting == fed
        assert deframer.waiting <= MOST_WAITING
        held = len(deframer._buffer), len(deframer._starts), len(deframer._pending), len(deframer._ends)
        assert max(held) <= MOST_WAITING + 1, held
    found += deframer.end()
    offset = 0
    for item in found:
        assert item.offset == offset
        assert item.size > 0
        offset += item.size
    assert offset == len(data)
    at_once = Deframer()
    assert found == [*at_once.feed(data), *at_once.end()]
    return found


def decoded(information: bytes) -> None:
    """A reading of finite numbers, or a DecodeError with a message."""
    try:
        reading = interpret(decode(information))
    except DecodeError as error:
        assert not _REWRITES.search(str(error))
        assert 0 < len(str(error)) < 300
        assert 0 <= error.offset <= max(len(information), 3)
        return
    assert all(math.isfinite(measurement.value) for measurement in reading.measurements)
    for text in (reading.meter.id, reading.meter.maker, reading.meter.type, reading.list_id):
        assert text is None or not _REWRITES.search(text), text


def lines_of(data: bytes) -> list[str]:
    """All lines of it, through the pipeline as in `run`."""
    chunks, moment = [], RECEIVED
    for piece in slices(data):
        moment += timedelta(seconds=len(piece) / 240)
        chunks.append(Chunk(piece, moment, 1 / 240))
    now = iter([*(chunk.received or RECEIVED for chunk in chunks), moment])
    at = [RECEIVED]

    def fed(pipeline: Pipeline) -> Iterator[Fed]:
        for chunk in chunks:
            at[0] = next(now)
            yield pipeline.feed((chunk,))
        yield pipeline.interrupted()
        yield pipeline.end()

    # For half of the inputs, this computer's clock is wrong, so the meter's clock is used.
    clock = HostClock(lambda: at[0], lambda: 0.0, lambda: bool(len(data) % 2))
    return kept(fed(Pipeline("fuzz", SETTINGS, NoState(), clock, live=True)))


def kept(all_fed: Iterable[Fed]) -> list[str]:
    """The lines of all that was fed, each of them checked."""
    lines: list[str] = []
    for fed in all_fed:
        for outcome in fed.outcomes:
            assert not isinstance(outcome, Undecoded) or not _REWRITES.search(outcome.reason)
        for text in fed.state.values():
            text.encode()
        lines += [line for row in fed.rows for line in row.body.decode().split("\n")]
    for line in lines:
        assert _LINE.fullmatch(line), line
    return lines
