"""Compares what was sent with what InfluxDB has: nothing missing, nothing twice, nothing that was not sent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from exporter.counted import counted
from exporter.sources.serial.port import MAX_READ
from tests.e2e.truth import HOUR, point
from tests.faults.frames import NUMBERED, OF_REGISTER
from tests.faults.meter import KILLED, STOPPED, UNPLUGGED, Ledger, Sent, Session
from tests.support.influx_server import Point

MEASUREMENTS: Final = frozenset(
    {"active_power", "reactive_power", "current", "voltage", "active_energy", "reactive_energy"}
)
EARLY_MS: Final = 50
LATE_MS: Final = 3000
"""Bounds of a reading's time: before the first byte of its frame, and after the last one, without SIGSTOP."""
_NEAR_HOUR: Final = 6 * 60_000

_LEFT: Final = {
    KILLED: "still in the kernel when killed",
    STOPPED: "sent after SIGTERM and not read any more",
    UNPLUGGED: "still in the kernel when unplugged",
}

Pauses = Sequence[tuple[float, float]]
"""When the exporter was stopped (SIGSTOP): from, to, in ms since 1970."""


@dataclass(slots=True)
class Verdict:
    """Counts of what was checked, and what is wrong, as text."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    latest_ms: float = 0.0

    def add(self, other: Verdict) -> None:
        """Add another one."""
        self.counts += other.counts
        self.wrong += other.wrong
        self.latest_ms = max(self.latest_ms, other.latest_ms)


def judge(ledger: Ledger, points: Iterable[Point], pauses: Pauses = ()) -> Verdict:
    """Compare a meter's ledger with all points of that meter."""
    return _Judge(ledger, points, pauses).verdict


class _Judge:
    def __init__(self, ledger: Ledger, points: Iterable[Point], pauses: Pauses) -> None:
        self.verdict = Verdict()
        self._ledger = ledger
        self._pauses = pauses
        self._points = {p for p in points if p.measurement in MEASUREMENTS}
        self._times = _times_by_value(self._points, "active_power", f":{NUMBERED}", 1)
        self._register_times = _times_by_value(self._points, "active_energy", f":{OF_REGISTER}", 10)
        self._accounted: set[Point] = set()
        for session in ledger.sessions:
            self._session(session)
        for sent in ledger.unread.values():
            self._count("sent while nobody was known to read")
            if sent.number in self._times:
                self._count("of these found")
                self._compare(sent)
        self._unknown_points()

    def _count(self, what: str, times: int = 1) -> None:
        self.verdict.counts[what] += times

    def _report(self, kind: str, words: str) -> None:
        self._count(kind)
        self.verdict.wrong.append(f"{self._ledger.meter_id}: {kind}: {words}")

    def _session(self, session: Session) -> None:
        handed = math.inf if session.handed is None else session.handed
        here = [sent for sent in session.frames if sent.end <= handed]
        self._count("sent", len(session.frames))
        self._count(_LEFT.get(session.how or "", "not read"), len(session.frames) - len(here))
        for sent in session.frames[len(here) :]:
            if sent.number in self._times:
                self._report("unknown", f"frame {sent.number} was found, and the kernel still had it")
                self._compare(sent)
        missing = [sent for sent in here if sent.number not in self._times]
        for sent in here:
            if sent.number in self._times:
                self._count("found")
                self._compare(sent)
        if missing and not self._was_being_kept(session, here, missing):
            for sent in missing:
                self._report("missing", f"frame {sent.number} of {sent.done:.0f}, {_words(session, sent)}")

    def _was_being_kept(self, session: Session, here: list[Sent], missing: list[Sent]) -> bool:
        """Whether these are from the last read() before a kill: the last frames, at most what one read() returns."""
        if session.how != KILLED or session.handed is None or missing != here[-len(missing) :]:
            return False
        if session.handed - missing[0].end >= MAX_READ:
            return False
        self._count("read and not kept when killed", len(missing))
        self._count("kills with frames that were not kept")
        return True

    def _compare(self, sent: Sent) -> None:
        """Check that InfluxDB has all values of a frame at one time, which is possible for the frame."""
        time, *more = self._times[sent.number]
        if more:
            self._report("doubled", f"frame {sent.number} was found at {time} and {more}")
        late = time - sent.done - sum(max(0.0, min(time, end) - max(sent.done, begin)) for begin, end in self._pauses)
        if sent.done < math.inf:
            self.verdict.latest_ms = max(self.verdict.latest_ms, late)
        if time < sent.begun - EARLY_MS or late > LATE_MS:
            self._report(
                "wrong time", f"frame {sent.number} is at {time}, sent from {sent.begun:.0f} to {sent.done:.0f}"
            )
        register_time = self._register_time(sent, time)
        for obis, value in sent.values.items():
            wanted = point(obis, self._ledger.meter_id, register_time if ".8." in obis else time, value)
            if wanted in self._points:
                self._count("points found")
                self._accounted.add(wanted)
            else:
                self._report("missing", f"frame {sent.number} at {time} has no {wanted}")

    def _register_time(self, sent: Sent, time: int) -> int:
        """Registers of an hourly list have the time of the full hour near it, others the reading's (docs/schema.md)."""
        if not any(obis.endswith(f":{OF_REGISTER}") for obis in sent.values):
            return time
        found = self._register_times.get(sent.number, [])
        if len(found) > 1:
            self._report("doubled", f"registers of frame {sent.number} were found at {found}")
        if found and found[0] != time and (found[0] % HOUR or abs(found[0] - time) > _NEAR_HOUR):
            self._report("wrong time", f"registers of frame {sent.number} at {time} are at {found[0]}")
        return found[0] if found else time

    def _unknown_points(self) -> None:
        for number in sorted(self._ledger.damaged & set(self._times)):
            self._report("unknown", f"frame {number} was found, and was never sent whole")
        self._count("damaged, and not found", len(self._ledger.damaged - set(self._times)))
        for one in sorted(self._points - self._accounted, key=lambda p: p.time)[:20]:
            self._report("unknown", f"{one} was not sent")


def _times_by_value(points: Iterable[Point], measurement: str, obis: str, of_number: int) -> dict[int, list[int]]:
    """A frame's number -> the times at which it was found."""
    found: dict[int, list[int]] = {}
    for one in points:
        if one.measurement == measurement and dict(one.tags).get("obis", "").endswith(obis):
            found.setdefault(round(dict(one.fields)["value"] / of_number), []).append(one.time)
    return {number: sorted(times) for number, times in found.items()}


def _words(session: Session, sent: Sent) -> str:
    if session.handed is None:
        return "of a session that did not end"
    size = session.handed - sent.end
    return f"{counted(size, 'byte')} before the end of what was read until the exporter was {session.how}"


def figures(counts: Mapping[str, int]) -> str:
    """Counts, one on each line."""
    return "\n".join(f"  {count:>9}  {what}" for what, count in sorted(counts.items()))
