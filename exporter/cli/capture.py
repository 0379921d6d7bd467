"""`han-exporter capture`: record what a source sends, as hex text with time stamps."""

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
from exporter.counted import counted
from exporter.sources.contract import Chunk, SourceError, SourceEvent

if TYPE_CHECKING:
    from exporter.sources.capture.reader import CaptureWriter

__all__ = ["Gatherer", "capture"]

_QUIET: Final = timedelta(milliseconds=50)
"""A pause this long ends a chunk: the time of 12 bytes at 2400 baud, and shorter than any pause between lists."""

_MAX_SIZE: Final = 1024
_PROGRESS_EVERY_S: Final = 0.5


class Gatherer:
    """Joins bytes that arrive one by one into chunks of a line each, with the time at which the last byte arrived.

    A chunk ends with a frame, at a pause, or at 1024 bytes. So a whole frame is passed on, and is safe on disk, as soon
    as its closing flag has arrived, and has the time of that flag.
    """

    def __init__(self) -> None:
        from exporter.protocol.framing import open_framer

        self._framer = open_framer()
        self._waiting = bytearray()
        self._last: datetime | None = None
        self.frames = 0

    def add(self, data: bytes, received: datetime, byte_seconds: float) -> list[Chunk]:
        """Add bytes; return the chunks that are now complete."""
        began = received - timedelta(seconds=len(data) * byte_seconds)
        done = self.rest() if self._last is not None and began - self._last > _QUIET else []
        start = self._framer.fed
        for end in self._frame_ends(data):
            cut = end - start
            if cut > 0:
                after = timedelta(seconds=(len(data) - cut) * byte_seconds)
                self._waiting += data[:cut]
                self._last = received - after
                done += self.rest()
                data, start = data[cut:], end
        if data:
            self._waiting += data
            self._last = received
        if len(self._waiting) >= _MAX_SIZE:
            done += self.rest()
        return done

    def rest(self) -> list[Chunk]:
        """The bytes that are still waiting, as a chunk; nothing if there are none."""
        if not self._waiting or self._last is None:
            return []
        chunk = Chunk(bytes(self._waiting), self._last)
        self._waiting.clear()
        return [chunk]

    def _frame_ends(self, data: bytes) -> list[int]:
        from exporter.protocol.framing import Message

        ends = [found.end for found in self._framer.feed(data) if isinstance(found, Message)]
        self.frames += len(ends)
        return ends


@dataclass
class _Recording:
    """One run of `capture`: from a source to a writer, with messages about it."""

    writer: CaptureWriter
    gatherer: Gatherer = field(default_factory=Gatherer)
    shown_at: float = -_PROGRESS_EVERY_S
    on_terminal: bool = field(default_factory=sys.stderr.isatty)

    def take(self, chunk: Chunk) -> None:
        if chunk.received is None:
            raise SourceError("the source has no time stamps, so there is nothing to record; copy the file instead")
        for gathered in self.gatherer.add(chunk.data, chunk.received, chunk.byte_seconds):
            self.writer.append(gathered)
        self._progress()

    def finish(self) -> None:
        for gathered in self.gatherer.rest():
            self.writer.append(gathered)

    def event(self, event: SourceEvent) -> None:
        self.clear_line()
        say(f"{event.what.value}: {event.message}")

    def clear_line(self) -> None:
        if self.on_terminal:
            click.echo("\r\x1b[K", nl=False, err=True)

    def summary(self) -> str:
        return f"{counted(self.writer.size, 'byte')}, {counted(self.gatherer.frames, 'valid frame')}"

    def _progress(self) -> None:
        if self.on_terminal and time.monotonic() - self.shown_at >= _PROGRESS_EVERY_S:
            self.shown_at = time.monotonic()
            self.clear_line()
            click.echo(f"{self.summary()}; Ctrl-C stops", nl=False, err=True)


@click.command()
@click.argument("source")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after this many seconds.")
@click.option("--frames", type=click.IntRange(min=1), help="Stop after this many valid frames.")
@click.pass_context
def capture(ctx: click.Context, source: str, file: Path, seconds: float | None, frames: int | None) -> None:
    """Record what SOURCE sends into FILE, until Ctrl-C.

    SOURCE is what HAN_SOURCE takes: a port (/dev/ttyUSB0, /dev/ttyUSB0?parity=E), socket://HOST:PORT,
    rfc2217://HOST:PORT, or sim:kamstrup for a simulated meter.

    FILE is text: each line has the time and the bytes that were received, in hex. If FILE exists, lines are appended.
    `han-exporter decode FILE` and `han-exporter import FILE` read it.

    A capture contains the id of the meter and the consumption of the household: think before you publish it.

    Exit code 0: something was recorded. 1: nothing was received. 2: it was not possible.
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
        return writer.size > 0


def _iterate(chunks: Iterator[Chunk]) -> Generator[Chunk, None, None]:
    """The same as a generator, which can be closed; the source may return another kind of iterator."""
    yield from chunks


@contextmanager
def _ended_by(stop: threading.Event, seconds: float | None) -> Iterator[None]:
    """Set `stop` on SIGINT, SIGTERM or after `seconds`. A second signal of the same kind ends the program at once."""

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
