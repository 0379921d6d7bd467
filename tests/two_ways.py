"""The same octets by `exporter.layouts`, and by the slow way that defines what they say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

from fastcrc import crc16

from exporter import points
from exporter.config import Settings
from exporter.deriving import Deriver
from exporter.intake import Heard, Intake, Outcome
from exporter.layouts import Lines
from exporter.meters import OSLO
from exporter.placing import Placed, Placer
from exporter.protocol.hdlc import Rejected
from exporter.reading import Zone

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SOURCE = "a capture"

Chunks: TypeAlias = Sequence[tuple[bytes, datetime | None]]


@dataclass(frozen=True)
class Told:
    """All that a way gives: lines, among which what was rejected and what could not be read stand in their places."""

    lines: list[str]
    frames: int
    octets: int
    state: dict[str, str]
    left_out: int
    months: list[str]
    hours: dict[str, str]


@dataclass
class Source:
    """One source, from outcomes on; `derived` derives from what it gives as `import` does."""

    zone: Zone
    derived: bool
    fallback: str | None = None
    frames: int = 0
    placer: Placer = field(init=False)
    deriver: Deriver | None = field(init=False)

    def __post_init__(self) -> None:
        self.placer = Placer(SOURCE, zone=self.zone, fallback=self.fallback, now=lambda: NOW)
        settings = Settings(timezone=self.zone.key)
        self.deriver = Deriver(settings, lambda key: None, imported=True) if self.derived else None

    def read(self, outcome: Outcome) -> list[str]:
        self.frames += not isinstance(outcome, Rejected)
        if not isinstance(outcome, Heard):
            return [f"# {outcome}"]
        return self.of(self.placer.place(outcome.reading))

    def of(self, placed: Iterable[Placed]) -> list[str]:
        if self.deriver is None:
            return [line for one in placed for line in points.lines(one)]
        timed = [one for one in placed if one.time is not None]
        return [line for one in timed for line in (*points.lines(one), *self.deriver.of(one))]

    def told(self, lines: list[str], frames: int, octets: int) -> Told:
        months = [] if self.deriver is None else list(self.deriver.months())
        hours = {} if self.deriver is None else self.deriver.hours_state()
        return Told(lines, frames, octets, self.placer.new_state(), self.placer.left_out, months, hours)


def slowly(chunks: Chunks, source: Source) -> Told:
    intake = Intake(source.zone)
    lines = [line for octets, received in chunks for o in intake.feed(octets, received) for line in source.read(o)]
    lines += [line for outcome in intake.end() for line in source.read(outcome)]
    lines += source.of(source.placer.give_up())
    return source.told(lines, source.frames, intake.octets)


def quickly(chunks: Chunks, source: Source) -> tuple[Told, int]:
    """What the way under test gives, and how many frames it took at once."""
    way = Lines(source.placer, source.read, source.zone, source.deriver)
    texts: list[str] = []
    fed = 0
    for octets, received in chunks:
        texts += way.feed(octets, received)
        fed += len(octets)
        assert way.octets == fed
    texts += way.end()
    lines = [line for text in texts for line in text.split("\n")]
    lines += source.of(source.placer.give_up())
    return source.told(lines, way.frames + source.frames, way.octets), way.frames


def same(chunks: Chunks, *, zone: Zone = OSLO, derived: bool = False, fallback: str | None = None) -> int:
    """Both ways tell the same; how many frames went the quick one."""
    told, quick = quickly(chunks, Source(zone, derived, fallback))
    assert told == slowly(chunks, Source(zone, derived, fallback))
    return quick


def at_once(octets: Iterable[bytes], received: datetime | None = None) -> Chunks:
    """Frames in one chunk."""
    return [(b"".join(octets), received)]


def mended(octets: bytes) -> bytes:
    """A frame with its FCS, and its HCS where the header still has a form, as they should be."""
    frame, at = bytearray(octets), 3
    for _ in ("destination", "source"):
        while at < len(frame) - 8 and not frame[at] & 1:
            at += 1
        at += 1
    at += 1
    frame[at : at + 2] = crc16.ibm_sdlc(bytes(frame[1:at])).to_bytes(2, "little")
    frame[-3:-1] = crc16.ibm_sdlc(bytes(frame[1:-3])).to_bytes(2, "little")
    return bytes(frame)
