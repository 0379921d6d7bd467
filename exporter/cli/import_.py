"""`import`: put captures into InfluxDB, straight from the file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import click

from exporter.cli._common import (
    EXIT_OK,
    EXIT_REJECTED,
    EXIT_UNUSABLE,
    client_or_exit,
    config_option,
    give_up,
    influx_options,
    say,
    settings_or_exit,
)
from exporter.cli._cores import jobs_option, readers_of
from exporter.cli.decode import Tally, lines_of
from exporter.cli.run import start_logging
from exporter.derive import points
from exporter.derive.deriver import Deriver
from exporter.model import point
from exporter.model.reading import Placed
from exporter.outbox.queue import OutboxError
from exporter.pipeline.decoder import Heard, Outcome
from exporter.pipeline.learned import Lines
from exporter.pipeline.placing import Placer
from exporter.sources.capture.forms import NotACapture
from exporter.sources.capture.reader import CaptureParser

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.sinks.influx.bulk_writer import Poster
    from exporter.sinks.influx.hours import StoredHours


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@jobs_option
@influx_options
@config_option
def import_(files: tuple[Path, ...], config: Path | None, jobs: int | None, **overrides: str | None) -> None:
    """Put the captures FILES into InfluxDB as `run` would have written them.

    Time stamps in a capture say when a reading was received; without them the meter's own clock does, and readings
    without any time are counted and left out. The same file always gives the same points: importing it again changes
    nothing, so an import that was broken off is simply repeated.

    Exit code 0: all is in InfluxDB. 1: something was rejected. 2: a file, the settings or InfluxDB cannot be used.
    """
    settings = settings_or_exit(config, **overrides)
    start_logging(settings)
    from exporter.sinks.influx.bulk_writer import GaveUp, Poster
    from exporter.sinks.influx.hours import StoredHours

    client = client_or_exit(settings)
    poster, stored = Poster(client, say), StoredHours(client)
    hours = Hours(settings.outbox_path)
    codes = []
    for file in files:
        try:
            codes.append(_import(file, settings, poster, hours, stored, jobs))
        except NotACapture as error:
            say(f"{file}: {error.words}; no HDLC frame in it")
            codes.append(EXIT_UNUSABLE)
        except OSError as error:
            say(f"{file} cannot be read: {error.strerror or error}")
            codes.append(EXIT_UNUSABLE)
        except GaveUp as problem:
            poster.close()
            give_up(f"{problem}. What was imported stays; import the same file again, nothing comes twice.")
        except BaseException:
            poster.close()
            raise
    poster.close()
    raise SystemExit(max(codes))


def _import(file: Path, settings: Settings, poster: Poster, hours: Hours, stored: StoredHours, jobs: int | None) -> int:
    tally = Tally()
    rejected_before, written_before = poster.rejected, poster.written
    deriver = Deriver(settings, hours.get, others=stored, imported=True)
    parser = CaptureParser()
    in_order: dict[str, str] = {}  # the newest of lines that have versions, by series and time: they go last
    with file.open("rb") as stream, _progress(file) as progress:
        for lines in _lines_of(stream, parser, file.name, settings, tally, deriver, in_order, jobs):
            if poster.take(lines):
                progress.at(parser.fed)
        poster.finish()
        poster.post([*in_order.values()])
        months = list(deriver.months())
        hours.put(deriver.hours_state())  # first, so that a service that runs beside has them in its months too
        poster.post(months)
        progress.at(parser.fed)
    if tally.frames == 0 and not tally.damaged_frames:
        say(f"{file}: no HDLC frame in it ({tally.octets} octets of something else)")
        return EXIT_UNUSABLE
    rejected = poster.rejected - rejected_before
    say(f"{tally.summary(str(file))}; {poster.written - written_before} points in InfluxDB")
    if rejected:
        say(f"{rejected} points were rejected by InfluxDB: {'; '.join(poster.words)}")
    return EXIT_OK if not rejected and tally.exit_code == EXIT_OK else EXIT_REJECTED


def _lines_of(
    stream: BinaryIO,
    parser: CaptureParser,
    source: str,
    settings: Settings,
    tally: Tally,
    deriver: Deriver,
    in_order: dict[str, str],
    jobs: int | None,
) -> Iterator[list[str]]:
    placer = Placer(source, zone=settings.zone, fallback=settings.meter_id)

    def read(placed: Placed) -> Iterator[str]:
        for line in _point_lines(placed, tally, deriver):
            if point.is_replaced(line):
                series, _, rest = line.partition(" value=")
                in_order[f"{series} {rest.rpartition(' ')[2]}"] = line
            else:
                yield line

    def slowly(outcome: Outcome) -> Iterator[str]:
        tally.count(outcome)
        if isinstance(outcome, Heard):
            for placed in placer.place(outcome.reading):
                yield from read(placed)

    lines = Lines(placer, slowly, settings.zone, deriver)
    yield from lines_of(stream, parser, lines, tally, readers_of(stream, jobs, settings.zone, settings))
    yield [line for placed in placer.give_up() for line in read(placed)]
    tally.nameless = placer.left_out


def _point_lines(placed: Placed, tally: Tally, deriver: Deriver) -> list[str]:
    if placed.time is None:
        tally.without_time += 1
        return []
    return [*points.lines(placed), *deriver.of(placed)]


class Hours:
    """The hour registers that the outbox of this computer knows, and those that this import adds to them.

    Without an outbox that can be used the import goes on, and knows only its own.
    """

    def __init__(self, outbox: Path) -> None:
        from exporter.outbox.shared_state import SharedState

        self._own: dict[str, str] = {}
        self._shared: SharedState | None = None
        try:
            self._shared = SharedState(outbox, point.replaced_key)
        except (OutboxError, OSError) as error:
            say(f"Note: {error}; the hours of this import are not remembered")

    def get(self, key: str) -> str | None:
        """What is kept under a key of the state."""
        return self._own.get(key) if self._shared is None else self._shared.get(key)

    def put(self, state: Mapping[str, str]) -> None:
        """Keep what a file added: for each key a JSON object that is united with the one there."""
        self._own.update(state)
        if self._shared is not None:
            try:
                self._shared.put(state)
            except OutboxError as error:
                say(f"Note: {error}; the hours of this import are not remembered")


class _Bar(Protocol):
    def at(self, octets: int) -> None: ...


class _NoBar:
    def at(self, octets: int) -> None:
        pass


def _progress(file: Path) -> AbstractContextManager[_Bar]:
    """A progress bar by octets of the file, where someone looks."""
    return _ShownBar(file) if sys.stderr.isatty() else nullcontext(_NoBar())


class _ShownBar(AbstractContextManager[_Bar]):
    def __init__(self, file: Path) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(file.name, total=file.stat().st_size or None)

    def at(self, octets: int) -> None:
        self._progress.update(self._task, completed=octets)

    def __enter__(self) -> _ShownBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
