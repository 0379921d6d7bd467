"""The same octets by the quick way, in order and read ahead, and by the slow way that defines what they say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from typing import TypeAlias

from fastcrc import crc16

from exporter.cli._cores import lines_ahead
from exporter.cli._readers import Readers
from exporter.config import Settings
from exporter.derive import points
from exporter.derive.deriver import Deriver
from exporter.meters import OSLO
from exporter.model.reading import Placed, Zone
from exporter.pipeline.decoder import Heard, Intake, Outcome
from exporter.pipeline.learned import Lines, ReadAhead
from exporter.pipeline.learned.ahead import Ahead
from exporter.pipeline.placing import Placer
from exporter.protocol.framing import Rejected
from exporter.sources.capture.forms import Form
from exporter.sources.capture.reader import CaptureParser

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


class _Slices(BytesIO):
    """A file that is read in a dozen pieces, of 700 octets at the least."""

    def read(self, size: int | None = -1) -> bytes:
        most = max(700, len(self.getbuffer()) // 12)
        return super().read(most if size is None or size < 0 else min(size, most))


class ReadersHere(Readers):
    """Reads ahead as the other processes do, in this one, and however few frames there are."""

    def __init__(self, source: Source) -> None:
        super().__init__(0, source.zone)
        deriver = None
        if source.derived:
            deriver = Deriver(Settings(timezone=source.zone.key), lambda key: None, imported=True)
        self._ahead = Ahead(source.zone, deriver, fewest=1)

    @property
    def count(self) -> int:
        return 3

    def give(self, piece: bytes, form: Form, lines: Lines) -> Future[Sequence[ReadAhead]]:
        self._ahead.learn(lines.examples)
        found: Future[Sequence[ReadAhead]] = Future()
        found.set_result((self._ahead.raw if form is Form.RAW else self._ahead.stamped)(piece, lines.meter_id))
        return found


class _Counting(Lines):
    taken = 0

    def take(self, run: ReadAhead) -> list[str] | None:
        texts = super().take(run)
        self.taken += 0 if texts is None else run.frames
        return texts


def ahead(file: bytes, form: Form, source: Source) -> tuple[Told, int]:
    """What the way under test gives of a file, two thirds of it read ahead, and of how many frames that was used."""
    way = _Counting(source.placer, source.read, source.zone, source.deriver)
    parser, stream = CaptureParser(), _Slices(file)
    parser.form = form
    texts: list[str] = []

    def feed(octets: bytes) -> None:
        for chunk in parser.feed(octets):
            texts.extend(way.feed(chunk.data, chunk.received))

    while stream.tell() < len(file) // 3:
        feed(stream.read())
    for more in lines_ahead(stream, parser, way, ReadersHere(source)):
        texts += more
    while octets := stream.read():
        feed(octets)
    for chunk in parser.end():
        texts += way.feed(chunk.data, chunk.received)
    texts += way.end()
    assert parser.fed == len(file)
    lines = [line for text in texts for line in text.split("\n")]
    lines += source.of(source.placer.give_up())
    return source.told(lines, way.frames + source.frames, way.octets), way.taken


def same(chunks: Chunks, *, zone: Zone = OSLO, derived: bool = False, fallback: str | None = None) -> int:
    """All ways tell the same; how many frames went the quick one."""
    told, quick = quickly(chunks, Source(zone, derived, fallback))
    assert told == slowly(chunks, Source(zone, derived, fallback))
    same_ahead(chunks, zone=zone, derived=derived, fallback=fallback)
    return quick


def same_ahead(chunks: Chunks, *, zone: Zone = OSLO, derived: bool = False, fallback: str | None = None) -> int:
    """The same of a capture of these chunks, of which no or each one was stamped; how many frames were taken so."""
    if len({received is None for _, received in chunks}) > 1:
        return 0
    chunks = [(octets, whole_ms(moment)) for octets, moment in chunks if octets]
    told, frames = ahead(*file_of(chunks), Source(zone, derived, fallback))
    assert told == slowly(chunks, Source(zone, derived, fallback))
    return frames


def file_of(chunks: Chunks) -> tuple[bytes, Form]:
    """A capture of these chunks, raw or time-stamped."""
    if all(received is None for _, received in chunks):
        return b"".join(octets for octets, _ in chunks), Form.RAW
    return "".join(f"{stamp(moment)} {octets.hex()}\n" for octets, moment in chunks).encode(), Form.STAMPED


def stamp(moment: datetime | None) -> str:
    """As `capture` writes it."""
    assert moment is not None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def whole_ms(moment: datetime | None) -> datetime | None:
    """What of a moment a capture keeps."""
    return None if moment is None else moment.replace(microsecond=moment.microsecond // 1000 * 1000)


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
