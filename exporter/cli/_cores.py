"""A large capture on several cores: processes read ahead, and this one takes what they read in the file's order."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import click

from exporter.pipeline.learned import Lines, ReadAhead
from exporter.sources.capture.forms import Form
from exporter.sources.capture.reader import CaptureParser

if TYPE_CHECKING:
    from concurrent.futures import Future

    from exporter.cli._readers import Readers
    from exporter.config import Settings
    from exporter.model.reading import Zone

__all__ = ["jobs_option", "lines_ahead", "readers_of"]

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
    if not jobs:
        return nullcontext()
    from exporter.cli._readers import Readers

    return Readers(jobs, zone, settings)


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
            yield lines.feed(chunk.data, chunk.received)
