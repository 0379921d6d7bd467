"""A meter on a pseudo-terminal that knows what it sent, and what of it was there for the exporter to take.

A session is a time in which the port was open and read by one process. Its frames, in the order of the stream, are
those that were sent whole while it lasted. It begins when the reader itself says that it hears; when it ends, `handed`
is how far into the stream the kernel had handed octets over: what it still held is counted by reading it here, when
nobody else reads, up to a mark. How soon the kernel's worker brings octets from one end to the other says nothing.
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
"""For so long nothing is written and nothing waits: all has been read."""
_DRAIN_S: Final = 10.0
_HEARD_TWICE: Final = 2
"""The first time could still be what came before the port was plugged."""
_GARBLES: Final[tuple[Callable[[bytes], bytes], ...]] = (framing_errors, parity_as_bit_7)


KILLED: Final = "killed"
STOPPED: Final = "stopped"
UNPLUGGED: Final = "unplugged"
"""How a session ends. What the process had read and not kept dies with it when it is killed, and then only."""


Heard = Callable[[str], tuple[int, int] | None]
"""Asks the reader of a port, by its name: which process it is, and how many octets it has heard; None: no answer."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame that was sent whole: its number and what it says, when (ms since 1970), where in the stream it ends."""

    number: int
    values: Mapping[str, float]
    begun: float
    done: float
    end: int


@dataclass(slots=True)
class Session:
    """`how` it ended and how much was `handed` over, None while it lasts.

    `asked` is how much was in the port when the exporter was asked to stop: it takes that before it ends.
    """

    frames: list[Sent] = field(default_factory=list)
    how: str | None = None
    handed: int | None = None
    asked: int = 0


@dataclass(slots=True)
class Ledger:
    """All that one meter sent. `unheard` and `damaged` are frames' numbers: those may, and these must not be there.

    Unheard are those sent while nobody was known to read the port, and those that a change of that cut in two.
    """

    meter_id: str
    sessions: list[Session] = field(default_factory=list)
    unheard: dict[int, Sent] = field(default_factory=dict)
    damaged: set[int] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)


class FaultyMeter:
    """A meter that talks in a thread of its own, at `path`, a name that stays while the port's number changes."""

    def __init__(self, path: Path, maker: str, meter_id: str, chance: random.Random, heard: Heard) -> None:
        self.path = path
        self._heard = heard
        self.ledger = Ledger(meter_id)
        self.session: Session | None = None
        self._before: Session | None = None  # that the process which reads now had before
        self._lists = Lists(maker, meter_id, chance)
        self._chance = chance
        self._lock = threading.RLock()
        self._heard_before: tuple[int, int] | None = None
        self._knocks = 0  # heard in a row
        self._written = 0
        self._garble: Callable[[bytes], bytes] | None = None
        self._errands: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._quiet = threading.Event()
        self._frame_sent = threading.Event()
        self._end = threading.Event()
        self._meter = self._port = -1
        self._plugged = 0
        self._error: Exception | None = None
        self._next: tuple[int, int] | None = None
        self.plug()
        self._thread = threading.Thread(target=self._talk, name=path.name, daemon=True)

    # --- what happens to it -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Talk."""
        self._thread.start()

    def finish(self) -> None:
        """Say no more."""
        self._end.set()
        self._thread.join(HANG_S)
        assert not self._thread.is_alive(), f"{self.path} still wants to talk"
        if self._error is not None:
            raise self._error

    def plug(self) -> None:
        """A port of another number under the same name."""
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
        """Gone. Whoever reads the port must be frozen, or have read all, so that what was handed over is known."""
        with self._lock:
            self._end_session(UNPLUGGED, 0 if all_read else self._drain())
            self.path.unlink()
            self._next = os.openpty()  # while the old one is there: its number is not free
            os.close(self._port)
            os.close(self._meter)
            self._meter = self._port = -1

    def unplug_when_read(self, patience: float = 0.3) -> bool:
        """Gone under the hands of a reader that goes on; False if it does not read."""
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
        """Leave nothing open."""
        with self._lock:
            for descriptor in (self._meter, self._port, *(self._next or ())):
                if descriptor >= 0:
                    os.close(descriptor)
            self._meter = self._port = -1
            self._next = None

    def end_session(self, how: str) -> None:
        """Nobody reads any more: count what the kernel still holds."""
        with self._lock:
            self._end_session(how, self._drain())

    def _end_session(self, how: str, held: int) -> None:
        self._heard_before, self._knocks = None, 0
        if self.session is not None:
            asked = self.session.asked if how == STOPPED else 0
            self.session.how, self.session.handed = how, max(self._written - held, asked)
            self._before, self.session = self.session, None
        elif how == KILLED and self._before is not None:
            self._before.how = KILLED
        if how != UNPLUGGED:
            self._before = None

    def ask_to_stop(self) -> None:
        """What is in the port now is still to be read."""
        with self._lock:
            if self.session is not None:
                self.session.asked = self._written

    def next_frame(self, seconds: float) -> None:
        """Wait until the last octet of a frame goes out, but not for longer."""
        self._frame_sent.clear()
        self._frame_sent.wait(seconds)

    def wrong_parity(self, kind: int | None) -> None:
        """From now on octets come out wrong, in one of two ways; None ends it."""
        with self._lock:
            self._garble = None if kind is None else _GARBLES[kind % len(_GARBLES)]

    def make_noise(self, octets: bytes) -> None:
        """Octets that are no frame, before the next."""
        self._errands.put(octets)

    def break_off(self) -> None:
        """The next frame is not sent whole."""
        self._errands.put(None)

    def be_quiet(self, quiet: bool) -> None:
        """Pause between two frames, or go on."""
        (self._quiet.set if quiet else self._quiet.clear)()

    # --- talking ------------------------------------------------------------------------------------------------------

    def _talk(self) -> None:
        try:
            self._talk_on()
        except Exception as error:  # noqa: BLE001 - raised by `finish`
            self._error = error

    def _talk_on(self) -> None:
        while not self._end.is_set():
            if self._port == -1 or self._quiet.is_set():
                self._end.wait(0.01)
            elif self.session is None:
                self._knock()
            elif not self._errands.empty():
                self._do(self._errands.get())
            else:
                self._send_whole()
                self._end.wait(self._gap())

    def _gap(self) -> float:
        die = self._chance.random()
        if die < 0.3:
            return 0.0
        return self._chance.uniform(0.002, 0.04) if die < 0.97 else self._chance.uniform(0.05, 0.3)

    def _do(self, noise: bytes | None) -> None:
        if noise is not None:
            self._push(noise, [])
            self.ledger.counts["octets of noise"] += len(noise)
            return
        made = self._lists.any()
        self.ledger.damaged.add(made.number)
        self.ledger.counts["half frames"] += 1
        self._push(half(made.octets, self._chance), [])

    def _send_whole(self) -> None:
        made = self._lists.any()
        octets, frames = made.octets, [(len(made.octets), made)]
        while self._chance.random() < 0.1:  # one flag ends a frame and begins the next
            made = self._lists.any()
            octets += made.octets[1:]
            frames.append((len(octets), made))
        self._push(octets, frames)

    def _knock(self) -> None:
        """Send to a port that may not be open, and ask whether someone hears it."""
        plugged = self._plugged
        made = self._lists.short()
        self._push(made.octets, [(len(made.octets), made)])
        if self._end.wait(0.015):
            return
        heard = self._heard(self.path.name)
        with self._lock:
            if self._port == -1 or self._plugged != plugged:
                return
            before, self._heard_before = self._heard_before, heard
            more = heard is not None and before is not None and heard[0] == before[0] and heard[1] > before[1]
            self._knocks = self._knocks + 1 if more else self._knocks
            if self._knocks >= _HEARD_TWICE:
                self._knocks = 0
                self.session = Session()
                self.ledger.sessions.append(self.session)

    def _push(self, octets: bytes, frames: list[tuple[int, Made]]) -> None:
        """Write in pieces; each frame (where it ends in `octets`, what it is) is noted with its last octet."""
        parcel = _Parcel(octets, frames, self.session, self._plugged, _now())
        while parcel.offset < len(octets):
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
        """Write some octets, not beyond the next frame's end; False when the port takes none."""
        end = min(parcel.offset + size, parcel.frames[0][0] if parcel.frames else len(parcel.octets))
        piece = parcel.octets[parcel.offset : end]
        heard = self._garble(piece) if self._garble else piece
        try:
            count = os.write(self._meter, heard)
        except BlockingIOError:
            return False
        parcel.garbled = parcel.garbled or heard[:count] != piece[:count]
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
            self.ledger.counts["frames at wrong parity"] += 1
            self.ledger.damaged.add(made.number)
        elif self.session is not None and self.session is parcel.session and not parcel.doubtful:
            self.session.frames.append(sent)
        else:
            self.ledger.unheard[made.number] = sent

    def _note_rest(self, parcel: _Parcel, made: Made, missing: int) -> None:
        """A frame that broke off cannot be there, unless all but its flag was sent: the next one lends its own."""
        if missing == 1:
            self.ledger.unheard[made.number] = Sent(made.number, made.values, parcel.begun, math.inf, self._written)
        else:
            self.ledger.counts["frames broken off"] += 1
            self.ledger.damaged.add(made.number)

    def _waiting(self) -> int:
        """Octets that the kernel has for a reader."""
        answer: bytes = fcntl.ioctl(self._port, termios.FIONREAD, bytes(4))
        return int(struct.unpack("i", answer)[0])

    def _read(self) -> bytes:
        try:
            return os.read(self._port, 65536)  # b"" where the reader had set VMIN to 0
        except BlockingIOError:
            return b""

    def _drain(self) -> int:
        """Read what the kernel holds, up to a mark that is written behind it; it is never offered all at once."""
        if self._port == -1:
            return 0
        mark = left = self._chance.randbytes(16)
        held, patience = b"", Patience(_DRAIN_S)
        while left or not held.endswith(mark):
            assert not patience.is_over(), f"somebody still reads {self.path}, or the kernel brings nothing"
            with contextlib.suppress(BlockingIOError):
                left = left[os.write(self._meter, left) :]
            octets = self._read()
            held += octets
            if not octets:
                time.sleep(0.001)
        return len(held) - len(mark)


@dataclass(slots=True)
class _Parcel:
    """Octets on their way, and the frames that are not whole yet; `begun` is when the next of these was.

    `garbled` is the next of them, `doubtful` are all: one's closing flag may be the opening flag of the next.
    """

    octets: bytes
    frames: list[tuple[int, Made]]
    session: Session | None
    plugged: int
    begun: float
    offset: int = 0
    garbled: bool = False
    doubtful: bool = False


def _now() -> float:
    return time.time() * 1000
