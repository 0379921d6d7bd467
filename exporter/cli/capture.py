"""`han-exporter capture`: record what a source sends, as time-stamped hex."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from exporter.cli._common import EXIT_OK, EXIT_REJECTED, give_up, say
from exporter.sources.contract import Chunk, SourceError, SourceEvent

if TYPE_CHECKING:
    from exporter.sources.capture.reader import CaptureWriter

__all__ = ["Gatherer", "capture"]

_QUIET: Final = timedelta(milliseconds=50)
"""A pause on the line that ends a chunk: a dozen octets' time at 2400 baud, and shorter than any between lists."""

_MOST: Final = 1024
_PROGRESS_EVERY: Final = 0.5


class Gatherer:
    """Joins octets that came one by one into chunks worth a line, each stamped when its last octet came.

    A chunk ends with a frame, at a pause, or at a kilobyte. So a whole frame is handed on, and safe on disk, as soon as
    its closing flag is here, with that flag's time (design.md, "Time of a point").
    """

    def __init__(self) -> None:
        from exporter.protocol.hdlc import Deframer

        self._deframer = Deframer()
        self._waiting = bytearray()
        self._last: datetime | None = None
        self.frames = 0

    def add(self, octets: bytes, received: datetime, byte_seconds: float) -> list[Chunk]:
        """The chunks that are complete with these octets."""
        began = received - timedelta(seconds=len(octets) * byte_seconds)
        done = self.rest() if self._last is not None and began - self._last > _QUIET else []
        start = self._deframer.fed
        for end in self._frame_ends(octets):
            cut = end - start
            if cut > 0:
                behind = timedelta(seconds=(len(octets) - cut) * byte_seconds)
                self._waiting += octets[:cut]
                self._last = received - behind
                done += self.rest()
                octets, start = octets[cut:], end
        if octets:
            self._waiting += octets
            self._last = received
        if len(self._waiting) >= _MOST:
            done += self.rest()
        return done

    def rest(self) -> list[Chunk]:
        """What waits, as a chunk."""
        if not self._waiting or self._last is None:
            return []
        chunk = Chunk(bytes(self._waiting), self._last)
        self._waiting.clear()
        return [chunk]

    def _frame_ends(self, octets: bytes) -> list[int]:
        from exporter.protocol.hdlc import Frame

        ends = [found.end for found in self._deframer.feed(octets) if isinstance(found, Frame)]
        self.frames += len(ends)
        return ends


@dataclass
class _Recording:
    """One run of `capture`: from a source into a writer, and what is told about it."""

    writer: CaptureWriter
    gatherer: Gatherer = field(default_factory=Gatherer)
    told: float = -_PROGRESS_EVERY
    on_terminal: bool = field(default_factory=sys.stderr.isatty)

    def take(self, chunk: Chunk) -> None:
        if chunk.received is None:
            raise SourceError("the source has no time stamps, so there is nothing to add to it; copy the file instead")
        for gathered in self.gatherer.add(chunk.data, chunk.received, chunk.byte_seconds):
            self.writer.append(gathered)
        self._progress()

    def finish(self) -> None:
        for gathered in self.gatherer.rest():
            self.writer.append(gathered)

    def event(self, event: SourceEvent) -> None:
        self.clear_line()
        say(f"{event.what.value}: {event.words}")

    def clear_line(self) -> None:
        if self.on_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)

    def summary(self) -> str:
        return f"{_count(self.writer.octets, 'octet')}, {_count(self.gatherer.frames, 'whole frame')}"

    def _progress(self) -> None:
        if self.on_terminal and time.monotonic() - self.told >= _PROGRESS_EVERY:
            self.told = time.monotonic()
            self.clear_line()
            click.echo(f"{self.summary()}; Ctrl-C ends it", nl=False, err=True)


@click.command()
@click.argument("source")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after so many seconds.")
@click.option("--frames", type=click.IntRange(min=1), help="Stop after so many whole frames.")
@click.pass_context
def capture(ctx: click.Context, source: str, file: Path, seconds: float | None, frames: int | None) -> None:
    """Record what SOURCE sends into FILE, until Ctrl-C.

    SOURCE is what HAN_SOURCE takes: a port (/dev/ttyUSB0, /dev/ttyUSB0?parity=E), socket://HOST:PORT,
    rfc2217://HOST:PORT, or sim:kamstrup for a simulated meter.

    FILE becomes text: on each line the time, and the octets that came, in hex. What is there already is kept, new
    lines are added. `han-exporter decode FILE` and `han-exporter import FILE` read it.

    A capture holds the meter's id and what the household used: think before you publish it.

    Exit code: 0 when something was recorded, 1 when nothing came, 2 when it could not be done.
    """
    try:
        recorded = _record(source, file, seconds, frames)
    except SourceError as error:
        give_up(f"Cannot capture: {error}")
    except OSError as error:
        give_up(f"Cannot write {file}: {error.strerror or error}")
    ctx.exit(EXIT_OK if recorded else EXIT_REJECTED)


def _record(setting: str, file: Path, seconds: float | None, frames: int | None) -> bool:
    from exporter.sources.capture.reader import CaptureWriter
    from exporter.sources.open import open_source

    source = open_source(setting)
    stop = threading.Event()
    with CaptureWriter(file) as writer, _ended_by(stop, seconds):
        recording = _Recording(writer)
        try:
            with closing(_iterate(source.chunks(stop, recording.event))) as chunks:
                for chunk in chunks:
                    recording.take(chunk)
                    if frames is not None and recording.gatherer.frames >= frames:
                        break
        finally:
            recording.finish()
            recording.clear_line()
        say(f"{file}: {recording.summary()} recorded")
        return writer.octets > 0


def _iterate(chunks: Iterator[Chunk]) -> Generator[Chunk, None, None]:
    """As a generator, which can be closed, whatever kind of iterator the source gives."""
    yield from chunks


@contextmanager
def _ended_by(stop: threading.Event, seconds: float | None) -> Iterator[None]:
    """Let SIGINT, SIGTERM and the time set `stop`; a second signal of the same kind ends the program at once."""

    def ended(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before: dict[int, Callable[..., object] | int | None] = {
        number: signal.signal(number, ended) for number in (signal.SIGINT, signal.SIGTERM)
    }
    timer = threading.Timer(seconds, stop.set) if seconds is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _count(number: int, what: str) -> str:
    return f"{number:,}".replace(",", " ") + f" {what}{'' if number == 1 else 's'}"
