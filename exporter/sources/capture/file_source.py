"""A capture file as a source: `file:PATH`, `file:PATH?follow=1`, `file:PATH?pace=1`; `file:-` is standard input."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final
from urllib.parse import unquote

from exporter.sources.capture.forms import NotACapture
from exporter.sources.capture.reader import BLOCK, CaptureParser, Problem
from exporter.sources.contract import Chunk, Happened, Report, SourceError, SourceEvent

__all__ = ["FileSource"]

_LOOK: Final = 0.5
"""Seconds between looks at a followed file. Looking costs two system calls, so there is no growing wait here."""

_KEYS: Final = ("follow", "pace")

Pause = Callable[[threading.Event, float], object]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class FileSource:
    """The octets of a capture.

    Plain: at full speed, then the end; `live` is False; `received` is the capture's stamp, None where it has none.
    `follow`: like tail -F from the file's start, through truncation and rotation, waiting for a file that is not
    there; `live`; `received` is the stamp if there is one; else None for what stood in the file before we looked,
    and the time of reading for what came after.
    `pace`: at the recorded speed, then the end; `live`; `received` is the stamp, so it speaks of the recorded time.
    `problems` holds the damaged lines of text captures, `damaged` their number.
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
            raise SourceError("file: has no path in it; write file:PATH, or file:- for standard input")
        if follow and (pace or path == "-"):
            raise SourceError("follow=1 goes with a file and without pace=1: what is being written has its own pace")
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
        """`file:PATH[?follow=1|pace=1]`; %20 and the like are undone. Raises SourceError."""
        path, _, query = url.partition(":")[2].partition("?")
        asked = dict.fromkeys(_KEYS, False)
        for part in filter(None, query.split("&")):
            key, _, value = part.partition("=")
            if key not in asked or value not in ("0", "1"):
                raise SourceError(f"{url}: {part!r} is not known; a file takes follow=1 or pace=1")
            asked[key] = value == "1"
        # file:///home/me/x is how others write file:/home/me/x.
        path = "/" + path.lstrip("/") if path.startswith("//") else path
        return cls(os.path.expanduser(unquote(path)), follow=asked["follow"], pace=asked["pace"])  # noqa: PTH111 (Path would normalise `-` and blanks)

    @property
    def problems(self) -> list[Problem]:
        """The first hundred damaged lines so far (when following: of the file that is open now)."""
        return self._parser.problems

    @property
    def damaged(self) -> int:
        """How many lines were damaged so far."""
        return self._parser.damaged

    def chunks(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        """Yield the capture. Raises SourceError: no such file, not readable, no capture, no stamps to pace by."""
        if self._follow_it:
            yield from self._follow(stop, report)
        elif self._pace:
            yield from self._paced(stop, self._read_once(stop, report))
        else:
            yield from self._read_once(stop, report)

    def _read_once(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        with self._open() as file, self._in_words():
            report(SourceEvent(Happened.OPENED, f"reading {self._place}"))
            while self._ready(file, stop) and (data := file.read(BLOCK)):
                for chunk in self._parser.feed(data):
                    yield chunk
                    if stop.is_set():
                        return
            if not stop.is_set():
                yield from self._parser.end()

    def _ready(self, file: IO[bytes], stop: threading.Event) -> bool:
        """False when stopping. A pipe that is silent is not waited for longer than `stop` can wait."""
        while not stop.is_set():
            if self.path != "-" or select.select([file], [], [], _LOOK)[0]:
                return True
        return False

    def _paced(self, stop: threading.Event, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        started, first, last = self._monotonic(), None, None
        for chunk in chunks:
            if chunk.received is None:
                raise SourceError(f"{self._place} has no time stamps, so its speed is not known; leave out pace=1")
            if first is None or last is None or chunk.received < last:  # the recorder's clock was set back
                started, first = self._monotonic(), chunk.received
            last = chunk.received
            due = started + (chunk.received - first).total_seconds()
            while (left := due - self._monotonic()) > 0 and not stop.is_set():
                self._pause(stop, left)
            if stop.is_set():
                return
            yield chunk

    def _follow(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        old = True  # what stood there before we looked; nobody knows when it came
        while (file := self._wait_for_file(stop, report)) is not None:
            with file, self._in_words():
                yield from self._tail(file, stop, old)
            old = False
            self._parser = CaptureParser()

    def _wait_for_file(self, stop: threading.Event, report: Report) -> IO[bytes] | None:
        told = False
        while not stop.is_set():
            if Path(self.path).exists():
                file = self._open()
                report(SourceEvent(Happened.OPENED, f"following {self._place}"))
                return file
            if not told:
                report(SourceEvent(Happened.MISSING, f"{self._place} is not there yet; waiting for it"))
                told = True
            self._pause(stop, _LOOK)
        return None

    def _tail(self, file: IO[bytes], stop: threading.Event, old: bool) -> Iterator[Chunk]:
        """Yield until stopped, or until another file has the name or the file was cut short."""
        replaced = False
        while True:
            while not stop.is_set() and (data := file.read(BLOCK)):
                for chunk in self._parser.feed(data):
                    yield self._dated(chunk, old)
            old = False
            if stop.is_set():
                return
            if replaced:  # and what was written between the last look and the rename has been read
                break
            replaced = self._is_replaced(file)
            if not replaced:
                self._pause(stop, _LOOK)
        if self._parser.fed:
            for chunk in self._parser.end():
                yield self._dated(chunk, old)

    def _dated(self, chunk: Chunk, old: bool) -> Chunk:
        return chunk if old or chunk.received is not None else replace(chunk, received=self._now())

    def _is_replaced(self, file: IO[bytes]) -> bool:
        try:
            named, ours = Path(self.path).stat(), os.fstat(file.fileno())
        except FileNotFoundError:
            return False  # renamed, and no new one yet: its writer may still write to it
        return (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino) or ours.st_size < file.tell()

    def _open(self) -> IO[bytes]:
        if self.path == "-":
            # Unbuffered, so that `select` sees what `read` would give; standard input itself stays open.
            return open(os.dup(sys.stdin.fileno()), "rb", buffering=0)  # noqa: PTH123
        try:
            return Path(self.path).open("rb", buffering=0)
        except FileNotFoundError:
            raise SourceError(f"there is no file {self.path}") from None
        except IsADirectoryError:
            raise SourceError(f"{self.path} is a directory; give a capture file in it") from None
        except PermissionError:
            raise SourceError(f"no permission to read {self.path}; see ls -l {self.path}") from None
        except (OSError, ValueError) as error:
            raise SourceError(f"{self.path} cannot be read: {error}") from None

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Name the file where the parser cannot; a disk that fails does not mend itself."""
        try:
            yield
        except NotACapture as error:
            raise NotACapture(f"{self._place} is no capture: it is {error.words}") from None
        except OSError as error:
            raise SourceError(f"{self._place} cannot be read: {error.strerror or error}") from error

    @property
    def _place(self) -> str:
        return "standard input" if self.path == "-" else self.path
