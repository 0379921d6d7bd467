"""One source of `run`: a thread that reads it, and appends what its pipeline gives to the outbox."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from exporter.counted import counted
from exporter.model import point
from exporter.model.point import Row
from exporter.outbox.queue import Outbox, OutboxError
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.pipeline import PAST, Fed, Pipeline
from exporter.sources.contract import Chunk, Happened, Remembers, Source, SourceError, SourceEvent

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.outbox.memory_queue import MemoryQueue
    from exporter.pipeline.link import Link
    from exporter.service.piggyback import Piggyback

__all__ = ["SourceWorker"]

log = logging.getLogger(__name__)

_GATHERED_SIZE: Final = 256 << 10
"""Bytes of lines of the past that are appended in one transaction: some 2000 lines."""


class SourceWorker:
    """One source, its pipeline, and its way to the outbox.

    Rows and new state of a chunk are appended in one transaction. Chunks of the past (a capture, the backfill of the
    simulator) can be read again: to spare the disk, many of them are appended together. Lines that wait in `piggyback`
    are appended with the next chunk. Rows that the outbox cannot take go to `memory`. `failed` is the error that ended
    the source.
    """

    def __init__(
        self,
        source: Source,
        link: Link,
        outbox: Outbox,
        settings: Settings,
        memory: MemoryQueue | None = None,
        piggyback: Piggyback | None = None,
    ) -> None:
        self.source = source
        self.link = link
        self.failed: str | None = None
        self._outbox = outbox
        self._pipeline = Pipeline(source.name, settings, outbox, HostClock(), live=source.live, link=link)
        self._lock = threading.Lock()
        self._gathered: list[Row] = []
        self._size = 0  # bytes of the gathered rows
        self._remembered: dict[str, str] = {}  # state of the source itself that is not in the outbox yet
        self._memory = memory
        self._piggyback = piggyback
        if isinstance(source, Remembers):
            source.remembered = outbox.get_state(f"line:{source.name}") or ""

    def run(self, stop: threading.Event) -> None:
        """Read until `stop`, or until the source has an end."""
        try:
            for chunk in self.source.chunks(stop, self._report):
                self.take(chunk)
            if not stop.is_set():
                self.link.ended()
        except SourceError as error:
            self.failed = str(error)
            self.link.failed(str(error))
        except Exception as error:  # a bug must not stop the other sources and the writer
            self.failed = f"{type(error).__name__}: {error}"
            self.link.failed(f"reading {self.source.name} failed: {self.failed}")
            log.exception("reading %s failed; please report this", self.source.name)
        finally:
            ended = not self.source.live and not stop.is_set()
            with self._lock:
                self._keep(self._pipeline.end(all_heard=ended))
            if ended:
                self._log_without_time()

    def take(self, chunk: Chunk) -> None:
        """Feed a chunk to the pipeline, and append what it gives."""
        with self._lock:
            age = None if chunk.received is None else datetime.now(UTC) - chunk.received
            past = age is None or age > PAST or not self.source.live
            gather = past and self._size < _GATHERED_SIZE
            fed = self._pipeline.feed((chunk,), more=gather)
            if gather:
                self._gathered += fed.rows
                self._size += sum(len(row.body) for row in fed.rows)
            else:
                self._keep(fed)

    def tick(self) -> None:
        """Append gathered rows, and lists that waited too long for a meter id. Call it every second."""
        with self._lock:
            self._keep(self._pipeline.tick())

    def now(self, now_ms: int) -> list[str]:
        """The lines that are about the present moment."""
        with self._lock:
            return self._pipeline.now(now_ms)

    @property
    def clock_trusted(self) -> bool:
        """False while the clock of this computer is not used for readings."""
        return self._pipeline.clock_trusted

    @contextmanager
    def forgetting(self, meter_id: str) -> Iterator[None]:
        """Remove everything about a meter, also its gathered rows. No chunk is taken before the context ends."""
        with self._lock:
            self._gathered = point.without(self._gathered, meter_id)
            self._pipeline.forget(meter_id)
            yield

    def _report(self, event: SourceEvent) -> None:
        self.link.happened(event)
        if event.what is Happened.FOUND and isinstance(self.source, Remembers):
            with self._lock:  # appended with the next rows
                self._remembered[f"line:{self.source.name}"] = self.source.remembered

    def _keep(self, fed: Fed) -> None:
        """Append the gathered rows and these to the outbox, in one transaction."""
        rows = self._gathered + fed.rows
        self._gathered, self._size = [], 0
        state = self._remembered | fed.state
        if not rows and not state:
            return
        if self._piggyback is not None:
            rows = point.rows_of(self._piggyback.take(time.monotonic())) + rows  # the older ones first
        try:
            self._outbox.append(rows, state)
        except OutboxError as error:
            self._not_kept(rows, error)
            return
        self._remembered = {}
        self._pipeline.kept()

    def _not_kept(self, rows: list[Row], error: OutboxError) -> None:
        """The outbox took nothing. The state is not lost: the pipeline gives it again."""
        if self._memory is not None:
            self.link.counts.lost_lines += self._memory.put(rows, str(error))
            self._outbox.wake()
            return
        lost = sum(row.body.count(b"\n") + 1 for row in rows)
        self.link.counts.lost_lines += lost
        log.error("%s lost, because the outbox takes none: %s", counted(lost, "line"), error)

    def _log_without_time(self) -> None:
        counts = self.link.counts
        if counts.without_time:
            log.warning(
                "%s: %d of %s had no time and are left out: these lists have no clock, and the file has no time stamps "
                "(`han-exporter capture` records them)",
                self.source.name,
                counts.without_time,
                counted(counts.readings, "reading"),
            )
