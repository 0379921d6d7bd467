"""Captures as commands read them: fed to a pipeline block by block, counted, with a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from exporter.cli._common import EXIT_OK, EXIT_REJECTED, EXIT_UNUSABLE, say
from exporter.pipeline.decoder import Decoded, Outcome, Undecoded
from exporter.pipeline.pipeline import Fed, Pipeline
from exporter.protocol.framing import Kind, Rejected
from exporter.protocol.hdlc import MAX_FRAME
from exporter.sources.capture.reader import BLOCK, CaptureParser

__all__ = ["Bar", "Tally", "feed_capture", "progress"]

_A_FRAME_IT_WAS: Final = frozenset({Kind.FCS, Kind.CLOSING_FLAG, Kind.BROKEN_OFF, Kind.INCOMPLETE})
_HEADER_SIZE: Final = 8
"""Flag, format, two addresses, control and HCS: fewer bytes than these at the end of a file prove no frame."""


def feed_capture(stream: BinaryIO, parser: CaptureParser, pipeline: Pipeline) -> Iterator[Fed]:
    """What a capture brings, block by block to its end; damaged lines of a text capture are reported as they come.

    Raises NotACapture for a file that is none, and OSError as reading does.
    """
    reported = 0
    read = getattr(stream, "read1", stream.read)  # a pipe hands over what is there; a file, a block
    while data := read(BLOCK):
        yield pipeline.feed(parser.feed(data), more=True)
        reported = _report_problems(parser, reported)
    yield pipeline.feed(parser.end(), more=True)
    _report_problems(parser, reported)
    yield pipeline.interrupted()
    yield pipeline.end()


def _report_problems(parser: CaptureParser, reported: int) -> int:
    for problem in parser.problems[reported:]:
        say(str(problem))
    return len(parser.problems)


class Tally:
    """What came out of a capture, and whether it can be held against it."""

    def __init__(self) -> None:
        self.size = 0
        self.frames = 0
        self.undecoded = 0
        self.reason = ""
        self.rejected = 0
        self.damaged_frames = 0
        self.damaged_lines = 0
        self.without_time = 0
        self.nameless = 0
        self._held = 0

    def count(self, outcome: Outcome) -> None:
        """Take the next outcome of the stream."""
        if isinstance(outcome, Decoded):
            return
        if isinstance(outcome, Undecoded):
            self.undecoded += 1
            self.reason = outcome.reason
        elif outcome.kind is not Kind.FILL:
            self._count_rejected(outcome)

    def _count_rejected(self, rejected: Rejected) -> None:
        self.rejected += 1
        self.damaged_frames += rejected.kind in _A_FRAME_IT_WAS and rejected.size >= _HEADER_SIZE
        cut_start = rejected.offset == 0 and rejected.kind is Kind.NOISE and rejected.size < MAX_FRAME - 1
        if not cut_start and rejected.kind is not Kind.INCOMPLETE:
            self._held += 1

    def close(self, parser: CaptureParser, pipeline: Pipeline) -> None:
        """The capture was read to its end."""
        self.size, self.frames = pipeline.counts.size, pipeline.counts.messages
        self.without_time, self.nameless = pipeline.counts.without_time, pipeline.left_out
        self.damaged_lines = parser.damaged

    @property
    def is_no_capture(self) -> bool:
        """Whether there was no frame, not even a damaged one."""
        return self.frames == 0 and not self.damaged_frames

    @property
    def exit_code(self) -> int:
        """0 when everything decoded, 1 when not, 2 when there was no frame."""
        if self.frames == 0:
            return EXIT_REJECTED if self.damaged_frames else EXIT_UNUSABLE
        return EXIT_REJECTED if self._held or self.undecoded or self.damaged_lines else EXIT_OK

    def summary(self, name: str) -> str:
        """One line for a person."""
        parts = [f"{self.frames} frame{'s' * (self.frames != 1)}"]
        for count, words in (
            (self.undecoded, f"of them not readable ({self.reason})"),
            (self.rejected, "rejected"),
            (self.damaged_lines, f"damaged line{'s' * (self.damaged_lines != 1)}"),
            (self.without_time, "without any time"),
            (self.nameless, "left out, since two meters send and these name none"),
        ):
            if count:
                parts.append(f"{count} {words}")
        return f"{name}: {', '.join(parts)}"


class Bar(Protocol):
    """A progress bar."""

    def at(self, size: int) -> None:
        """So many bytes of the file are read."""
        ...


class _NoBar:
    def at(self, size: int) -> None:
        pass


def progress(file: Path) -> AbstractContextManager[Bar]:
    """A progress bar by bytes of the file, where someone looks."""
    return _ShownBar(file) if sys.stderr.isatty() else nullcontext(_NoBar())


class _ShownBar(AbstractContextManager[Bar]):
    def __init__(self, file: Path) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(file.name, total=file.stat().st_size or None)

    def at(self, size: int) -> None:
        self._progress.update(self._task, completed=size)

    def __enter__(self) -> _ShownBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
