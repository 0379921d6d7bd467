"""A capture file as a source: `file:PATH`, `file:PATH?follow=1`, `file:PATH?pace=1`; `file:-` is standard input."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote

from exporter.sources.capture.forms import NotACapture
from exporter.sources.capture.reader import BLOCK, CaptureParser, Problem
from exporter.sources.contract import Chunk, Happened, Pause, Report, SourceError, SourceEvent

__all__ = ["FileSource"]

_LOOK: Final = 0.5
"""Seconds between looks at a followed file. A look costs two system calls, so the wait does not grow."""

_KEYS: Final = ("follow", "pace")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class FileSource:
    """The bytes of a capture.

    Without options it is read at full speed to its end; `live` is False. `received` is the time stamp in the capture,
    None without one.
    `follow` reads like tail -F from the start of the file, also over truncation and rotation, and waits for a file that
    does not exist yet. `live` is True. `received` is the time stamp; without one, the time of reading, but None for
    what was in the file at first.
    `pace` reads at the recorded speed to the end. `live` is True. `received` is the time stamp, so a recorded time.
    `problems` has the damaged lines of text captures, `damaged` their number.
    """

    def __init__(
        self,
        path: str,
        *,
        follow: bool = False,
        pace: bool = False,
        now: Callable[[], datetime] = _utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Pause = threading.Event.wait,
    ) -> None:
        if not path:
            raise SourceError("file: has no path; write file:PATH, or file:- for standard input")
        if follow and (pace or path == "-"):
            raise SourceError("follow=1 needs a file, and no pace=1: a file that is being written has its own pace")
        self.path = path
        self.name = "stdin" if path == "-" else Path(path).name
        self.live = follow or pace
        self._follow_it = follow
        self._pace = pace
        self._now = now
        self._monotonic = monotonic
        self._pause = pause
        self._parser = CaptureParser()

    @classmethod
    def from_url(cls, url: str) -> FileSource:
        """`file:PATH[?follow=1|pace=1]`; %20 and the like are decoded. Raises SourceError."""
        path, _, query = url.partition(":")[2].partition("?")
        asked = dict.fromkeys(_KEYS, False)
        for part in filter(None, query.split("&")):
            key, _, value = part.partition("=")
            if key not in asked or value not in ("0", "1"):
                raise SourceError(f"{url}: {part!r} is not known; a file takes follow=1 or pace=1")
            asked[key] = value == "1"
        # file:///home/me/x is another way to write file:/home/me/x.
        path = "/" + path.lstrip("/") if path.startswith("//") else path
        return cls(os.path.expanduser(unquote(path)), follow=asked["follow"], pace=asked["pace"])  # noqa: PTH111 (Path would normalise `-` and blanks)

    @property
    def problems(self) -> list[Problem]:
        """The first hundred damaged lines so far (with `follow`, of the file that is open now)."""
        return self._parser.problems

    @property
    def damaged(self) -> int:
        """How many lines were damaged so far."""
        return self._parser.damaged

    def chunks(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        """Yield the capture. Raises SourceError if it is unreadable, not a capture, or `pace` has no time stamps."""
        if self._follow_it:
            yield from self._follow(stop, report)
        elif self._pace:
            yield from self._paced(stop, self._read_once(stop, report))
        else:
            yield from self._read_once(stop, report)

    def _read_once(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        with self._open() as file, self._naming_the_file():
            report(SourceEvent(Happened.OPENED, f"reading {self._place}"))
            while self._ready(file, stop) and (data := file.read(BLOCK)):
                for chunk in self._parser.feed(data):
                    yield chunk
                    if stop.is_set():
                        return
            if not stop.is_set():
                yield from self._parser.end()

    def _ready(self, file: IO[bytes], stop: threading.Event) -> bool:
        """False when stopping. The wait for a silent pipe is short, so that `stop` is seen in time."""
        while not stop.is_set():
            if self.path != "-" or select.select([file], [], [], _LOOK)[0]:
                return True
        return False

    def _paced(self, stop: threading.Event, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        started, first, last = self._monotonic(), None, None
        for chunk in chunks:
            if chunk.received is None:
                raise SourceError(f"{self._place} has no time stamps, so its speed is not known; remove pace=1")
            if first is None or last is None or chunk.received < last:  # the clock of the recorder was set back
                started, first = self._monotonic(), chunk.received
            last = chunk.received
            due = started + (chunk.received - first).total_seconds()
            while (left := due - self._monotonic()) > 0 and not stop.is_set():
                self._pause(stop, left)
            if stop.is_set():
                return
            yield chunk

    def _follow(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        old = True  # what was in the file at first: it is not known when it came
        while (file := self._wait_for_file(stop, report)) is not None:
            with file, self._naming_the_file():
                yield from self._tail(file, stop, old)
            old = False
            self._parser = CaptureParser()

    def _wait_for_file(self, stop: threading.Event, report: Report) -> IO[bytes] | None:
        reported = False
        while not stop.is_set():
            if Path(self.path).exists():
                file = self._open()
                report(SourceEvent(Happened.OPENED, f"following {self._place}"))
                return file
            if not reported:
                report(SourceEvent(Happened.MISSING, f"{self._place} does not exist yet; waiting for it"))
                reported = True
            self._pause(stop, _LOOK)
        return None

    def _tail(self, file: IO[bytes], stop: threading.Event, old: bool) -> Iterator[Chunk]:
        """Yield until stopped, or until another file has the name or the file was truncated."""
        replaced = False
        while True:
            while not stop.is_set() and (data := file.read(BLOCK)):
                for chunk in self._parser.feed(data):
                    yield self._dated(chunk, old)
            old = False
            if stop.is_set():
                return
            if replaced:  # what was written between the last look and the rename has been read
                break
            replaced = self._is_replaced(file)
            if not replaced:
                self._pause(stop, _LOOK)
        if self._parser.fed:
            for chunk in self._parser.end():
                yield self._dated(chunk, old)

    def _dated(self, chunk: Chunk, old: bool) -> Chunk:
        return chunk if old or chunk.received is not None else chunk._replace(received=self._now())

    def _is_replaced(self, file: IO[bytes]) -> bool:
        try:
            named, ours = Path(self.path).stat(), os.fstat(file.fileno())
        except FileNotFoundError:
            return False  # renamed, without a new file yet: its writer may still write to it
        return (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino) or ours.st_size < file.tell()

    def _open(self) -> IO[bytes]:
        if self.path == "-":
            # Unbuffered, so that `select` knows of all that `read` would give; standard input itself stays open.
            return open(os.dup(sys.stdin.fileno()), "rb", buffering=0)  # noqa: PTH123
        try:
            return Path(self.path).open("rb", buffering=0)
        except FileNotFoundError:
            raise SourceError(f"there is no file {self.path}") from None
        except IsADirectoryError:
            raise SourceError(f"{self.path} is a directory; name a capture file in it") from None
        except PermissionError:
            raise SourceError(f"no permission to read {self.path}; see ls -l {self.path}") from None
        except (OSError, ValueError) as error:
            raise SourceError(f"{self.path} cannot be read: {error}") from None

    @contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        """Add the name of the file to errors. An error of the disk is permanent."""
        try:
            yield
        except NotACapture as error:
            raise NotACapture(f"{self._place} is not a capture: it is {error.what}") from None
        except OSError as error:
            raise SourceError(f"{self._place} cannot be read: {error.strerror or error}") from error

    @property
    def _place(self) -> str:
        return "standard input" if self.path == "-" else self.path
