"""A meter on a pseudo-terminal that knows what it sent, and which part of it the exporter could read.

A session is a time in which one process had the port open and read it. Its frames, in the order of the stream, are
those that were sent whole in that time. A session begins when the reader itself says that it receives bytes. When it
ends, `handed` is the position in the stream up to which the kernel had handed over bytes: the bytes that it still has
are counted by reading them here, up to a mark, when no other process reads. Times are not enough for this, since the
kernel takes any time to move bytes from one end to the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import queue
import random
import struct
import termios
import threading
import time
import tty
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.faults.frames import Lists, Made, framing_errors, half, parity_as_bit_7
from tests.support.patience import HANG_S, Patience

_QUIET_S: Final = 0.1
"""If nothing waits for so long while nothing is written, all has been read."""
_DRAIN_S: Final = 10.0
_READ_TWICE: Final = 2
"""The first time, the bytes could be from before the port was plugged."""
_GARBLES: Final[tuple[Callable[[bytes], bytes], ...]] = (framing_errors, parity_as_bit_7)


KILLED: Final = "killed"
STOPPED: Final = "stopped"
UNPLUGGED: Final = "unplugged"
"""How a session ends. Only when the process is killed is lost what it had read and not kept."""


ReadSoFar = Callable[[str], tuple[int, int] | None]
"""Asks for the process that reads a port (its name), and how many bytes it has read; None if there is no answer."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame that was sent whole: number, values, times (ms since 1970), and the position of its end in the stream."""

    number: int
    values: Mapping[str, float]
    begun: float
    done: float
    end: int


@dataclass(slots=True)
class Session:
    """`how` it ended, and up to which position bytes were `handed` over; both None while it lasts.

    `asked` is the position when the exporter was asked to stop: it reads up to there before it ends.
    """

    frames: list[Sent] = field(default_factory=list)
    how: str | None = None
    handed: int | None = None
    asked: int = 0


@dataclass(slots=True)
class Ledger:
    """All that one meter sent. Frames in `unread` may be found in InfluxDB; those in `damaged` must not be.

    Unread frames were sent while no reader of the port was known, or partly so. Keys are the frames' numbers.
    """

    meter_id: str
    sessions: list[Session] = field(default_factory=list)
    unread: dict[int, Sent] = field(default_factory=dict)
    damaged: set[int] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)


class FaultyMeter:
    """A meter that sends in a thread. `path` is the name of its port, which stays the same when its number changes."""

    def __init__(self, path: Path, maker: str, meter_id: str, chance: random.Random, read_so_far: ReadSoFar) -> None:
        self.path = path
        self._read_so_far = read_so_far
        self.ledger = Ledger(meter_id)
        self.session: Session | None = None
        self._before: Session | None = None  # the one before, if the same process read it
        self._lists = Lists(maker, meter_id, chance)
        self._chance = chance
        self._lock = threading.RLock()
        self._read_before: tuple[int, int] | None = None
        self._probes_read = 0  # how many in a row were read
        self._written = 0
        self._garble: Callable[[bytes], bytes] | None = None
        self._tasks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._quiet = threading.Event()
        self._frame_sent = threading.Event()
        self._end = threading.Event()
        self._meter = self._port = -1
        self._plugged = 0
        self._error: Exception | None = None
        self._next: tuple[int, int] | None = None
        self.plug()
        self._thread = threading.Thread(target=self._run, name=path.name, daemon=True)

    # --- faults -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start to send."""
        self._thread.start()

    def finish(self) -> None:
        """Stop sending."""
        self._end.set()
        self._thread.join(HANG_S)
        assert not self._thread.is_alive(), f"{self.path} still sends"
        if self._error is not None:
            raise self._error

    def plug(self) -> None:
        """Make a port with another number and the same name."""
        with self._lock:
            self._meter, self._port = self._next or os.openpty()
            self._next = None
            self._plugged += 1
            tty.setraw(self._port)
            os.set_blocking(self._meter, False)
            os.set_blocking(self._port, False)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.symlink_to(os.ttyname(self._port))

    def unplug(self, *, all_read: bool = False) -> None:
        """Remove the port. Its reader must be frozen, or have read all, so that `handed` is known."""
        with self._lock:
            self._end_session(UNPLUGGED, 0 if all_read else self._drain())
            self.path.unlink()
            self._next = os.openpty()  # before the old one is closed, so that its number is not used again
            os.close(self._port)
            os.close(self._meter)
            self._meter = self._port = -1

    def unplug_when_read(self, patience: float = 0.3) -> bool:
        """Remove the port while its reader runs. False if it does not read."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            with self._lock:
                if self._waiting() == 0:
                    time.sleep(_QUIET_S)
                    if self._waiting() == 0:
                        self.unplug(all_read=True)
                        return True
            time.sleep(0.005)
        return False

    def close(self) -> None:
        """Close everything."""
        with self._lock:
            for descriptor in (self._meter, self._port, *(self._next or ())):
                if descriptor >= 0:
                    os.close(descriptor)
            self._meter = self._port = -1
            self._next = None

    def end_session(self, how: str) -> None:
        """The reader has ended: count what the kernel still has."""
        with self._lock:
            self._end_session(how, self._drain())

    def _end_session(self, how: str, held: int) -> None:
        self._read_before, self._probes_read = None, 0
        if self.session is not None:
            asked = self.session.asked if how == STOPPED else 0
            self.session.how, self.session.handed = how, max(self._written - held, asked)
            self._before, self.session = self.session, None
        elif how == KILLED and self._before is not None:
            self._before.how = KILLED
        if how != UNPLUGGED:
            self._before = None

    def ask_to_stop(self) -> None:
        """The reader is asked to stop: it must still read what is in the port now."""
        with self._lock:
            if self.session is not None:
                self.session.asked = self._written

    def next_frame(self, seconds: float) -> None:
        """Wait until the last byte of a frame is sent, at most so many seconds."""
        self._frame_sent.clear()
        self._frame_sent.wait(seconds)

    def wrong_parity(self, kind: int | None) -> None:
        """Change all bytes from now on, in one of two ways; None ends it."""
        with self._lock:
            self._garble = None if kind is None else _GARBLES[kind % len(_GARBLES)]

    def make_noise(self, noise: bytes) -> None:
        """Send bytes that are not a frame, before the next frame."""
        self._tasks.put(noise)

    def break_off(self) -> None:
        """Send only a part of the next frame."""
        self._tasks.put(None)

    def be_quiet(self, quiet: bool) -> None:
        """Pause after a frame, or continue."""
        (self._quiet.set if quiet else self._quiet.clear)()

    # --- sending ------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._run_until_end()
        except Exception as error:  # noqa: BLE001 - raised by `finish`
            self._error = error

    def _run_until_end(self) -> None:
        while not self._end.is_set():
            if self._port == -1 or self._quiet.is_set():
                self._end.wait(0.01)
            elif self.session is None:
                self._probe()
            elif not self._tasks.empty():
                self._do(self._tasks.get())
            else:
                self._send_whole()
                self._end.wait(self._pause())

    def _pause(self) -> float:
        value = self._chance.random()
        if value < 0.3:
            return 0.0
        return self._chance.uniform(0.002, 0.04) if value < 0.97 else self._chance.uniform(0.05, 0.3)

    def _do(self, noise: bytes | None) -> None:
        if noise is not None:
            self._push(noise, [])
            self.ledger.counts["bytes of noise"] += len(noise)
            return
        made = self._lists.any()
        self.ledger.damaged.add(made.number)
        self.ledger.counts["half frames"] += 1
        self._push(half(made.data, self._chance), [])

    def _send_whole(self) -> None:
        made = self._lists.any()
        data, frames = made.data, [(len(made.data), made)]
        while self._chance.random() < 0.1:  # one flag ends a frame and starts the next
            made = self._lists.any()
            data += made.data[1:]
            frames.append((len(data), made))
        self._push(data, frames)

    def _probe(self) -> None:
        """Send to a port that may not be open, and ask whether a process reads it."""
        plugged = self._plugged
        made = self._lists.short()
        self._push(made.data, [(len(made.data), made)])
        if self._end.wait(0.015):
            return
        now = self._read_so_far(self.path.name)
        with self._lock:
            if self._port == -1 or self._plugged != plugged:
                return
            before, self._read_before = self._read_before, now
            more = now is not None and before is not None and now[0] == before[0] and now[1] > before[1]
            self._probes_read = self._probes_read + 1 if more else self._probes_read
            if self._probes_read >= _READ_TWICE:
                self._probes_read = 0
                self.session = Session()
                self.ledger.sessions.append(self.session)

    def _push(self, data: bytes, frames: list[tuple[int, Made]]) -> None:
        """Write in pieces. A frame (the position of its end in `data`, and what it is) is noted with its last byte."""
        parcel = _Parcel(data, frames, self.session, self._plugged, _now())
        while parcel.offset < len(data):
            size = self._chance.choice((1, 7, 40, 200, 1000, 4000))
            with self._lock:
                if parcel.plugged != self._plugged or self._port == -1:
                    break
                if self._write(parcel, size):
                    continue
                if self.session is None:
                    break
            time.sleep(0.005)
        for end, made in parcel.frames:
            self._note_rest(parcel, made, end - parcel.offset)

    def _write(self, parcel: _Parcel, size: int) -> bool:
        """Write some bytes, at most to the end of the next frame. False if the port takes none."""
        end = min(parcel.offset + size, parcel.frames[0][0] if parcel.frames else len(parcel.data))
        piece = parcel.data[parcel.offset : end]
        sent = self._garble(piece) if self._garble else piece
        try:
            count = os.write(self._meter, sent)
        except BlockingIOError:
            return False
        parcel.garbled = parcel.garbled or sent[:count] != piece[:count]
        parcel.doubtful = parcel.doubtful or parcel.garbled
        parcel.offset += count
        self._written += count
        if parcel.frames and parcel.offset == parcel.frames[0][0]:
            self._note(parcel, parcel.frames.pop(0)[1])
        return True

    def _note(self, parcel: _Parcel, made: Made) -> None:
        self._frame_sent.set()
        sent = Sent(made.number, made.values, parcel.begun, _now(), self._written)
        garbled, parcel.garbled, parcel.begun = parcel.garbled, False, _now()
        if garbled:
            self.ledger.counts["frames with wrong parity"] += 1
            self.ledger.damaged.add(made.number)
        elif self.session is not None and self.session is parcel.session and not parcel.doubtful:
            self.session.frames.append(sent)
        else:
            self.ledger.unread[made.number] = sent

    def _note_rest(self, parcel: _Parcel, made: Made, missing: int) -> None:
        """A frame that broke off cannot be found, unless only its flag is missing: the next flag replaces it."""
        if missing == 1:
            self.ledger.unread[made.number] = Sent(made.number, made.values, parcel.begun, math.inf, self._written)
        else:
            self.ledger.counts["frames broken off"] += 1
            self.ledger.damaged.add(made.number)

    def _waiting(self) -> int:
        """How many bytes the kernel has for a reader."""
        answer: bytes = fcntl.ioctl(self._port, termios.FIONREAD, bytes(4))
        return int(struct.unpack("i", answer)[0])

    def _read(self) -> bytes:
        try:
            return os.read(self._port, 65536)  # b"" if the reader has set VMIN to 0
        except BlockingIOError:
            return b""

    def _drain(self) -> int:
        """Read what the kernel has, in pieces, up to a mark that is written after it. Returns its size."""
        if self._port == -1:
            return 0
        mark = left = self._chance.randbytes(16)
        held, patience = b"", Patience(_DRAIN_S)
        while left or not held.endswith(mark):
            assert not patience.is_over(), f"a process still reads {self.path}, or the kernel gives nothing"
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(self._meter, left) :]
            data = self._read()
            held += data
            if not data:
                time.sleep(0.001)
        return len(held) - len(mark)


@dataclass(slots=True)
class _Parcel:
    """Bytes that are being sent, and their frames that are not whole yet. `begun`: when the next of these began.

    `garbled`: the next frame is damaged. `doubtful`: a frame was, so the next ones may be too, since they share a flag.
    """

    data: bytes
    frames: list[tuple[int, Made]]
    session: Session | None
    plugged: int
    begun: float
    offset: int = 0
    garbled: bool = False
    doubtful: bool = False


def _now() -> float:
    return time.time() * 1000
