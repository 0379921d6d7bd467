"""A large capture on several cores: processes read ahead, and this one takes what they read in the file's order."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import cycle
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Self, TypeVar

import click

from exporter.layouts import Lines, ReadAhead
from exporter.sources.capture_file import CaptureParser
from exporter.sources.capture_form import Form

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.reading import Zone

__all__ = ["Readers", "jobs_option", "lines_ahead", "readers_of"]

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

_WORTH_IT: Final = 16 << 20
"""Octets of a capture from which on it is read on several cores: a process takes some tenths of a second to start."""
_PIECE: Final = 1 << 19
_LONGEST_LINE: Final = 1 << 17
_MOST: Final = 8
_OCTETS_EACH: Final = 150 << 20
"""Memory that must be there for each: they take some 50 MB, and the lines that wait for their turn 10."""
_ENOUGH: Final = 16
"""Pieces that tell whether reading ahead is of use."""


class Readers:
    """Processes that read ahead, each over a pipe of its own, so that it ends when this process does.

    One that ends for whatever reason reads nothing more, and what it would have read is read here.
    """

    def __init__(self, count: int, zone: Zone, settings: Settings | None = None) -> None:
        """`settings` where figures are to be derived, too."""
        self._readers: list[_Reader] = []
        try:
            for _ in range(count):
                self._readers.append(_Reader(zone, settings))
        except OSError as problem:
            log.debug("no more processes can be had: %s", problem)
        self._turns = cycle(self._readers)

    @property
    def count(self) -> int:
        """How many pieces they should have before them."""
        return 2 * len(self._readers)

    def give(self, piece: bytes, form: Form, lines: Lines) -> Future[Sequence[ReadAhead]]:
        """Have the next one read a piece; what it will have found. No exception comes of it."""
        return next(self._turns).give(piece, form, lines)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers:
            reader.close()


class _Reader:
    """One such process, and the thread that waits for it."""

    def __init__(self, zone: Zone, settings: Settings | None) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would take threads' locks along
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_read_ahead, args=(there, zone, settings), daemon=True)
        self._process.start()
        there.close()
        self._thread = ThreadPoolExecutor(1)
        self._known = 0

    def give(self, piece: bytes, form: Form, lines: Lines) -> Future[Sequence[ReadAhead]]:
        examples = lines.examples
        new, self._known = (examples if len(examples) != self._known else ()), len(examples)
        return self._thread.submit(self._ask, new, form, lines.meter_id, piece)

    def _ask(self, *what: object) -> Sequence[ReadAhead]:
        try:
            self._pipe.send(what)
            runs: Sequence[ReadAhead] = self._pipe.recv()
            return runs
        except (EOFError, OSError) as problem:
            log.debug("a process that reads ahead has ended (%r): the rest is read here", problem)
            return ()

    def close(self) -> None:
        self._process.terminate()
        self._thread.shutdown(wait=False, cancel_futures=True)


def jobs_option(command: F) -> F:
    """The option that says how many processes read."""
    words = "Processes that read a capture ahead, 0 for none. [default: for large files what cores and memory allow]"
    return click.option("--jobs", type=click.IntRange(0, 64), metavar="N", help=words)(command)


def readers_of(
    stream: BinaryIO, jobs: int | None, zone: Zone, settings: Settings | None = None
) -> AbstractContextManager[Readers | None]:
    """As many as were asked for, or with `jobs` None as a file is worth on this machine.

    With `settings`, which derive figures, one core is left to who takes the lines.
    """
    if jobs is None:
        jobs = 0 if _size(stream) < _WORTH_IT else _affordable(_cores() - (settings is not None))
    return Readers(jobs, zone, settings) if jobs else nullcontext()


def _size(stream: BinaryIO) -> int:
    """Octets of a file, 0 of what is none."""
    try:
        about = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return 0
    return about.st_size if stat.S_ISREG(about.st_mode) else 0


def _cores() -> int:
    """Those that this process may use; one core alone is better off with one process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if cores > 1 else 0


def _affordable(count: int) -> int:
    """So many as there is memory for, where that is told."""
    try:
        told = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        octets = int(told["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return min(count, _MOST)
    return max(0, min(count, _MOST, octets // _OCTETS_EACH))


def lines_ahead(stream: BinaryIO, parser: CaptureParser, lines: Lines, readers: Readers) -> Iterator[list[str]]:
    """The lines of the rest of a capture, up to where reading ahead turns out to be of no use, if it does.

    `parser` and `lines` are those that were fed what lies before, and are fed the rest.
    """
    form = parser.form
    if form not in (Form.RAW, Form.STAMPED):
        return
    given: deque[tuple[bytes, Future[Sequence[ReadAhead]]]] = deque()
    total = taken = 0
    while True:
        while len(given) < readers.count and (total < _ENOUGH * _PIECE or 2 * taken >= total):
            piece = _piece(stream, form)
            if not piece:
                break
            given.append((piece, readers.give(piece, form, lines)))
        if not given:
            break
        piece, runs = given.popleft()
        at = 0
        for run in runs.result():
            yield from _feed(piece[at : run.start], parser, lines)
            at = run.start
            texts = lines.take(run) if parser.is_between else None
            if texts is not None:
                parser.skip(run.size, run.rows)
                at += run.size
                taken += run.size
                yield texts
        yield from _feed(piece[at:], parser, lines)
        total += len(piece)


def _piece(stream: BinaryIO, form: Form) -> bytes:
    piece = stream.read(_PIECE)
    return piece + stream.readline(_LONGEST_LINE) if form is Form.STAMPED else piece


def _feed(octets: bytes, parser: CaptureParser, lines: Lines) -> Iterator[list[str]]:
    if octets:
        for chunk in parser.feed(octets):
            yield lines.feed(chunk.octets, chunk.received)


def _read_ahead(pipe: Connection, zone: Zone, settings: Settings | None) -> None:
    """What such a process does, until the other end of its pipe is closed."""
    from exporter.deriving import Deriver
    from exporter.layouts.ahead import Ahead

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is told to the process that reads in order
    ahead = Ahead(zone, None if settings is None else Deriver(settings, lambda _: None, imported=True))
    try:
        while True:
            examples, form, meter_id, piece = pipe.recv()
            ahead.learn(examples)
            pipe.send((ahead.raw if form is Form.RAW else ahead.stamped)(piece, meter_id))
    except (EOFError, OSError):
        pass  # nobody is there any more
