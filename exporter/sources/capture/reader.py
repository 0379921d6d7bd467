"""Captures: read in their three forms (capture_form.py tells them apart), written in the third.

Reading needs no more memory for a file of gigabytes than for a small one. A damaged line of a text form costs that
line and is kept in `problems`; nothing else is lost.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from string import hexdigits
from types import TracebackType
from typing import BinaryIO, Final, Self

from exporter.sources.capture.forms import (
    NO_OCTETS,
    Form,
    LineError,
    NotACapture,
    hex_octets,
    identify,
    readable_octets,
    shorten,
    split_stamp,
)
from exporter.sources.contract import Chunk, SourceError

__all__ = ["BLOCK", "CaptureParser", "CaptureReader", "CaptureWriter", "Problem", "quick_line", "read_capture"]

BLOCK: Final = 64 * 1024
"""Octets read at a time."""

_ENOUGH: Final = 4096
"""Octets that decide what a file is."""

_LONGEST_LINE: Final = 1 << 17
"""Octets of text without a line's end that are waited for."""

_QUICK_FROM: Final = "1971-"
_QUICK_BEFORE: Final = "2261-"
"""Stamps between these, in whatever way the date is written (`2261-W52-7`), are of times that readings have."""

_PROBLEMS_KEPT: Final = 100
_SYNC_EVERY: Final = 1.0


@dataclass(frozen=True, slots=True)
class Problem:
    """A damaged line: its number, counted from 1, and what is wrong with it."""

    line: int
    words: str
    used: bool = False

    def __str__(self) -> str:
        what = "what can be read of it is used" if self.used else "the line is left out"
        return f"line {self.line}: {self.words}; {what}"


class CaptureParser:
    """Sans-I/O reader of a capture: `feed` what the file gives, `end` when it has ended.

    `form` is None until enough is known. Chunks of the time-stamped form are its lines with `received` in UTC; of the
    other two, pieces of any size with `received` None. `problems` holds the first hundred damaged lines, `damaged` is
    how many there were.
    """

    def __init__(self) -> None:
        self.form: Form | None = None
        self.problems: list[Problem] = []
        self.damaged = 0
        self.fed = 0
        self._rest = b""
        self._line = 0  # lines that are done
        self._odd: tuple[int, str] | None = None  # a line of hex that ends in half an octet
        self._skipping = False  # inside a line that is too long, or its comment, until it ends

    def feed(self, data: bytes) -> list[Chunk]:
        """Chunks that are complete now. Raises NotACapture once it is sure that this is none."""
        self.fed += len(data)
        self._rest += data
        if self.form is None and not self._decide(final=False):
            return []
        return self._read()

    @property
    def is_between(self) -> bool:
        """Whether nothing waits for what comes next, in raw octets or between two lines with a time stamp."""
        return self.form in (Form.RAW, Form.STAMPED) and not self._rest and not self._skipping

    def skip(self, octets: int, rows: int) -> None:
        """Count so many octets of the file, and whole rows, as read: someone else read them. Only `is_between`."""
        self.fed += octets
        self._line += rows

    def end(self) -> list[Chunk]:
        """What the last line, even without a line's end, still gives. Raises NotACapture."""
        if self.form is None:
            self._decide(final=True)
        chunks = self._read()
        if self._rest and not self._skipping:
            chunks += self._read_lines(self._rest)
        self._rest = b""
        if self._odd is not None:
            (number, digits), self._odd = self._odd, None
            last = self._read_line(digits, number)
            chunks += [] if last is None else [last]
        return chunks

    def _decide(self, *, final: bool) -> bool:
        found = identify(self._rest)
        sure = final or len(self._rest) >= _ENOUGH
        if isinstance(found, NotACapture):
            if sure and found.words == NO_OCTETS and not final and len(self._rest) < _LONGEST_LINE:
                self._drop_comments()
            elif sure:
                raise found if self._rest else NotACapture(NO_OCTETS if self._line else found.words)
            return False
        # Text is judged by whole lines: `20` may be the start of a time stamp.
        if found is not Form.RAW and not sure and b"\n" not in self._rest:
            return False
        self.form = found
        return True

    def _drop_comments(self) -> None:
        whole, newline, self._rest = self._rest.rpartition(b"\n")
        self._line += whole.count(b"\n") + len(newline)

    def _read(self) -> list[Chunk]:
        if self.form is Form.RAW:
            raw, self._rest = self._rest, b""
            return [Chunk(raw, None)] if raw else []
        whole, newline, rest = self._rest.rpartition(b"\n")
        if newline and self._skipping:
            _, newline, whole = whole.partition(b"\n")
            self._skipping = False
            self._line += 1
        self._rest = b"" if self._skipping else rest
        chunks = self._read_lines(whole) if newline else []
        if len(self._rest) > _LONGEST_LINE:
            chunks += self._read_long_line()
        return chunks

    def _read_lines(self, text: bytes) -> list[Chunk]:
        if self.form is Form.HEX and self._odd is None:
            try:
                octets = bytes.fromhex(text.decode("ascii"))  # nearly every block: no comment, no damage
            except ValueError:
                pass
            else:
                self._line += text.count(b"\n") + 1
                return [Chunk(octets, None)] if octets else []
        lines = text.decode("utf-8", "replace").split("\n")
        if self.form is Form.STAMPED:
            return self._read_stamped(lines)
        chunks = []
        for line in lines:
            self._line += 1
            chunks += self._join_lines(line.lstrip("\ufeff"))
        return chunks

    def _read_stamped(self, lines: list[str]) -> list[Chunk]:
        """Lines as CaptureWriter writes them are read at once; any other goes the slow way, which says what it is."""
        chunks: list[Chunk] = []
        before = self._line
        for number, line in enumerate(lines, before + 1):
            quick = quick_line(line)
            if quick is not None:
                chunks.append(Chunk(*quick))
                continue
            self._line = number
            chunks += self._join_lines(line.lstrip("\ufeff"))
        self._line = before + len(lines)
        return chunks

    def _join_lines(self, line: str) -> list[Chunk]:
        """White space counts for nothing in hex text: an octet may stand half in one line and half in the next."""
        digits = "".join(line.partition("#")[0].split())
        odd = self.form is Form.HEX and len(digits) % 2 == 1 and not digits.strip(hexdigits)
        before, self._odd = self._odd, None
        if before is None:
            if odd:
                self._odd = (self._line, digits)
                return []
            found = [self._read_line(line, self._line)]
        elif odd:
            found = [self._read_line(before[1] + digits, self._line)]
        elif not digits:  # a comment or an empty line between the two
            self._odd = before
            return []
        else:
            found = [self._read_line(before[1], before[0]), self._read_line(line, self._line)]
        return [chunk for chunk in found if chunk is not None]

    def _read_line(self, line: str, number: int) -> Chunk | None:
        if not line.partition("#")[0].strip():
            return None
        stamped = None
        try:
            stamped = split_stamp(line)
            if stamped is None and self.form is Form.STAMPED:
                raise LineError(f"no time stamp: {shorten(line)}")
            octets = hex_octets(line if stamped is None else stamped[1])
            if not octets:
                raise LineError("a time stamp without octets")
        except LineError as error:
            octets = (
                readable_octets(line) if self.form is Form.HEX else b""
            )  # a stamped line is one chunk: all or nothing
            self._damaged(number, str(error), used=bool(octets))
            if not octets:
                return None
        return Chunk(octets, None if stamped is None else stamped[0])

    def _read_long_line(self) -> list[Chunk]:
        """Hex without line ends (`xxd -p | tr -d '\\n'`) is read piece by piece; a line of any other sort is lost."""
        text, self._rest = self._rest.decode("utf-8", "replace"), b""
        text, comment, _ = text.partition("#")
        self._skipping = bool(comment)
        digits = "".join(text.split())
        if not comment and len(digits) % 2:
            digits, self._rest = digits[:-1], digits[-1:].encode()
        try:
            if self.form is Form.STAMPED:
                raise LineError(f"longer than {_LONGEST_LINE} characters")
            octets = hex_octets(digits)
        except LineError as error:
            self._damaged(self._line + 1, str(error))
            self._skipping, self._rest = True, b""
            return []
        return [Chunk(octets, None)] if octets else []

    def _damaged(self, line: int, words: str, *, used: bool = False) -> None:
        self.damaged += 1
        if len(self.problems) < _PROBLEMS_KEPT:
            self.problems.append(Problem(line, words, used))


def quick_line(line: str) -> tuple[bytes, datetime] | None:
    """Octets and time stamp of a line as CaptureWriter writes it; None for one that may be anything.

    `2026-11-22T17:00:10.123Z 7EA0…` alone has a T, and Z and a blank, at these places; what neither `fromisoformat`
    nor `fromhex` refuses then is what the slow way finds.
    """
    if line[23:25] != "Z " or line[10] != "T" or not _QUICK_FROM <= line < _QUICK_BEFORE:
        return None
    try:
        octets = bytes.fromhex(line[25:])
        return (octets, datetime.fromisoformat(line[:24])) if octets else None
    except ValueError:
        return None


class CaptureReader:
    """The chunks of a capture, in order, read once. `form`, `problems` and `damaged` as the parser's."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._parser = CaptureParser()

    @property
    def form(self) -> Form | None:
        """The form; None before the first chunk."""
        return self._parser.form

    @property
    def problems(self) -> list[Problem]:
        """The first hundred damaged lines so far."""
        return self._parser.problems

    @property
    def damaged(self) -> int:
        """How many lines were damaged so far."""
        return self._parser.damaged

    def __iter__(self) -> Iterator[Chunk]:
        # A pipe hands over what is there; a file, a block.
        read = getattr(self._stream, "read1", self._stream.read)
        while data := read(BLOCK):
            yield from self._parser.feed(data)
        yield from self._parser.end()


def read_capture(stream: BinaryIO) -> CaptureReader:
    """Read a capture from a file or from standard input, opened in binary mode.

    Iterating raises NotACapture (a SourceError) for what is none, and OSError as reading does.
    """
    return CaptureReader(stream)


class CaptureWriter:
    """Appends chunks to a file, one line each, so that a kill costs at most the line that was being written.

    Each line is one write; the disk is told to keep it at most once a second and at the end. Raises SourceError when
    the file holds something other than time-stamped hex, OSError when it cannot be written.
    """

    def __init__(self, path: str | Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = Path(path)
        self._monotonic = monotonic
        self.lines = 0
        self.octets = 0
        fits = self._check_and_find_end()
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._on_disk = stat.S_ISREG(os.fstat(self._file).st_mode)
        self._torn = not fits
        self._synced = monotonic()

    def append(self, chunk: Chunk) -> None:
        """Write one chunk; its `received` must be known."""
        if chunk.received is None:
            raise ValueError("a chunk without a time cannot be recorded")
        if not chunk.data:
            return
        stamp = chunk.received.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # Behind a half line, a line's end first: then that one is a damaged line, and this one is whole.
        line = ("\n" if self._torn else "") + f"{stamp} {chunk.data.hex().upper()}\n"
        self._torn = True
        written = os.write(self._file, line.encode())
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._torn = False
        self.lines += 1
        self.octets += len(chunk.data)
        if self._monotonic() - self._synced >= _SYNC_EVERY:
            self._sync()

    def close(self) -> None:
        """Have the disk keep what was written; closing twice is harmless."""
        if self._file < 0:
            return
        try:
            self._sync()
        finally:
            os.close(self._file)
            self._file = -1

    def _sync(self) -> None:
        self._synced = self._monotonic()
        if self._on_disk:  # a pipe or /dev/stdout knows no fsync
            os.fsync(self._file)

    def _check_and_find_end(self) -> bool:
        """True when the file ends in a whole line, or there is nothing in it yet."""
        if not self._path.is_file():
            return True
        with self._path.open("rb") as file:
            head = file.read(BLOCK)
            if not head:
                return True
            found = identify(head)
            torn_start = b"\n" not in head and head[:2] == b"20" and len(head) < _ENOUGH
            if found is not Form.STAMPED and not torn_start:
                name = found.words if isinstance(found, NotACapture) else f"a capture as {found.value}"
                raise SourceError(
                    f"{self._path} is {name}; time-stamped hex cannot be appended to it: give another file"
                )
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
