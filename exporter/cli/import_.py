"""`import`: put captures into InfluxDB, straight from the file."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

import click

from exporter import points
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
from exporter.cli.decode import Tally, lines_of
from exporter.cli.run import start_logging
from exporter.deriving import Deriver
from exporter.intake import Heard, Outcome
from exporter.layouts import Lines
from exporter.outbox import OutboxError
from exporter.placing import Placed, Placer
from exporter.sources.capture_file import read_capture
from exporter.sources.capture_form import NotACapture

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.influx.client import Client

_BATCH_LINES: Final = 5000
_BATCH_OCTETS: Final = 1 << 20
"""Some 12 000 lines, of which InfluxDB takes more in a second than of smaller batches."""
_CONNECTIONS: Final = 2
_SWITCH_S: Final = 0.0005
"""A thread that posts waits so long for its turn, while lines are made: 5 ms leave the server idle between batches."""
_UNDER_WAY: Final = 4
"""Batches that wait or are being posted."""
_PATIENCE_S: Final = 60.0
_WORDS_SHOWN: Final = 5


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@influx_options
@config_option
def import_(files: tuple[Path, ...], config: Path | None, **overrides: str | None) -> None:
    """Put the captures FILES into InfluxDB as `run` would have written them.

    Time stamps in a capture say when a reading was received; without them the meter's own clock does, and readings
    without any time are counted and left out. The same file always gives the same points: importing it again changes
    nothing, so an import that was broken off is simply repeated.

    Exit code 0: all is in InfluxDB. 1: something was rejected. 2: a file, the settings or InfluxDB cannot be used.
    """
    settings = settings_or_exit(config, **overrides)
    start_logging(settings)
    poster = Poster(client_or_exit(settings))
    hours = Hours(settings.outbox_path)
    codes = []
    for file in files:
        try:
            codes.append(_import(file, settings, poster, hours))
        except NotACapture as error:
            say(f"{file}: {error.words}; no HDLC frame in it")
            codes.append(EXIT_UNUSABLE)
        except OSError as error:
            say(f"{file} cannot be read: {error.strerror or error}")
            codes.append(EXIT_UNUSABLE)
        except BaseException:
            poster.close()
            raise
    poster.close()
    raise SystemExit(max(codes))


def _import(file: Path, settings: Settings, poster: Poster, hours: Hours) -> int:
    tally = Tally()
    rejected_before, written_before = poster.rejected, poster.written
    deriver = Deriver(settings, hours.get, others=poster.stored_hours, imported=True)
    in_order: list[str] = []  # lines of which others may be newer versions: they go last, and one behind the other
    with file.open("rb") as stream, _progress(file) as progress:
        for lines in _lines_of(stream, file.name, settings, tally, deriver, in_order):
            if poster.take(lines):
                progress.at(stream.tell())
        poster.finish()
        poster.post(in_order)
        months = list(deriver.months())
        hours.put(deriver.hours_state())  # first, so that a service that runs beside has them in its months too
        poster.post(months)
        progress.at(stream.tell())
    if tally.frames == 0 and not tally.damaged_frames:
        say(f"{file}: no HDLC frame in it ({tally.octets} octets of something else)")
        return EXIT_UNUSABLE
    rejected = poster.rejected - rejected_before
    say(f"{tally.summary(str(file))}; {poster.written - written_before} points in InfluxDB")
    if rejected:
        say(f"{rejected} points were rejected by InfluxDB: {'; '.join(poster.words)}")
    return EXIT_OK if not rejected and tally.exit_code == EXIT_OK else EXIT_REJECTED


def _lines_of(
    stream: BinaryIO, source: str, settings: Settings, tally: Tally, deriver: Deriver, in_order: list[str]
) -> Iterator[list[str]]:
    placer = Placer(source, zone=settings.zone, fallback=settings.meter_id)

    def read(placed: Placed) -> Iterator[str]:
        for line in _point_lines(placed, tally, deriver):
            if points.is_replaced(line):
                in_order.append(line)
            else:
                yield line

    def slowly(outcome: Outcome) -> Iterator[str]:
        tally.count(outcome)
        if isinstance(outcome, Heard):
            for placed in placer.place(outcome.reading):
                yield from read(placed)

    yield from lines_of(read_capture(stream), Lines(placer, slowly, settings.zone, deriver), tally)
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
        from exporter.shared_state import SharedState

        self._own: dict[str, str] = {}
        self._shared: SharedState | None = None
        try:
            self._shared = SharedState(outbox)
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


class Poster:
    """Posts batches over two connections, waits for an InfluxDB that is away for a moment, sets bad lines apart."""

    def __init__(self, client: Client) -> None:
        from exporter.influx.hours import StoredHours

        self._client = client
        self.stored_hours = StoredHours(client)
        self.written = 0
        self.rejected = 0
        self.words: list[str] = []
        self._gathered: list[str] = []
        self._octets = 0
        self._pool = ThreadPoolExecutor(_CONNECTIONS)
        sys.setswitchinterval(_SWITCH_S)
        self._under_way: deque[Future[None]] = deque()
        self._lock = threading.Lock()

    def take(self, texts: Sequence[str]) -> bool:
        """Take texts of a line or more, in no order; True when a batch has gone off. Ends the command as `post`."""
        self._gathered += texts
        self._octets += sum(map(len, texts))
        if self._octets < _BATCH_OCTETS:
            return False
        self._go()
        return True

    def finish(self) -> None:
        """Wait until all that was taken is in InfluxDB."""
        self._go()
        while self._under_way:
            self._under_way.popleft().result()

    def post(self, lines: Sequence[str]) -> None:
        """Post lines in their order; ends the command in words when InfluxDB cannot be used."""
        for start in range(0, len(lines), _BATCH_LINES):
            self._post(lines[start : start + _BATCH_LINES])

    def close(self) -> None:
        """Leave what has not gone off."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _go(self) -> None:
        batch, self._gathered, self._octets = self._gathered, [], 0
        while len(self._under_way) >= _UNDER_WAY or (self._under_way and self._under_way[0].done()):
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(self._post, batch))

    def _post(self, texts: Sequence[str]) -> None:
        import tenacity

        from exporter.influx.answers import Verdict

        if not texts:
            return
        outcome = tenacity.Retrying(
            retry=tenacity.retry_if_result(lambda outcome: outcome.verdict is Verdict.RETRY),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=10),
            stop=tenacity.stop_after_delay(_PATIENCE_S),
            before_sleep=lambda state: say(f"{state.outcome.result().words}; trying again") if state.outcome else None,
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )(self._client.write, texts)
        lines = [line for text in texts for line in text.split("\n")] if outcome.verdict is not Verdict.TAKEN else []
        if outcome.verdict is Verdict.TAKEN:
            with self._lock:
                self.written += len(texts) + sum(text.count("\n") for text in texts)
        elif (outcome.verdict is Verdict.BAD_LINES or outcome.too_large) and len(lines) > 1:
            middle = len(lines) // 2
            self._post(lines[:middle])
            self._post(lines[middle:])
        elif outcome.verdict is Verdict.BAD_LINES:
            with self._lock:
                self.rejected += 1
                if len(self.words) < _WORDS_SHOWN:
                    self.words.append(outcome.words)
        else:
            give_up(f"{outcome.words}. What was imported stays; import the same file again, nothing comes twice.")


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
