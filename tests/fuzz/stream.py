"""Any octets on the port: frames, values, readings, places, lines. No exception but DecodeError, no octet lost."""

from __future__ import annotations

import math
import random
import re
import time
import zlib
from datetime import UTC, datetime, timedelta
from typing import Final

from exporter.config import Settings
from exporter.derive import points
from exporter.derive.deriver import Deriver
from exporter.meters import interpret
from exporter.pipeline.decoder import Heard, Intake, Outcome, Unread
from exporter.pipeline.host_clock import HostTime
from exporter.pipeline.placing import Placer
from exporter.protocol.apdu import decode
from exporter.protocol.axdr import DecodeError
from exporter.protocol.framing import Rejected
from exporter.protocol.hdlc import MAX_FRAME, Deframer, Frame

SETTINGS: Final = Settings()
RECEIVED: Final = datetime(2026, 11, 22, 17, 0, 10, tzinfo=UTC)
MOST_WAITING: Final = 2 * MAX_FRAME
SECONDS_AN_OCTET: Final = 500e-6
"""So long may an octet take, where it takes a few microseconds: what grows with the square of the length is seen."""
_SLACK_S: Final = 0.5
_REWRITES: Final = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""What in a name could break or rewrite a line of the log."""
_LINE: Final = re.compile(
    r"[a-z_]+(,[a-z_]+=([^\\ ,=\x00-\x1f\x7f]|\\[ ,=]|\\(?![ ,=]))+)+ "
    r'[a-z_]+=(-?[0-9.e+-]+|"([^"\\\n]|\\.)*")(,[a-z_]+=(-?[0-9.e+-]+|"([^"\\\n]|\\.)*"))* -?[0-9]+'
)


def slices(octets: bytes) -> list[bytes]:
    """The octets in pieces, always the same for the same octets."""
    dice = random.Random(zlib.crc32(octets))
    largest = dice.choice([1 if len(octets) < 500 else 20, 60, 400, 5000])
    pieces, at = [], 0
    while at < len(octets):
        size = dice.randint(1, largest)
        pieces.append(octets[at : at + size])
        at += size
    return pieces


def run(octets: bytes) -> None:
    """Feed it; raises AssertionError, or whatever else should never be."""
    began = time.thread_time()
    for item in deframed(octets):
        if isinstance(item, Frame):
            decoded(item.content)
    lines_of(octets)
    took = time.thread_time() - began
    assert took < _SLACK_S + SECONDS_AN_OCTET * len(octets), f"{took:.2f} s for {len(octets)} octets"


def deframed(octets: bytes) -> list[Frame | Rejected]:
    """What the Deframer makes of it, in pieces and at once: the same, and every octet of it once."""
    deframer, found, fed = Deframer(), list[Frame | Rejected](), 0
    for piece in slices(octets):
        found += deframer.feed(piece)
        fed += len(piece)
        assert deframer.fed == fed
        given_out = found[-1].offset + found[-1].size if found else 0
        assert given_out + deframer.waiting == fed
        assert deframer.waiting <= MOST_WAITING
        held = len(deframer._octets), len(deframer._starts), len(deframer._pending), len(deframer._ends)
        assert max(held) <= MOST_WAITING + 1, held
    found += deframer.end()
    offset = 0
    for item in found:
        assert item.offset == offset
        assert item.size > 0
        offset += item.size
    assert offset == len(octets)
    at_once = Deframer()
    assert found == [*at_once.feed(octets), *at_once.end()]
    return found


def decoded(information: bytes) -> None:
    """A reading of finite numbers, or a DecodeError in words."""
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


def lines_of(octets: bytes) -> list[str]:
    """Everything that would be kept of it, through the rooms that a reading goes through in `run`."""
    intake = Intake(SETTINGS.zone)
    placer, deriver = Placer("fuzz", zone=SETTINGS.zone), Deriver(SETTINGS, lambda _: None)
    outcomes: list[Outcome] = []
    moment = RECEIVED
    for piece in slices(octets):
        moment += timedelta(seconds=len(piece) / 240)
        outcomes += intake.feed(piece, moment, 1 / 240)
    outcomes += intake.end()
    # This computer's clock is wrong for half of all inputs: then it is the meter's that counts.
    host = HostTime(kernel=lambda: bool(len(octets) % 2), monotonic=lambda: 0.0)
    return kept(outcomes, placer, deriver, host)


def kept(outcomes: list[Outcome], placer: Placer, deriver: Deriver, host: HostTime | None = None) -> list[str]:
    """The lines of outcomes, each looked at."""
    lines: list[str] = []
    placed = []
    for outcome in outcomes:
        if isinstance(outcome, Heard):
            reading = outcome.reading
            placed += placer.place(reading if host is None else host.mend(reading, placer.clock_of(reading)))
        elif isinstance(outcome, Unread):
            assert not _REWRITES.search(outcome.words)
    for one in placed + placer.give_up():
        if one.time is not None:
            lines += [*points.lines(one), *deriver.of(one)]
    lines += deriver.months()
    for text in [*placer.new_state().values(), *deriver.new_state().values()]:
        text.encode()
    for line in lines:
        assert _LINE.fullmatch(line), line
    return lines
