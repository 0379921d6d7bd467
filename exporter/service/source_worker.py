"""One source's way from octets to the outbox, and the state that its points are derived from."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from exporter.derive import points
from exporter.derive.deriver import Deriver
from exporter.model import point
from exporter.model.reading import Placed
from exporter.outbox.memory_queue import Straight
from exporter.outbox.queue import Outbox, OutboxError
from exporter.pipeline.decoder import Heard, Intake
from exporter.pipeline.host_clock import HostTime
from exporter.pipeline.link import Link
from exporter.pipeline.placing import NAMELESS_WAIT_MS, Placer
from exporter.service.forgetting import state_of
from exporter.service.piggyback import Aboard
from exporter.sources.contract import Chunk, Happened, Learns, Source, SourceError, SourceEvent

if TYPE_CHECKING:
    from exporter.config import Settings

log = logging.getLogger(__name__)

_PAST: Final = timedelta(minutes=1)
_GATHERED_LINES: Final = 2000


class Reader:
    """One source's way to the outbox: octets -> readings -> lines, and the state they were derived from.

    What one chunk brought goes into the outbox in one transaction, with the new state. Chunks of the past (a capture,
    the simulator's backfill) can be had again, and go in together, to spare the disk; what is `aboard` goes along.
    """

    def __init__(
        self,
        source: Source,
        link: Link,
        outbox: Outbox,
        settings: Settings,
        straight: Straight | None = None,
        aboard: Aboard | None = None,
    ) -> None:
        self.source = source
        self.link = link
        self.failed: str | None = None
        self._outbox = outbox
        self._intake = Intake(settings.zone)
        state = outbox.states(f"last_id:{source.name}") | outbox.states("clock:")
        self._placer = Placer(source.name, zone=settings.zone, fallback=settings.meter_id, state=state)
        expected, named = self._placer.expected
        link.expect(expected, named=named)
        self._deriver = Deriver(settings, outbox.get_state)
        self._host_time = HostTime()
        self._lock = threading.Lock()
        self._waiting_since: float | None = None
        self._gathered: list[str] = []
        self._unkept: dict[str, str] = {}
        self._straight = straight
        self._aboard = aboard
        if isinstance(source, Learns):
            source.learnt = outbox.get_state(f"line:{source.name}") or ""

    def run(self, stop: threading.Event) -> None:
        """Read until `stop`, or until the source has an end."""
        try:
            for chunk in self.source.chunks(stop, self._report):
                self.take(chunk)
            if not stop.is_set():
                counts = self.link.counts
                if counts.octets and not counts.frames:
                    log.warning(
                        "%s has ended: no frame in %d octets; is it a capture?", self.source.name, counts.octets
                    )
                self.link.ended(f"{self.source.name} has ended")
        except SourceError as error:
            self.failed = str(error)
            self.link.failed(str(error))
        except Exception as error:  # a bug must not stop the other sources, nor what waits in the outbox
            self.failed = f"{type(error).__name__}: {error}"
            self.link.failed(f"reading {self.source.name} broke: {self.failed}")
            log.exception("reading %s broke; please report this", self.source.name)
        finally:
            with self._lock:
                ended = not self.source.live and not stop.is_set()
                self._keep(self._placer.give_up(all_heard=ended), gather=False)
            if ended and self.link.counts.without_time:
                log.warning(
                    "%s: of %d readings %d had no time, and are left out: these lists have no clock, and the file has "
                    "no time stamps (`han-exporter capture` records with them)",
                    self.source.name,
                    self.link.counts.readings,
                    self.link.counts.without_time,
                )

    def _report(self, event: SourceEvent) -> None:
        self.link.happened(event)
        if event.what is Happened.FOUND and isinstance(self.source, Learns):
            with self._lock:  # kept with the frame that it was found by
                self._unkept[f"line:{self.source.name}"] = self.source.learnt

    def take(self, chunk: Chunk) -> None:
        """Bring one chunk into the outbox."""
        with self._lock:
            outcomes = self._intake.feed(chunk.data, chunk.received, chunk.byte_seconds)
            self.link.heard(len(chunk.data), outcomes)
            age = None if chunk.received is None else datetime.now(UTC) - chunk.received
            ours = self.source.live and age is not None and abs(age) < _PAST  # stamped by this computer's clock
            placed = []
            for outcome in outcomes:
                if isinstance(outcome, Heard):
                    reading = outcome.reading
                    if ours:
                        reading = self._host_time.mend(reading, self._placer.clock_of(reading))
                    placed += self._placer.place(reading)
            self._keep(placed, gather=age is None or age > _PAST or not self.source.live)

    @property
    def clock_trusted(self) -> bool:
        """False while readings take another time than this computer's, or would if any meter told one."""
        return self._host_time.trusted

    def now(self, now_ms: int) -> list[str]:
        """The lines that speak of now."""
        with self._lock:
            return list(self._deriver.now(now_ms))

    @contextmanager
    def forgetting(self, meter_id: str) -> Iterator[None]:
        """Let go of all that is known of a meter, and of its lines that were gathered; nothing is read meanwhile."""
        with self._lock:
            doomed = point.is_of(meter_id)
            self._gathered = [line for line in self._gathered if not doomed(line)]
            for key in state_of(self._unkept, meter_id):
                del self._unkept[key]
            for room in (self._placer, self._deriver, self.link):
                room.forget(meter_id)
            yield

    def look_at_waiting(self, now: float) -> None:
        """Let those go that were gathered, or that wait for a meter's name since 60 s; `now` is monotonic."""
        with self._lock:
            since = self._waiting_since
            over = self.source.live and since is not None and now - since >= NAMELESS_WAIT_MS / 1000
            self._keep(self._placer.give_up(all_heard=False) if over else [], gather=False)

    def _keep(self, placed: Sequence[Placed], *, gather: bool) -> None:
        lines = self._gathered
        for one in placed:
            # What a capture holds is no news, though it be read now.
            self.link.read(one.meter_id, named=self.source.live and one.reading.meter.id is not None)
            if one.time is None:
                self.link.counts.without_time += 1
                continue
            lines += points.lines(one)
            lines += self._deriver.of(one)
        self.link.counts.left_out = self._placer.left_out
        if not self._placer.waiting:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = time.monotonic()
        if gather and len(lines) < _GATHERED_LINES:
            return
        self._gathered = []
        lines += self._deriver.months()
        state = self._unkept | self._placer.new_state() | self._deriver.new_state()
        if not lines and not state:
            return
        if self._aboard is not None:
            lines = self._aboard.take(time.monotonic()) + lines  # these are older
        try:
            rows = point.rows_of(lines)
            self._outbox.append(rows, state)
            self._unkept = {}
            self._deriver.kept()
        except OutboxError as error:
            self._unkept = state  # what was learnt is still true when there is room again
            if self._straight is not None:
                self.link.counts.lost_lines += self._straight.put(rows, str(error))
                self._outbox.wake()
                return
            self.link.counts.lost_lines += len(lines)
            log.error("%d lines are lost, since the outbox takes none: %s", len(lines), error)
