"""Captures: read in their three forms (forms.py recognises them), and written as time-stamped hex.

Reading needs the same memory for a file of gigabytes as for a small one. A damaged line of text is left out and is
listed in `problems`; nothing else is lost.
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
    NO_BYTES,
    Form,
    LineError,
    NotACapture,
    identify,
    parse_hex,
    readable_hex,
    shorten,
    split_stamp,
)
from exporter.sources.contract import Chunk, SourceError

__all__ = ["BLOCK", "CaptureParser", "CaptureReader", "CaptureWriter", "Problem", "read_capture"]

BLOCK: Final = 64 * 1024
"""Bytes read at a time."""

_ENOUGH: Final = 4096
"""Bytes that decide what a file is."""

_LONGEST_LINE: Final = 1 << 17
"""Bytes of text without a line end that are kept for the rest of the line."""

_QUICK_FROM: Final = "1971-"
_QUICK_BEFORE: Final = "2261-"
"""A stamp between these is a time that readings can have, however the date is written (`2261-W52-7`)."""

_PROBLEMS_KEPT: Final = 100
_SYNC_EVERY: Final = 1.0


@dataclass(frozen=True, slots=True)
class Problem:
    """A damaged line: its number, counted from 1, and what is wrong with it."""

    line: int
    message: str
    used: bool = False

    def __str__(self) -> str:
        result = "the readable part is used" if self.used else "the line is left out"
        return f"line {self.line}: {self.message}; {result}"


class CaptureParser:
    """Sans-I/O reader of a capture: `feed` it the file, and call `end` at the end of the file.

    `form` is None until enough is known. A chunk of the time-stamped form is a line, with `received` in UTC. Chunks of
    the other two forms are pieces of any size, with `received` None. `problems` has the first hundred damaged lines,
    `damaged` is the number of all.
    """

    def __init__(self) -> None:
        self.form: Form | None = None
        self.problems: list[Problem] = []
        self.damaged = 0
        self.fed = 0
        self._rest = b""
        self._line = 0  # number of the last line that was read
        self._odd: tuple[int, str] | None = None  # number and text of a line of hex that ends in half a byte
        self._skipping = False  # until the end of a line that is too long, or of its comment

    def feed(self, data: bytes) -> list[Chunk]:
        """Chunks that are complete now. Raises NotACapture as soon as it is certain that this is not a capture."""
        self.fed += len(data)
        self._rest += data
        if self.form is None and not self._decide(final=False):
            return []
        return self._read()

    @property
    def is_between(self) -> bool:
        """Whether nothing is kept for the next bytes, in raw bytes or between two time-stamped lines."""
        return self.form in (Form.RAW, Form.STAMPED) and not self._rest and not self._skipping

    def skip(self, size: int, lines: int) -> None:
        """Count bytes and whole lines of the file as read: the caller read them. Only if `is_between`."""
        self.fed += size
        self._line += lines

    def end(self) -> list[Chunk]:
        """The last chunks, also of a last line without a line end. Raises NotACapture."""
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
            if sure and found.what == NO_BYTES and not final and len(self._rest) < _LONGEST_LINE:
                self._drop_comments()
            elif sure:
                raise found if self._rest else NotACapture(NO_BYTES if self._line else found.what)
            return False
        # Only whole lines of text say what it is: `20` may be the start of a time stamp.
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
                data = bytes.fromhex(text.decode("ascii"))  # nearly always: no comment, no damage
            except ValueError:
                pass
            else:
                self._line += text.count(b"\n") + 1
                return [Chunk(data, None)] if data else []
        lines = text.decode("utf-8", "replace").split("\n")
        if self.form is Form.STAMPED:
            return self._read_stamped(lines)
        chunks = []
        for line in lines:
            self._line += 1
            chunks += self._join_lines(line.lstrip("\ufeff"))
        return chunks

    def _read_stamped(self, lines: list[str]) -> list[Chunk]:
        """Lines as CaptureWriter writes them are read quickly; any other line is read slowly, with its problems."""
        chunks: list[Chunk] = []
        before = self._line
        for number, line in enumerate(lines, before + 1):
            quick = _quick_chunk(line)
            if quick is not None:
                chunks.append(quick)
                continue
            self._line = number
            chunks += self._join_lines(line.lstrip("\ufeff"))
        self._line = before + len(lines)
        return chunks

    def _join_lines(self, line: str) -> list[Chunk]:
        """White space means nothing in hex text: half of a byte may be in one line and half in the next."""
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
        elif not digits:  # a comment or an empty line between the halves
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
                raise LineError(f"not a time stamp: {shorten(line)}")
            data = parse_hex(line if stamped is None else stamped[1])
            if not data:
                raise LineError("a time stamp without bytes")
        except LineError as error:
            # A time-stamped line is one chunk, so no part of it is used.
            data = readable_hex(line) if self.form is Form.HEX else b""
            self._damaged(number, str(error), used=bool(data))
            if not data:
                return None
        return Chunk(data, None if stamped is None else stamped[0])

    def _read_long_line(self) -> list[Chunk]:
        """Hex without line ends (`xxd -p | tr -d '\\n'`) is read piece by piece; any other long line is left out."""
        text, self._rest = self._rest.decode("utf-8", "replace"), b""
        text, comment, _ = text.partition("#")
        self._skipping = bool(comment)
        digits = "".join(text.split())
        if not comment and len(digits) % 2:
            digits, self._rest = digits[:-1], digits[-1:].encode()
        try:
            if self.form is Form.STAMPED:
                raise LineError(f"longer than {_LONGEST_LINE} characters")
            data = parse_hex(digits)
        except LineError as error:
            self._damaged(self._line + 1, str(error))
            self._skipping, self._rest = True, b""
            return []
        return [Chunk(data, None)] if data else []

    def _damaged(self, line: int, message: str, *, used: bool = False) -> None:
        self.damaged += 1
        if len(self.problems) < _PROBLEMS_KEPT:
            self.problems.append(Problem(line, message, used))


def _quick_chunk(line: str) -> Chunk | None:
    """The chunk of a line as CaptureWriter writes it; None for any other line.

    Only `2026-11-22T17:00:10.123Z 7EA0…` has a T, and a Z with a blank, at these places. If `fromisoformat` and
    `fromhex` accept it too, the slow way gives the same result.
    """
    if line[23:25] != "Z " or line[10] != "T" or not _QUICK_FROM <= line < _QUICK_BEFORE:
        return None
    try:
        data = bytes.fromhex(line[25:])
        return Chunk(data, datetime.fromisoformat(line[:24])) if data else None
    except ValueError:
        return None


class CaptureReader:
    """The chunks of a capture in order; they can be read once. `form`, `problems`, `damaged`: see CaptureParser."""

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
        # A pipe gives what has come so far, a file gives a block.
        read = getattr(self._stream, "read1", self._stream.read)
        while data := read(BLOCK):
            yield from self._parser.feed(data)
        yield from self._parser.end()


def read_capture(stream: BinaryIO) -> CaptureReader:
    """Read a capture from a file or from standard input, opened in binary mode.

    The iteration raises NotACapture (a SourceError) for any other file, and OSError if reading fails.
    """
    return CaptureReader(stream)


class CaptureWriter:
    """Appends chunks to a file, one line each. If the process is killed, at most the last line is lost.

    Each line is one write. The file is synced to disk at most once a second, and at the end. Raises SourceError if the
    file has anything other than time-stamped hex, OSError if it cannot be written.
    """

    def __init__(self, path: str | Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = Path(path)
        self._monotonic = monotonic
        self.lines = 0
        self.size = 0
        ends_whole = self._check_and_find_end()
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._on_disk = stat.S_ISREG(os.fstat(self._file).st_mode)
        self._torn = not ends_whole
        self._synced = monotonic()

    def append(self, chunk: Chunk) -> None:
        """Write one chunk; its `received` must be known."""
        if chunk.received is None:
            raise ValueError("a chunk without a time cannot be recorded")
        if not chunk.data:
            return
        stamp = chunk.received.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        # After half a line, first a line end: then only that line is damaged.
        line = ("\n" if self._torn else "") + f"{stamp} {chunk.data.hex().upper()}\n"
        self._torn = True
        written = os.write(self._file, line.encode())
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        self._torn = False
        self.lines += 1
        self.size += len(chunk.data)
        if self._monotonic() - self._synced >= _SYNC_EVERY:
            self._sync()

    def close(self) -> None:
        """Sync the file to disk and close it; closing twice is harmless."""
        if self._file < 0:
            return
        try:
            self._sync()
        finally:
            os.close(self._file)
            self._file = -1

    def _sync(self) -> None:
        self._synced = self._monotonic()
        if self._on_disk:  # a pipe or /dev/stdout has no fsync
            os.fsync(self._file)

    def _check_and_find_end(self) -> bool:
        """True if the file ends in a whole line, or is empty or new."""
        if not self._path.is_file():
            return True
        with self._path.open("rb") as file:
            head = file.read(BLOCK)
            if not head:
                return True
            found = identify(head)
            torn_start = b"\n" not in head and head[:2] == b"20" and len(head) < _ENOUGH
            if found is not Form.STAMPED and not torn_start:
                name = found.what if isinstance(found, NotACapture) else f"a capture as {found.value}"
                raise SourceError(
                    f"{self._path} is {name}; time-stamped hex cannot be appended to it: name another file"
                )
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
