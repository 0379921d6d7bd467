"""What one source does: counts, a state, and a message about it. `run`, `check`, `watch` and the metrics show the same.

A state changes when something happens. What only shows with time (nothing was received for 30 s) is in `condition`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, NamedTuple

from exporter.counted import counted
from exporter.limiter import OnceAMinute
from exporter.protocol.framing import Kind, Rejected
from exporter.sources.contract import Happened, SourceEvent

__all__ = ["NO_BYTES", "READING", "Condition", "Level", "Link", "LinkCounts", "LinkState"]

log = logging.getLogger(__name__)

NO_BYTES: Final = "no bytes"
"""Kind of the condition of an open source that gave no byte yet."""
READING: Final = "reading"
"""Kind of the condition in which there is nothing to tell."""

_NO_FRAME_BYTES: Final = 1024
"""So many bytes without a frame are not the rest of one: parity or speed are wrong."""
_UNDECODED_FRAMES: Final = 3
_FIRST_FRAME_S: Final = 15.0
"""With bytes and no frame for so long something is wrong: every meter sends a list within 10 s."""
_OVERDUE_S: Final = 30.0
"""As _FIRST_FRAME_S, after the first frame."""
_METERS: Final = 1024
"""How many meters are remembered, so that memory stays bounded."""
_EXCHANGED_AFTER_S: Final = 600.0
"""Two meters can send in turn on one source. Only one that sent nothing for so long is reported as exchanged."""


class Level(Enum):
    """How good a state is."""

    WELL = "well"
    WAITING = "waiting"
    WRONG = "wrong"


class LinkState(Enum):
    """What a source does. The value is the number in the metrics."""

    WAITING = 0
    """Nothing is known yet: the source is opened, or is about to be."""
    OK = 1
    MISSING = 2
    SILENT = 3
    NO_FRAMES = 4
    """Bytes come, but no frame: wrong parity or speed."""
    UNREADABLE = 5
    """Frames come, but none can be decoded: encrypted, or an unknown list."""
    ENDED = 6
    FAILED = 7
    """The source can never work as it is configured: a directory, an ordinary file."""

    @property
    def label(self) -> str:
        """The name in the status."""
        return self.name.lower()

    @property
    def level(self) -> Level:
        """How good it is."""
        return _STATES[self].level

    @property
    def can_pass(self) -> bool:
        """False if somebody has to change something before it ends."""
        return _STATES[self].can_pass


class _Facts(NamedTuple):
    level: Level
    log_level: int
    can_pass: bool = True


_STATES: Final[Mapping[LinkState, _Facts]] = {
    LinkState.WAITING: _Facts(Level.WAITING, logging.INFO),
    LinkState.OK: _Facts(Level.WELL, logging.INFO),
    LinkState.MISSING: _Facts(Level.WRONG, logging.WARNING),
    LinkState.SILENT: _Facts(Level.WRONG, logging.WARNING),
    LinkState.NO_FRAMES: _Facts(Level.WRONG, logging.WARNING),
    LinkState.UNREADABLE: _Facts(Level.WRONG, logging.WARNING, can_pass=False),
    LinkState.ENDED: _Facts(Level.WELL, logging.INFO),
    LinkState.FAILED: _Facts(Level.WRONG, logging.ERROR, can_pass=False),
}
_OF_EVENT: Final[Mapping[Happened, LinkState]] = {
    Happened.OPENED: LinkState.WAITING,
    Happened.MISSING: LinkState.MISSING,
    Happened.LOST: LinkState.MISSING,
    Happened.SILENT: LinkState.SILENT,
    Happened.NO_FRAMES: LinkState.NO_FRAMES,
    Happened.FOUND: LinkState.OK,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """How a source is at one moment. `kind` stays the same while only the figures in the message change."""

    level: Level
    kind: str
    message: str


@dataclass(slots=True)
class LinkCounts:
    """Counters of one source since the start. `messages` are the frames, `undecoded` those that cannot be decoded.

    `rejected` are the rejects that a healthy line does not have: not the fill between frames, and not the rest of a
    frame that had begun when the source was opened.
    """

    bytes: int = 0
    messages: int = 0
    undecoded: int = 0
    rejected: int = 0
    readings: int = 0
    without_time: int = 0
    left_out: int = 0
    reconnects: int = 0
    lost_lines: int = 0


class Link:
    """One source as its owner sees it. `message` explains `state`.

    Every change is logged once, and rejects once a minute; `quiet` logs nothing. `meter` is the meter that sent last,
    before this process too (`expect`). `replaced` are the meters in whose place another one sent: a source carries one
    meter. `last_reject` is the reason of the last of the counted rejects. Methods may be called from any thread.
    `monotonic` is in seconds.
    """

    def __init__(
        self, name: str, url: str, monotonic: Callable[[], float] = time.monotonic, *, quiet: bool = False
    ) -> None:
        self.name = name
        self.url = url
        self.counts = LinkCounts()
        self.rejects: Counter[Kind] = Counter()
        self.last_reject = ""
        self.state = LinkState.WAITING
        self.message = "not opened yet"
        self.meter: str | None = None
        self.replaced: set[str] = set()
        self._kind = self.message
        self._quiet = quiet
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._started = self._last_byte = self._opened = monotonic()
        self._first_byte: float | None = None  # since the source was opened
        self._last_message: float | None = None
        self._bytes_without_message = 0
        self._undecoded_in_a_row = 0
        self._undecoded_reason = ""
        self._search = ""  # what the source does while there is no frame
        self._reading = f"reading {name}", READING  # message and kind of OK
        self._opened_before = False
        self._named: str | None = None  # the last meter whose list had its id
        self._last_reading: dict[str, float] = {}
        self._findings: list[str] = []
        self._exchanges: list[str] = []
        self._undecoded_limiter, self._rejected_limiter = OnceAMinute(monotonic), OnceAMinute(monotonic)

    # --- what happens -----------------------------------------------------------------------------------------------

    def happened(self, event: SourceEvent) -> None:
        """Take an event that the source reported."""
        with self._lock:
            if event.what is Happened.OPENED:
                self.counts.reconnects += self._opened_before
                self._opened_before = True
                self._bytes_without_message, self._first_byte = 0, None
                self._opened = self._monotonic()
            elif event.what is Happened.NO_FRAMES:
                self._search = event.message
            elif event.what is Happened.FOUND:
                self._findings = [event.message]
                self._reading = f"reading {self.name}; {event.message}", event.message
            self._become(_OF_EVENT[event.what], event.message)

    def hear(self, size: int) -> None:
        """A chunk of so many bytes was received."""
        if not size:
            return
        with self._lock:
            self._last_byte = self._monotonic()
            if self._first_byte is None:
                self._first_byte = self._last_byte
            self.counts.bytes += size
            self._bytes_without_message += size

    def decoded(self) -> None:
        """A message was received and decoded."""
        with self._lock:
            self._count_message()
            self._undecoded_in_a_row = 0
            self._become(LinkState.OK, *self._reading)

    def undecoded(self, reason: str) -> None:
        """A message was received that cannot be decoded."""
        with self._lock:
            self._count_message()
            self.counts.undecoded += 1
            self._undecoded_in_a_row += 1
            self._undecoded_reason = reason
            self._log_at_times(self._undecoded_limiter, f"a frame from {self.name} cannot be decoded: {reason}")
            if self._undecoded_in_a_row >= _UNDECODED_FRAMES:
                self._become(LinkState.UNREADABLE, self._unreadable_message(), LinkState.UNREADABLE.label)

    def rejected(self, rejected: Rejected) -> None:
        """Bytes were received that belong to no message."""
        with self._lock:
            self.rejects[rejected.kind] += 1
            if rejected.kind is Kind.FILL or (rejected.offset == 0 and rejected.kind is Kind.NOISE):
                return
            self.counts.rejected += 1
            self.last_reject = rejected.reason
            size = counted(rejected.size, "byte")
            self._log_at_times(self._rejected_limiter, f"no frame in {size} from {self.name}: {rejected.reason}")

    def judge(self) -> None:
        """A chunk was used up."""
        with self._lock:
            if self._bytes_without_message >= _NO_FRAME_BYTES:
                message = self._search or self._no_frame_message()
                self._become(LinkState.NO_FRAMES, message, self._search or LinkState.NO_FRAMES.label)

    def expect(self, meter_id: str, *, named: bool) -> None:
        """This meter sent last before this process began; `named` is True if its list had the id."""
        with self._lock:
            self.meter, self._named = meter_id, meter_id if named else None

    def read(self, meter_id: str, *, named: bool = True, timed: bool = True) -> None:
        """There is a reading of this meter; `named` is True if its list had the id, `timed` if it has a time."""
        with self._lock:
            now = self._monotonic()
            self.counts.readings += 1
            self.counts.without_time += not timed
            if named and meter_id != self._named:
                self._exchange(meter_id, now)
            if self.meter not in (None, meter_id) and len(self.replaced) < _METERS:
                self.replaced.add(str(self.meter))
            self.replaced.discard(meter_id)
            self.meter = meter_id
            if len(self._last_reading) < _METERS or meter_id in self._last_reading:
                self._last_reading[meter_id] = now

    def forget(self, meter_id: str) -> None:
        """Remove what is known of this meter."""
        with self._lock:
            self._last_reading.pop(meter_id, None)
            if self._named == meter_id:
                self._named = None

    def ended(self) -> None:
        """The source was read to its end."""
        with self._lock:
            message = f"{self.name} was read to its end"
            if self.counts.messages:
                self._become(LinkState.ENDED, message)
                return
            last = f" (the last reject: {self.last_reject})" if self.last_reject else ""
            message += f": no frame in {counted(self.counts.bytes, 'byte')}{last}; is it a capture?"
            self._become(LinkState.ENDED, message, log_level=logging.WARNING)

    def failed(self, message: str) -> None:
        """The source cannot be read, and trying again does not help."""
        with self._lock:
            self._become(LinkState.FAILED, message)

    # --- what is known ----------------------------------------------------------------------------------------------

    def condition(self, now: float | None = None, *, patience: float = _FIRST_FRAME_S) -> Condition:
        """How the source is now, or at `now` (monotonic).

        `patience` is how long bytes may come before the first frame, in seconds, until that is wrong.
        """
        with self._lock:
            now = self._monotonic() if now is None else now
            counts, own = self.counts, Condition(self.state.level, self._kind, self.message)
            if own.level is Level.WRONG:
                return own
            if counts.messages and counts.undecoded == counts.messages:
                return Condition(Level.WRONG, LinkState.UNREADABLE.label, self._unreadable_message())
            if self.state is LinkState.ENDED:
                return own if counts.messages else replace(own, level=Level.WRONG)
            return (self._late(now) if counts.messages else self._before_first_frame(now, patience)) or own

    def _before_first_frame(self, now: float, patience: float) -> Condition | None:
        if self.state is LinkState.OK:  # found: the frame is in the next chunk
            return None
        awaited = (
            f"waiting for the first list from {self.name}: Kamstrup meters send one every 10 s, Aidon and Kaifa meters "
            "every 2 s"
        )
        if self._first_byte is None:
            return Condition(Level.WAITING, NO_BYTES, awaited)
        if now - self._first_byte < patience:
            return Condition(Level.WAITING, "no frame yet", f"{awaited}; bytes are received")
        return Condition(Level.WRONG, LinkState.NO_FRAMES.label, self._no_frame_message())

    def _late(self, now: float) -> Condition | None:
        assert self._last_message is not None
        silent = now - max(self._last_byte, self._opened)
        if silent > _OVERDUE_S:
            return Condition(
                Level.WRONG, LinkState.SILENT.label, f"nothing was received from {self.name} for {silent:.0f} s"
            )
        late = now - max(self._last_message, self._opened)
        if late > _OVERDUE_S and self._bytes_without_message:
            reason = self.last_reject or "all are incomplete"
            message = f"bytes come from {self.name}, but no valid frame for {late:.0f} s ({reason})"
            return Condition(Level.WRONG, "no frame any more", message)
        return None

    def take_findings(self) -> list[str]:
        """Remove and return messages about speed and parity that were found; at most the last one."""
        with self._lock:
            findings, self._findings = self._findings, []
            return findings

    def take_exchanges(self) -> list[str]:
        """Remove and return messages about meters that took the place of another; at most the last two."""
        with self._lock:
            exchanges, self._exchanges = self._exchanges, []
            return exchanges

    def message_age(self) -> float:
        """Seconds since the last message, or since the start."""
        with self._lock:
            return self._monotonic() - (self._started if self._last_message is None else self._last_message)

    def reading_ages(self) -> dict[str, float]:
        """Meter id -> seconds since its last reading."""
        with self._lock:
            now = self._monotonic()
            return {meter_id: now - at for meter_id, at in self._last_reading.items()}

    def snapshot(self) -> dict[str, Any]:
        """All of it, as it is in the status. Scripts read it: the keys keep their names."""
        counts = self.counts
        return {
            "name": self.name,
            "source": self.url,
            "state": self.state.label,
            "words": self.message,
            "octets": counts.bytes,
            "frames": counts.messages,
            "readings": counts.readings,
            "unread": counts.undecoded,
            "reconnects": counts.reconnects,
            "rejects": {kind.value: count for kind, count in sorted(self.rejects.items(), key=lambda kv: kv[0].value)},
            "frame_age_s": round(self.message_age(), 1),
            "reading_age_s": {meter_id: round(age, 1) for meter_id, age in self.reading_ages().items()},
        }

    # --- with the lock ----------------------------------------------------------------------------------------------

    def _count_message(self) -> None:
        self.counts.messages += 1
        self._bytes_without_message, self._search = 0, ""
        self._last_message = self._monotonic()

    def _exchange(self, meter_id: str, now: float) -> None:
        before, self._named = self._named, meter_id
        if before is not None and now - self._last_reading.get(meter_id, float("-inf")) > _EXCHANGED_AFTER_S:
            self._exchanges = [*self._exchanges[-1:], f"{self.name}: meter {meter_id} in place of {before}"]

    def _no_frame_message(self) -> str:
        message = f"bytes come from {self.name}, but no frame in {counted(self._bytes_without_message, 'byte')}: "
        if self.counts.messages:
            return message + "noise on the wires, or another program that reads the same port?"
        return message + (
            f"wrong parity or speed? Run `han-exporter probe {self.url}` if they are not found automatically (only one "
            "program can read a port)"
        )

    def _unreadable_message(self) -> str:
        return f"frames come from {self.name} and none can be decoded: {self._undecoded_reason}"

    def _become(self, state: LinkState, message: str, kind: str = "", log_level: int | None = None) -> None:
        """Change the state, and log the message if state or kind changed. Without `kind`, the message is its own."""
        kind = kind or message
        if state is not self.state or kind != self._kind:
            self._log(log_level or _STATES[state].log_level, message)
        self.state, self.message, self._kind = state, message, kind

    def _log_at_times(self, limiter: OnceAMinute, message: str) -> None:
        if limiter.due():
            self._log(logging.WARNING, message + (f" ({limiter.count} so far)" if limiter.count > 1 else ""))

    def _log(self, level: int, message: str) -> None:
        if not self._quiet:
            log.log(level, "%s", message)
