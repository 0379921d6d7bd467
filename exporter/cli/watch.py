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
from exporter.live.state import Level, LiveState
from exporter.live.view import ShownLimits, View
from exporter.model.reading import Placed
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.pipeline import NoState, Pipeline, Purpose
from exporter.sources.contract import Chunk, Happened, Source, SourceError, SourceEvent

if TYPE_CHECKING:
    from rich.console import Console, Group

    from exporter.config import Settings

__all__ = ["Watching", "limits_of", "watch"]

_REFRESH: Final = 0.5
_QUICKEST: Final = 0.1
_JOIN: Final = 2.0
_QUEUED: Final = 256


@dataclass(frozen=True, slots=True)
class _Came:
    """A chunk, and when it came (monotonic). `recalled`: the meter sent it before we listened."""

    chunk: Chunk
    at: float
    recalled: bool = False


_Item: TypeAlias = _Came | SourceEvent | None
"""None: the source ended."""


@dataclass
class Watching:
    """One source's bytes into a LiveState."""

    source: Source
    settings: Settings
    state: LiveState = field(init=False)

    def __post_init__(self) -> None:
        self.state = LiveState(self.source.name, began=time.monotonic())
        # A list that names no meter is not kept waiting for one that does: here it is shown, not stored.
        self._pipeline = Pipeline(
            self.source.name, self.settings, NoState(), HostClock(), purpose=Purpose.SHOW, waits=False
        )

    def take(self, item: _Item) -> list[Placed]:
        """Take what came; give the readings that came with it."""
        if item is None:
            self.state.ended = True
            return self._end(time.monotonic())
        if isinstance(item, SourceEvent):
            self.state.happen(item)
            return self._end(time.monotonic()) if item.what is Happened.LOST else []
        if not item.recalled:
            self.state.hear(len(item.chunk.data), item.at)
        fed = self._pipeline.feed((item.chunk,), more=True)
        if not item.recalled:
            for outcome in fed.outcomes:
                self.state.count(outcome, item.at)
        self.state.left_out = self._pipeline.left_out
        for placed in fed.placed:
            self.state.take(placed, item.at, item.recalled)
        return fed.placed

    def _end(self, at: float) -> list[Placed]:
        for outcome in self._pipeline.interrupted().outcomes:
            self.state.count(outcome, at)
        return []


class _Reader:
    """Reads the source in a thread of its own; what came is in `items`, an error is raised by `raise_error`."""

    def __init__(self, source: Source, recall: bool) -> None:
        self.stop = threading.Event()
        self.items: queue.Queue[_Item] = queue.Queue(_QUEUED)
        self._source, self._recall = source, recall
        self._done: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)
        self._thread.start()

    def raise_error(self) -> None:
        """Raise what the source raised, if it ended by that. Only after the end of `items`."""
        if self._done.done():
            self._done.result()

    def end(self) -> None:
        """Let the source stop, which it does within a second."""
        self.stop.set()
        self._thread.join(_JOIN)

    def _run(self) -> None:
        try:
            for came in _recalled(self._source) if self._recall else ():
                self._put(came)
            for chunk in self._source.chunks(self.stop, self._put):
                self._put(_Came(chunk, time.monotonic()))
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


def _recalled(source: Source) -> Iterator[_Came]:
    """What a simulated meter sent since the full hour, ten minutes at least: it can be asked, others cannot."""
    from exporter.simulator.meter import List
    from exporter.sources.sim import SimSource

    if not isinstance(source, SimSource) or source.backfill:
        return
    began = datetime.now(UTC)
    since = min(began.replace(minute=0, second=0, microsecond=0), began - timedelta(minutes=10))
    for moment, octets in source.meter.frames(since, None, frozenset({List.HOURLY, List.TEN_SECONDS})):
        age = (datetime.now(UTC) - moment).total_seconds()
        if age < 0:
            return
        yield _Came(Chunk(octets, moment), time.monotonic() - age, recalled=True)


@click.command()
@click.argument("source", required=False)
@click.option("--plain", is_flag=True, help="One line a reading, without colour; as when the output is no terminal.")
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

    When the output is no terminal, or NO_COLOR is set, each reading is one plain line. Nothing is stored.

    Exit code: 0 when a reading was shown or Ctrl-C ended it, 1 when there was none, 2 when it could not be done.
    """
    settings = settings_or_exit(config)
    if source is None and not settings.sources:
        give_up("Give a source, for example: han-exporter watch /dev/ttyUSB0, or sim: for a simulated meter")
    try:
        from exporter.sources.open import open_source

        opened = open_source(source or settings.sources[0], zone=settings.zone)
        interrupted, state = _watch(opened, settings, _Until(seconds, readings), plain)
    except SourceError as error:
        give_up(f"Cannot watch: {error}")
    if not state.readings and not interrupted:
        say(f"No reading came: {state.condition(time.monotonic()).words}")
    ctx.exit(EXIT_OK if state.readings or interrupted else EXIT_REJECTED)


@dataclass(frozen=True, slots=True)
class _Until:
    """When to end without being told: after seconds, or after readings."""

    seconds: float | None
    readings: int | None


def _watch(source: Source, settings: Settings, until: _Until, plain: bool) -> tuple[bool, LiveState]:
    """Watch until the end; give whether a signal made it, and the state then."""
    watching = Watching(source, settings)
    view = View(settings.zone, lambda meter_id: limits_of(settings, meter_id))
    console = None if plain else _terminal()
    with _signals() as interrupted:
        reader = _Reader(source, recall=console is not None)
        try:
            show = _Plain(watching, view) if console is None else _Screen(watching, view, console)
            with show:
                _loop(watching, reader, show, until, interrupted)
        finally:
            reader.end()
        reader.raise_error()
    return interrupted.is_set(), watching.state


def _loop(watching: Watching, reader: _Reader, show: _Show, until: _Until, interrupted: threading.Event) -> None:
    """Take what comes and show it, until the source ends, `until`, or a signal."""
    state, now = watching.state, time.monotonic()
    ends = float("inf") if until.seconds is None else now + until.seconds
    most = float("inf") if until.readings is None else until.readings
    shown, due = now, now + _QUICKEST  # what the source says at once is shown at once
    while not interrupted.is_set() and now < ends and state.readings < most:
        if now >= due:
            show.tick(now)
            shown, due = now, now + _REFRESH
        try:
            item = reader.items.get(timeout=max(min(due, ends) - now, 0))
        except queue.Empty:
            now = time.monotonic()
            continue
        before = state.readings
        for each, _ in zip(watching.take(item), _counted(before, most), strict=False):
            show.took(each)
            due = min(due, shown + _QUICKEST)
        if item is None:
            return
        now = time.monotonic()


def _counted(start: int, most: float) -> Iterator[int]:
    while start < most:
        yield start
        start += 1


class _Show(Protocol):
    """Where a state is shown."""

    def took(self, placed: Placed) -> None:
        """A reading came."""
        ...

    def tick(self, now: float) -> None:
        """Time to show the state."""
        ...

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...


class _Plain:
    """Readings as lines on standard output, the state of the source on standard error when it changes."""

    def __init__(self, watching: Watching, view: View) -> None:
        self._watching, self._view = watching, view
        self._told = ""
        self._was_wrong = False

    def took(self, placed: Placed) -> None:
        click.echo(self._view.plain_line(placed))  # which flushes

    def tick(self, now: float) -> None:
        condition = self._watching.state.condition(now)
        if condition.kind == self._told or not self._watching.source.live:
            return
        self._told = condition.kind
        if condition.level is not Level.WELL or self._was_wrong:
            say(f"{self._watching.source.name}: {condition.words}")
        self._was_wrong = condition.level is Level.WRONG

    def __enter__(self) -> _Plain:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was changed, so nothing is to be restored."""


class _Screen:
    """The state on the terminal's other screen; what was there comes back at the end, with the last state below."""

    def __init__(self, watching: Watching, view: View, console: Console) -> None:
        from rich.live import Live

        self._watching, self._view, self._console = watching, view, console
        # A file that is read at once has nothing to wait for: it is shown where the cursor is, and stays.
        self._other_screen = watching.source.live
        self._live = Live(console=console, screen=self._other_screen, auto_refresh=False, redirect_stderr=False)
        self._handler = _Noted(watching.state)

    def took(self, placed: Placed) -> None:
        """The next tick shows it."""

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
    """Warnings become a line of the view: on the terminal they would tear it."""

    def __init__(self, state: LiveState) -> None:
        super().__init__(logging.WARNING)
        self._state = state

    def emit(self, record: logging.LogRecord) -> None:
        self._state.note = record.getMessage()


def _terminal() -> Console | None:
    """The terminal, or None where plain lines are wanted: no terminal, a dumb one, no colours, no block characters."""
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
    """An event that SIGINT and SIGTERM set, so that whatever ends the view, the terminal is put right."""
    interrupted = threading.Event()
    before = {number: signal.signal(number, lambda *_: interrupted.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
