"""`han-exporter watch`: show a meter live in the terminal; needs no server."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import click

from exporter.cli._common import EXIT_OK, EXIT_REJECTED, config_option, give_up, say, settings_or_exit
from exporter.live.state import LiveState
from exporter.live.view import ShownLimits, View
from exporter.model.reading import Placed
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.link import Level, Link
from exporter.pipeline.pipeline import NoState, Pipeline, Purpose
from exporter.sources.contract import Chunk, Happened, Source, SourceError, SourceEvent

if TYPE_CHECKING:
    from rich.console import Console, Group

    from exporter.config import Settings

__all__ = ["Received", "Watching", "limits_of", "watch"]

_REFRESH: Final = 0.5
"""Seconds between two states that are shown."""
_QUICKEST: Final = 0.1
"""As _REFRESH, when a reading came."""
_JOIN: Final = 2.0
_QUEUED: Final = 256


@dataclass(frozen=True, slots=True)
class Received:
    """A chunk, and when it was received (monotonic). `recalled` chunks were sent before `watch` was listening."""

    chunk: Chunk
    at: float
    recalled: bool = False


_Item: TypeAlias = Received | SourceEvent | None
"""None: the source ended, or failed."""


@dataclass
class Watching:
    """One source and what is known of it: the bytes become a Link and a LiveState. `url` is the source as given.

    The view shows what the link says, so that nothing of it is logged.
    """

    source: Source
    settings: Settings
    url: str = ""
    link: Link = field(init=False)
    state: LiveState = field(init=False)

    def __post_init__(self) -> None:
        name = self.source.name
        self.link = Link(name, self.url or name, quiet=True)
        self.state = LiveState(self.link)
        # A list without a meter id does not wait for one with it: it is shown now, and not stored.
        self._pipeline = Pipeline(name, self.settings, NoState(), HostClock(), purpose=Purpose.SHOW, waits=False)

    def take(self, item: _Item) -> list[Placed]:
        """Take the next item, and return its readings."""
        if item is None:
            self._pipeline.interrupted()
            self.link.ended()
            return []
        if isinstance(item, SourceEvent):
            if item.what is Happened.LOST:
                self._pipeline.interrupted()
            self.link.happened(item)
            return []
        self._pipeline.count_in(None if item.recalled else self.link)
        fed = self._pipeline.feed((item.chunk,), more=True)
        for placed in fed.placed:
            self.state.take(placed, item.at, item.recalled)
        return fed.placed


class _Reader:
    """Reads the source in a thread, and puts everything into `items`. `raise_error` raises what ended it."""

    def __init__(self, source: Source, recall: bool) -> None:
        self.stop = threading.Event()
        self.items: queue.Queue[_Item] = queue.Queue(_QUEUED)
        self._source, self._recall = source, recall
        self._done: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)
        self._thread.start()

    def raise_error(self) -> None:
        """Raise the exception that ended the source, if any. Call it only after the end of `items`."""
        if self._done.done():
            self._done.result()

    def end(self) -> None:
        """Stop the source; that takes a second at most."""
        self.stop.set()
        self._thread.join(_JOIN)

    def _run(self) -> None:
        try:
            for received in _recalled(self._source) if self._recall else ():
                self._put(received)
            for chunk in self._source.chunks(self.stop, self._put):
                self._put(Received(chunk, time.monotonic()))
                if self.stop.is_set():
                    break
            self._done.set_result(None)
        except BaseException as error:  # noqa: BLE001 (it is the main thread's to handle)
            self._done.set_exception(error)
        finally:
            self._put(None)

    def _put(self, item: _Item) -> None:
        while not self.stop.is_set():
            try:
                self.items.put(item, timeout=_REFRESH)
            except queue.Full:
                continue
            return


def _recalled(source: Source) -> Iterator[Received]:
    """What a simulated meter sent since the full hour, and at least for ten minutes. No other source can tell that."""
    from exporter.simulator.meter import List
    from exporter.sources.sim import SimSource

    if not isinstance(source, SimSource) or source.backfill:
        return
    now = datetime.now(UTC)
    since = min(now.replace(minute=0, second=0, microsecond=0), now - timedelta(minutes=10))
    for moment, data in source.meter.frames(since, None, frozenset({List.HOURLY, List.TEN_SECONDS})):
        age = (datetime.now(UTC) - moment).total_seconds()
        if age < 0:
            return
        yield Received(Chunk(data, moment), time.monotonic() - age, recalled=True)


@click.command()
@click.argument("source", required=False)
@click.option(
    "--plain", is_flag=True, help="One line for each reading, without colours; also used if the output is no terminal."
)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after so many seconds.")
@click.option("--readings", type=click.IntRange(min=1), help="Stop after so many readings.")
@config_option
@click.pass_context
def watch(
    ctx: click.Context,
    source: str | None,
    plain: bool,
    seconds: float | None,
    readings: int | None,
    config: Path | None,
) -> None:
    """Show the meter on SOURCE live in the terminal, until Ctrl-C. Needs no server and no settings.

    SOURCE is what HAN_SOURCE takes: a port (/dev/ttyUSB0), socket://HOST:PORT, file:CAPTURE?pace=1, or sim: for a
    simulated meter. Without it the first of HAN_SOURCE is taken.

    If the output is no terminal, or NO_COLOR is set, each reading is one plain line. Nothing is stored.

    Exit code 0: a reading was shown, or Ctrl-C ended it. 1: there was no reading. 2: the source cannot be read.
    """
    settings = settings_or_exit(config)
    if source is None and not settings.sources:
        give_up("Give a source, for example: han-exporter watch /dev/ttyUSB0, or sim: for a simulated meter")
    url = source or settings.sources[0]
    try:
        from exporter.sources.open import open_source

        watching = Watching(open_source(url, zone=settings.zone), settings, url)
        interrupted = _watch(watching, _Until(seconds, readings), plain)
    except SourceError as error:
        give_up(f"Cannot watch: {error}")
    if watching.link.counts.readings or interrupted:
        ctx.exit(EXIT_OK)
    say(f"No reading came: {watching.state.condition(time.monotonic()).message}")
    ctx.exit(EXIT_REJECTED)


@dataclass(frozen=True, slots=True)
class _Until:
    """When to end: after so many seconds, or after so many readings. None: no limit."""

    seconds: float | None
    readings: int | None


def _watch(watching: Watching, until: _Until, plain: bool) -> bool:
    """Watch until the end; return whether a signal ended it."""
    settings = watching.settings
    view = View(settings.zone, lambda meter_id: limits_of(settings, meter_id))
    console = None if plain else _terminal()
    with _signals() as interrupted:
        reader = _Reader(watching.source, recall=console is not None)
        try:
            show = _Plain(watching, view) if console is None else _Screen(watching, view, console)
            with show:
                _loop(watching, reader, show, until, interrupted)
        finally:
            reader.end()
        reader.raise_error()
    return interrupted.is_set()


def _loop(watching: Watching, reader: _Reader, show: _Show, until: _Until, interrupted: threading.Event) -> None:
    """Take items and show them, until the source ends, `until`, or a signal."""
    counts, now = watching.link.counts, time.monotonic()
    ends = float("inf") if until.seconds is None else now + until.seconds
    most = float("inf") if until.readings is None else until.readings
    shown, due = now, now + _QUICKEST  # so that an event of the start is shown at once
    while not interrupted.is_set() and now < ends and counts.readings < most:
        if now >= due:
            show.tick(now)
            shown, due = now, now + _REFRESH
        try:
            item = reader.items.get(timeout=max(min(due, ends) - now, 0))
        except queue.Empty:
            now = time.monotonic()
            continue
        before = counts.readings
        for each, _ in zip(watching.take(item), _up_to(before, most), strict=False):
            show.took(each)
            due = min(due, shown + _QUICKEST)
        if item is None:
            return
        now = time.monotonic()


def _up_to(start: int, most: float) -> Iterator[int]:
    while start < most:
        yield start
        start += 1


class _Show(Protocol):
    """Shows a state."""

    def took(self, placed: Placed) -> None:
        """Show a reading."""
        ...

    def tick(self, now: float) -> None:
        """Show the state."""
        ...

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...


class _Plain:
    """Prints each reading on standard output, and each change of the source on standard error."""

    def __init__(self, watching: Watching, view: View) -> None:
        self._watching, self._view = watching, view
        self._shown = ""  # kind of the last condition
        self._was_wrong = False

    def took(self, placed: Placed) -> None:
        click.echo(self._view.plain_line(placed))  # which flushes

    def tick(self, now: float) -> None:
        condition = self._watching.state.condition(now)
        if condition.kind == self._shown or not self._watching.source.live:
            return
        self._shown = condition.kind
        if condition.level is not Level.WELL or self._was_wrong:
            say(condition.message)
        if condition.level is not Level.WAITING:
            self._was_wrong = condition.level is Level.WRONG

    def __enter__(self) -> _Plain:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was changed, so there is nothing to restore."""


class _Screen:
    """Shows the state on the other screen of the terminal. At the end the first one comes back, with the last state."""

    def __init__(self, watching: Watching, view: View, console: Console) -> None:
        from rich.live import Live

        self._watching, self._view, self._console = watching, view, console
        # A file that is read at full speed is shown once, where the cursor is.
        self._other_screen = watching.source.live
        self._live = Live(console=console, screen=self._other_screen, auto_refresh=False, redirect_stderr=False)
        self._handler = _Noted(watching.state)

    def took(self, placed: Placed) -> None:
        """Do nothing: the next tick shows it."""

    def tick(self, now: float) -> None:
        self._live.update(self._rendered(now), refresh=True)

    def __enter__(self) -> _Screen:
        logging.getLogger("exporter").addHandler(self._handler)
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        shown = self._watching.state.newest is not None
        if shown and not self._other_screen:
            self.tick(time.monotonic())
        self._live.stop()
        logging.getLogger("exporter").removeHandler(self._handler)
        if shown and self._other_screen:
            self._console.print(self._rendered(time.monotonic()))

    def _rendered(self, now: float) -> Group:
        return self._view.render(self._watching.state, self._console.width, self._console.height, now)


class _Noted(logging.Handler):
    """Makes warnings a line of the view. Printed on the terminal, they would disturb it."""

    def __init__(self, state: LiveState) -> None:
        super().__init__(logging.WARNING)
        self._state = state

    def emit(self, record: logging.LogRecord) -> None:
        self._state.note = record.getMessage()


def _terminal() -> Console | None:
    """The terminal. None for plain lines: no terminal, or one without colours or block characters."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return None
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        return None
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def limits_of(settings: Settings, meter_id: str) -> ShownLimits:
    """The limits of a meter in the settings."""
    limits, own = settings.limits(meter_id), settings.meter.get(meter_id)
    of_this_meter = own is not None and own.main_fuse_a is not None
    fuse_is_set = of_this_meter or "main_fuse_a" in settings.model_fields_set
    return ShownLimits(limits.main_fuse_a, limits.voltage_min, limits.voltage_max, fuse_is_set)


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set. So the view always ends in the same way, and restores the terminal."""
    interrupted = threading.Event()
    before = {number: signal.signal(number, lambda *_: interrupted.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
