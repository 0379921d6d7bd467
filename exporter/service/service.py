"""What `run` is: sources -> readings -> outbox -> InfluxDB.

Owns the threads and the order of stopping: one thread a source (read, decode, append), one for the writer, and the main
thread, which waits for a signal and writes the exporter's own metrics.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from exporter import __version__
from exporter.derive import points
from exporter.derive.derivations import backlog_threshold_lines, last_heard, limit_lines
from exporter.limiter import OnceAMinute
from exporter.meters import safe_text
from exporter.model import point
from exporter.model.calendar import to_ms
from exporter.outbox import rejected
from exporter.outbox.batch import Status
from exporter.outbox.memory_queue import MemoryQueue, OrderedOutbox
from exporter.outbox.queue import Outbox, OutboxError
from exporter.pipeline.link import Link
from exporter.service import own_points
from exporter.service.events import LineMarks, SourceMarks
from exporter.service.forgetting import forget
from exporter.service.metrics import ReadingAges, exporter_fields
from exporter.service.piggyback import Piggyback
from exporter.service.source_worker import SourceWorker
from exporter.service.status_socket import StatusServer, socket_path
from exporter.sinks.influx.client import Client
from exporter.sinks.writer import Writer
from exporter.sources.contract import Source

if TYPE_CHECKING:
    from exporter.config import Settings

log = logging.getLogger(__name__)

METRICS_EVERY_S: Final = 10.0
_SEND_AGAIN_S: Final = 10.0
_LISTEN_AGAIN_S: Final = 60.0
_THRESHOLD_EVERY_MS: Final = 5 * 60_000
_STOP_SOURCES_S: Final = 1.5
_STOP_WRITER_S: Final = 3.2


def name_apart(sources: Sequence[Source]) -> None:
    """Give the second source of a name `name-2`, and so on: what is kept of one must not be taken for the other's."""
    seen: Counter[str] = Counter()
    for source in sources:
        seen[source.name] += 1
        if seen[source.name] > 1:
            source.name = f"{source.name}-{seen[source.name]}"


class Service:
    """Everything that `run` owns. Raises OutboxError or ValueError when it cannot begin."""

    def __init__(self, settings: Settings, sources: Sequence[Source]) -> None:
        self._settings = settings
        name = settings.instance or platform.node()
        self._instance = safe_text(name.encode("utf-8", "surrogateescape")) or "han-exporter"
        self._stop = threading.Event()
        self._stop_writer = threading.Event()
        self._server: StatusServer | None = None
        self._listen_again = 0.0
        self._limits_told = 0
        self._started = datetime.now(UTC)
        self._memory = MemoryQueue() if settings.influx_url is not None else None
        self._outbox: Outbox = (
            Outbox(settings.outbox_path, max_bytes=settings.outbox_max, key_of=point.replaced_key)
            if self._memory is None
            else OrderedOutbox(
                settings.outbox_path, self._memory, max_bytes=settings.outbox_max, key_of=point.replaced_key
            )
        )
        name_apart(sources)
        self._piggyback = Piggyback(METRICS_EVERY_S, time.monotonic())
        self.workers = [
            SourceWorker(source, Link(source.name, url), self._outbox, settings, self._memory, self._piggyback)
            for source, url in zip(sources, settings.sources, strict=True)
        ]
        self._writer = self._make_writer(settings)
        self._ages = ReadingAges(self._heard_before())
        self._source_marks = [SourceMarks(worker.link) for worker in self.workers]
        self._outbox_words = OnceAMinute()
        self._last_status = self._first_status()
        self._line_marks = LineMarks(self._last_status.dropped_lines)

    def _heard_before(self) -> dict[str, int]:
        """When each meter was heard that was the last on its source, ms. Of a simulated one nothing is missed."""
        last = {*self._outbox.states("last_id:").values(), *(str(worker.link.meter) for worker in self.workers)}
        heard = last_heard(self._outbox.states("running:"))
        return {one: at for one, at in heard.items() if one in last and not one.startswith(points.SIMULATED)}

    def _make_writer(self, settings: Settings) -> Writer | None:
        if settings.influx_url is None:
            log.warning(
                "no InfluxDB is configured (HAN_INFLUX_URL): everything is kept in %s and sent once there is one",
                settings.outbox_path,
            )
            return None
        client = Client(
            settings.influx_url,
            bucket=settings.influx_bucket,
            token=settings.token(),
            org=settings.influx_org,
            ca_cert=settings.influx_ca_cert,
        )
        log.info("writing to %s, bucket %s", client.address, settings.influx_bucket)
        return Writer(self._outbox, client, memory=self._memory)

    def _send(self, writer: Writer) -> None:
        """The writer's thread: what breaks it is said, and it goes on."""
        while True:
            try:
                writer.run(self._stop_writer)
            except Exception:  # a bug must not end the sending, while the outbox fills unseen
                log.exception("sending to InfluxDB broke; please report this")
                self._stop_writer.wait(_SEND_AGAIN_S)
            if self._stop_writer.is_set():
                return

    def run(self) -> int:
        """Run until a signal, or until every source has ended. Returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        threads = [
            threading.Thread(target=worker.run, args=(self._stop,), name=worker.source.name, daemon=True)
            for worker in self.workers
        ]
        sender = None
        if self._writer is not None:
            sender = threading.Thread(target=self._send, args=(self._writer,), name="writer", daemon=True)
            sender.start()
        self._listen()
        self._event("start", f"han-exporter {__version__} started")
        for thread in threads:
            thread.start()
        try:
            self._until_stopped(threads)
        finally:
            self._end(threads, sender)
        return 2 if self.workers and all(worker.failed for worker in self.workers) else 0

    def _listen(self) -> None:
        """Let `check` ask; without it, what is read is read all the same, and it is tried again every minute."""
        if self._server is not None or time.monotonic() < self._listen_again:
            return
        first, self._listen_again = not self._listen_again, time.monotonic() + _LISTEN_AGAIN_S
        try:
            commands = {"forget": self.forget} | rejected.commands(self._outbox)
            self._server = StatusServer(self._outbox.path, self.status, commands)
        except OSError as error:
            if first:
                log.error(
                    "%s cannot be listened at (%s): readings are taken and sent, but `check`, `forget` and `rejected` "
                    "find nobody to ask, and a health check fails. Remove what is there, give this user the right to "
                    "write in that folder, or free some room; it is tried again every minute",
                    socket_path(self._outbox.path),
                    error.strerror or error,
                )

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        log.info("stopping (%s)", signal.Signals(number).name)
        self._stop.set()

    def _until_stopped(self, threads: Sequence[threading.Thread]) -> None:
        while not self._stop.wait(1.0 if any(worker.source.live for worker in self.workers) else 0.1):
            if not any(thread.is_alive() for thread in threads):
                log.info("every source has ended")
                self._wait_until_sent()
                return
            now = time.monotonic()
            for worker in self.workers:
                worker.tick()
            self._mark()
            self._listen()
            if self._piggyback.due(now):
                self._piggyback.put(self._metrics(), now)
            elif self._piggyback.late(now):
                self._append(self._piggyback.take(now))

    def _wait_until_sent(self) -> None:
        """All has been read: what waits is still sent, however long that takes, unless someone says stop."""
        while self._writer is not None and not self._stop.is_set():
            if not self._memory and not self._outbox_status().depth_lines:
                return
            self._stop.wait(0.1)

    def _end(self, threads: Sequence[threading.Thread], sender: threading.Thread | None) -> None:
        """Sources first, so that nothing comes in any more; then what is left goes out; then the file is closed."""
        self._stop.set()
        deadline = time.monotonic() + _STOP_SOURCES_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._mark()
        self._append(self._piggyback.take(time.monotonic()))
        self._event("stop", "han-exporter stopped")
        self._stop_writer.set()
        self._outbox.wake()
        if sender is not None:
            sender.join(_STOP_WRITER_S)
        if self._server is not None:
            self._server.close()
        left = self._outbox_status().depth_lines
        self._outbox.close()
        log.info("stopped; %s", f"{left} lines wait in {self._outbox.path}" if left else "nothing is left unsent")

    def _metrics(self) -> list[str]:
        """The exporter's own points. They speak of now, so without an InfluxDB nobody would ever need them."""
        if self._writer is None:
            return []
        ms = to_ms(datetime.now(UTC))
        links = [worker.link for worker in self.workers]
        lines = self._own_lines(ms, links)
        ages = self._ages.of(links, ms)
        lines += [own_points.reading_age_line(meter_id, age, ms) for meter_id, age in ages.items()]
        if not 0 <= ms - self._limits_told < _THRESHOLD_EVERY_MS:
            self._limits_told = ms
            lines += backlog_threshold_lines(self._settings, ms)
            for meter_id in self._ages.missed(ms):  # its age is told, so its limit is told too
                lines += limit_lines(self._settings, meter_id, ms)
        for worker in self.workers:
            lines += worker.now(ms)
        return lines

    def _first_status(self) -> Status:
        """What the outbox holds; one whose disk takes nothing may be there to be read, and holds nothing if not."""
        if not self._outbox.trouble:
            return self._outbox.status()
        with suppress(OutboxError), closing(Outbox(self._outbox.path, read_only=True)) as outbox:
            return outbox.status()
        return Status(depth_lines=0, oldest_age_s=None, size_bytes=0, dropped_lines=0, rejected_lines=0)

    def _outbox_status(self) -> Status:
        """What the outbox holds, or last held when it cannot be asked: a dying disk must not end the reading."""
        try:
            self._last_status = self._outbox.status()
            self._outbox_words.over()
        except OutboxError as error:
            if self._outbox_words.due():
                log.error("%s", error)
        return self._last_status

    def _own_lines(self, ms: int, links: Sequence[Link]) -> list[str]:
        """The exporter's counters, and what they have that is worth a mark."""
        assert self._writer is not None
        outbox, writer = self._outbox_status(), self._writer.status()
        fields = exporter_fields(
            links,
            {
                "outbox_depth": outbox.depth_lines,
                "outbox_age": outbox.oldest_age_s or 0.0,
                "outbox_bytes": outbox.size_bytes,
                "lines_dropped": outbox.dropped_lines,
                "lines_rejected": outbox.rejected_lines,
            },
            {
                "points_written": writer.points_written,
                "write_retries": writer.retries,
                "write_latency": writer.last_latency_s or 0.0,
            },
        )
        fields["clock_untrusted"] = float(not all(worker.clock_trusted for worker in self.workers))
        marks = self._line_marks.new(
            rejected=writer.lines_rejected,
            why=lambda: next((one.message for one in self._outbox.refused(1)), "it is no more"),
            lost=outbox.dropped_lines + sum(link.counts.lost_lines for link in links),
        )
        return [
            own_points.exporter_line(self._instance, fields, ms),
            *(own_points.event_line(self._instance, *mark, ms) for mark in marks),
        ]

    def _mark(self) -> None:
        for source in self._source_marks:
            for mark in source.new():
                self._event(*mark)

    def _event(self, kind: str, text: str) -> None:
        if self._writer is not None:
            self._append([own_points.event_line(self._instance, kind, text, to_ms(datetime.now(UTC)))])

    def _append(self, lines: Sequence[str]) -> None:
        rows = point.rows_of(lines)
        try:
            self._outbox.append(rows)
        except OutboxError as error:
            if self._memory is not None:
                self._memory.put(rows, str(error))
                self._outbox.wake()

    def forget(self, meter_id: str) -> dict[str, Any]:
        """Remove what is kept of a meter, for `forget`: what was removed, or `error` in words."""
        self._ages.forget(meter_id)
        self._piggyback.drop(point.is_of(meter_id))
        try:
            return {"forgotten": asdict(forget(self._outbox, meter_id, self.workers, self._writer))}
        except OutboxError as error:
            return {"error": str(error)}

    def status(self) -> dict[str, Any]:
        """What `check` and the container's health check ask for."""
        influx = None
        if self._writer is not None:
            writer = self._writer.status()
            influx = {
                "state": writer.state.value,
                "words": writer.last_error,
                "points_written": writer.points_written,
                "retries": writer.retries,
            }
        return {
            "version": __version__,
            "pid": os.getpid(),
            "started": self._started.isoformat(timespec="seconds"),
            "sources": [worker.link.snapshot() for worker in self.workers],
            "outbox": {
                "path": str(self._outbox.path),
                "trouble": self._outbox.trouble,
                **asdict(self._outbox_status()),
            },
            "influx": influx,
        }
