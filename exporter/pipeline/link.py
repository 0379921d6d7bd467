"""What each source does, in one set of words: for the log, `check`, `watch` and the metrics."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from exporter.limiter import OnceAMinute
from exporter.protocol.framing import Kind, Rejected
from exporter.sources.contract import Happened, SourceEvent

log = logging.getLogger(__name__)

_GARBAGE_OCTETS: Final = 1024
"""So many octets without a frame cannot be the rest of one: wrong parity or speed."""
_UNREAD_FRAMES: Final = 3
_METERS: Final = 1024
"""Meters whose last reading is remembered, for its age."""
_SWAPPED_AFTER_S: Final = 600.0
"""Two meters that speak in turn on a source change places all the time; one not heard for so long is news."""


class LinkState(Enum):
    """What a source does; the value is the number in the metrics."""

    WAITING = 0
    """Opened, or about to be, and nothing known yet."""
    OK = 1
    MISSING = 2
    SILENT = 3
    NO_FRAMES = 4
    """Octets, but none of them a frame: wrong parity or speed."""
    UNREADABLE = 5
    """Frames that check, but none that can be read: encrypted, or an unknown list."""
    ENDED = 6
    FAILED = 7
    """It can never work as it is set: a directory, an ordinary file."""


_LEVELS: Final = {
    LinkState.OK: logging.INFO,
    LinkState.WAITING: logging.INFO,
    LinkState.ENDED: logging.INFO,
    LinkState.FAILED: logging.ERROR,
}
_OF_EVENT: Final = {
    Happened.OPENED: LinkState.WAITING,
    Happened.MISSING: LinkState.MISSING,
    Happened.LOST: LinkState.MISSING,
    Happened.SILENT: LinkState.SILENT,
    Happened.NO_FRAMES: LinkState.NO_FRAMES,
    Happened.FOUND: LinkState.OK,
}


@dataclass(slots=True)
class LinkCounts:
    """Counters of one source since the start."""

    octets: int = 0
    frames: int = 0
    readings: int = 0
    unread: int = 0
    without_time: int = 0
    left_out: int = 0
    reconnects: int = 0
    lost_lines: int = 0


class Link:
    """One source as its owner should see it. Every change of state is logged once, rejects once a minute.

    Methods may be called from any thread. `monotonic` is seconds.
    """

    def __init__(self, name: str, url: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.url = url
        self.counts = LinkCounts()
        self.rejects: Counter[Kind] = Counter()
        self.state = LinkState.WAITING
        self.words = "not opened yet"
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._begun = monotonic()
        self._last_frame: float | None = None
        self.meter: str | None = None
        """The meter heard last, in this process or, as `expect` said, before it."""
        self.replaced: set[str] = set()
        """Those in whose place another was heard: a source carries one meter."""
        self._exchanges: list[str] = []
        self._named: str | None = None
        self._last_reading: dict[str, float] = {}
        self._octets_without_frame = 0
        self._unread_in_a_row = 0
        self.unread_words = ""
        self._search = ""  # what is done while no frame checks, as the source told it
        self._found = ""  # with which speed and parity frames check
        self._findings: list[str] = []
        self._opened_before = False
        self._said: dict[str, OnceAMinute] = {}

    def happened(self, event: SourceEvent) -> None:
        """Take what the source says of itself."""
        with self._lock:
            if event.what is Happened.OPENED:
                self.counts.reconnects += self._opened_before
                self._opened_before = True
                self._octets_without_frame = 0
            elif event.what is Happened.NO_FRAMES:
                self._search = event.message
            elif event.what is Happened.FOUND:
                self._found, self._findings = event.message, [event.message]
            self._become(_OF_EVENT[event.what], event.message, news=event.what in (Happened.NO_FRAMES, Happened.FOUND))

    def hear(self, size: int) -> None:
        """A chunk of so many bytes came."""
        with self._lock:
            self.counts.octets += size
            self._octets_without_frame += size

    def decoded(self) -> None:
        """A message came, and was decoded."""
        with self._lock:
            self._message()
            self._unread_in_a_row = 0
            self._become(LinkState.OK, f"reading {self.name}" + (f"; {self._found}" if self._found else ""))

    def undecoded(self, reason: str) -> None:
        """A message came that cannot be decoded."""
        with self._lock:
            self._message()
            self.counts.unread += 1
            self._unread_in_a_row += 1
            self.unread_words = reason
            self._say("unread", f"a frame from {self.name} cannot be read: {reason}")
            if self._unread_in_a_row >= _UNREAD_FRAMES:
                self._become(LinkState.UNREADABLE, f"frames come from {self.name} and none can be read: {reason}")

    def rejected(self, rejected: Rejected) -> None:
        """Bytes came that belong to no message."""
        with self._lock:
            self.rejects[rejected.kind] += 1
            if rejected.kind is Kind.FILL or (rejected.offset == 0 and rejected.kind is Kind.NOISE):
                return  # flags between frames, and the rest of the frame that had begun before we listened
            self._say("rejected", f"{rejected.size} bytes from {self.name} are no frame: {rejected.reason}")

    def judge(self) -> None:
        """All of a chunk was looked at."""
        with self._lock:
            if self._octets_without_frame >= _GARBAGE_OCTETS:
                self._become(LinkState.NO_FRAMES, self._search or self._no_frame_words())

    def _no_frame_words(self) -> str:
        words = f"octets come from {self.name} but no frame in {self._octets_without_frame} of them: "
        if self.counts.frames:
            return words + "noise on the wires, or another program that reads the same port?"
        return words + "wrong parity or speed? If they are not found by itself, `han-exporter probe` looks for them"

    def findings(self) -> list[str]:
        """In words, the speed and parity that were found by trying since this was last asked (the last ones)."""
        with self._lock:
            told, self._findings = self._findings, []
            return told

    def expect(self, meter_id: str, *, named: bool) -> None:
        """The meter that was heard on this source before this process; `named`: it said so itself."""
        with self._lock:
            self.meter, self._named = meter_id, meter_id if named else None

    def read(self, meter_id: str, *, named: bool = True, timed: bool = True) -> None:
        """A reading of this meter is on its way; `named`: it said so itself, `timed`: it has a time."""
        with self._lock:
            now = self._monotonic()
            self.counts.readings += 1
            self.counts.without_time += not timed
            if named and meter_id != self._named:
                self._exchanged(meter_id, now)
            if self.meter not in (None, meter_id) and len(self.replaced) < _METERS:
                self.replaced.add(str(self.meter))
            self.replaced.discard(meter_id)
            self.meter = meter_id
            if len(self._last_reading) < _METERS or meter_id in self._last_reading:
                self._last_reading[meter_id] = now

    def _exchanged(self, meter_id: str, now: float) -> None:
        before, self._named = self._named, meter_id
        if before is not None and now - self._last_reading.get(meter_id, float("-inf")) > _SWAPPED_AFTER_S:
            self._exchanges = [*self._exchanges[-1:], f"{self.name}: meter {meter_id} in place of {before}"]

    def exchanges(self) -> list[str]:
        """In words, each time that a meter took another's place since this was last asked (the last two)."""
        with self._lock:
            told, self._exchanges = self._exchanges, []
            return told

    def forget(self, meter_id: str) -> None:
        """Nothing more of this meter before it is heard again."""
        with self._lock:
            self._last_reading.pop(meter_id, None)
            if self._named == meter_id:
                self._named = None

    def ended(self, words: str) -> None:
        """The source has no more."""
        with self._lock:
            self._become(LinkState.ENDED, words)

    def failed(self, words: str) -> None:
        """The source cannot be read, and will not mend itself."""
        with self._lock:
            self._become(LinkState.FAILED, words)

    def _message(self) -> None:
        self.counts.frames += 1
        self._octets_without_frame, self._search = 0, ""
        self._last_frame = self._monotonic()

    def _become(self, state: LinkState, words: str, *, news: bool = False) -> None:
        quiet = state in (LinkState.OK, LinkState.NO_FRAMES) and not news
        if state is not self.state or (words != self.words and not quiet):
            log.log(_LEVELS.get(state, logging.WARNING), "%s", words)
        self.state, self.words = state, words

    def _say(self, what: str, words: str) -> None:
        limiter = self._said.setdefault(what, OnceAMinute(self._monotonic))
        if limiter.due():
            log.warning("%s%s", words, f" ({limiter.count} so far)" if limiter.count > 1 else "")

    def frame_age(self) -> float:
        """Seconds since the last frame, or since the start."""
        with self._lock:
            return self._monotonic() - (self._begun if self._last_frame is None else self._last_frame)

    def reading_ages(self) -> dict[str, float]:
        """Meter id -> seconds since its last reading."""
        with self._lock:
            now = self._monotonic()
            return {meter_id: now - at for meter_id, at in self._last_reading.items()}

    def snapshot(self) -> dict[str, Any]:
        """All of it, for `check` and for whoever asks."""
        counts = self.counts
        return {
            "name": self.name,
            "source": self.url,
            "state": self.state.name.lower(),
            "words": self.words,
            "octets": counts.octets,
            "frames": counts.frames,
            "readings": counts.readings,
            "unread": counts.unread,
            "reconnects": counts.reconnects,
            "rejects": {kind.value: count for kind, count in sorted(self.rejects.items(), key=lambda kv: kv[0].value)},
            "frame_age_s": round(self.frame_age(), 1),
            "reading_age_s": {meter_id: round(age, 1) for meter_id, age in self.reading_ages().items()},
        }
