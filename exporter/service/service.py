"""What `run` is: sources -> readings -> outbox -> InfluxDB.

There is one thread for each source (read, decode, append to the outbox), one for the writer, and the main thread, which
waits for a signal and writes the exporter's own metrics. This module starts them, and stops them in the right order.
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
from exporter.counted import counted
from exporter.derive import points
from exporter.derive.derivations import LIMITS_EVERY_MS, backlog_threshold_lines, last_heard, limit_lines
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
from exporter.service.events import EventsOfLines, EventsOfSource
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
_STOP_SOURCES_S: Final = 1.5
_STOP_WRITER_S: Final = 3.2


def name_apart(sources: Sequence[Source]) -> None:
    """Rename the second source of a name `name-2`, and so on: state is kept by the name of the source."""
    seen: Counter[str] = Counter()
    for source in sources:
        seen[source.name] += 1
        if seen[source.name] > 1:
            source.name = f"{source.name}-{seen[source.name]}"


class Service:
    """Everything that `run` owns. Raises OutboxError or ValueError if it cannot start."""

    def __init__(self, settings: Settings, sources: Sequence[Source]) -> None:
        self._settings = settings
        name = settings.instance or platform.node()
        self._instance = safe_text(name.encode("utf-8", "surrogateescape")) or "han-exporter"
        self._stop = threading.Event()
        self._stop_writer = threading.Event()
        self._server: StatusServer | None = None
        self._listen_again = 0.0
        self._limits_written = 0
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
        self._ages = ReadingAges(self._last_readings())
        self._source_events = [EventsOfSource(worker.link) for worker in self.workers]
        self._outbox_limiter = OnceAMinute()
        self._last_status = self._first_status()
        self._line_events = EventsOfLines(self._last_status.dropped_lines)

    def _last_readings(self) -> dict[str, int]:
        """When each meter that was the last one on its source sent its last reading, ms; no simulated meters."""
        last = {*self._outbox.states("last_id:").values(), *(str(worker.link.meter) for worker in self.workers)}
        times = last_heard(self._outbox.states("running:"))
        return {meter: at for meter, at in times.items() if meter in last and not meter.startswith(points.SIMULATED)}

    def _make_writer(self, settings: Settings) -> Writer | None:
        if settings.influx_url is None:
            log.warning(
                "no InfluxDB is configured (HAN_INFLUX_URL): everything is kept in %s and sent when there is one",
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
        """Run the writer, in its thread. After an unexpected error it is logged and started again."""
        while True:
            try:
                writer.run(self._stop_writer)
            except Exception:  # a bug must not stop the writer: nobody would notice that the outbox fills up
                log.exception("sending to InfluxDB failed; please report this")
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
        """Open the status socket. `run` works without it too: after an error this is tried again every minute."""
        if self._server is not None or time.monotonic() < self._listen_again:
            return
        first, self._listen_again = not self._listen_again, time.monotonic() + _LISTEN_AGAIN_S
        try:
            commands = {"forget": self.forget} | rejected.commands(self._outbox)
            self._server = StatusServer(self._outbox.path, self.status, commands)
        except OSError as error:
            if first:
                log.error(
                    "the socket %s cannot be created (%s): readings are received and sent, but `check`, `forget` and "
                    "`rejected` cannot reach this process, and health checks fail. Remove what has this name, give "
                    "this user the right to write to the folder, or free some disk space; it is tried again every "
                    "minute",
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
            self._write_events()
            self._listen()
            if self._piggyback.due(now):
                self._piggyback.put(self._metrics(), now)
            elif self._piggyback.late(now):
                self._append(self._piggyback.take(now))

    def _wait_until_sent(self) -> None:
        """Wait until everything is sent, or until a signal."""
        while self._writer is not None and not self._stop.is_set():
            if not self._memory and not self._outbox_status().depth_lines:
                return
            self._stop.wait(0.1)

    def _end(self, threads: Sequence[threading.Thread], sender: threading.Thread | None) -> None:
        """Stop the sources, then the writer, which sends what it can in that time; then close the outbox."""
        self._stop.set()
        deadline = time.monotonic() + _STOP_SOURCES_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._write_events()
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
        waiting = f"{counted(left, 'line')} waiting in {self._outbox.path}"
        log.info("stopped; %s", waiting if left else "nothing is left unsent")

    def _metrics(self) -> list[str]:
        """The lines of this moment. There are none without an InfluxDB: nobody would need them later."""
        if self._writer is None:
            return []
        ms = to_ms(datetime.now(UTC))
        links = [worker.link for worker in self.workers]
        lines = self._own_lines(ms, links)
        ages = self._ages.of(links, ms)
        lines += [own_points.reading_age_line(meter_id, age, ms) for meter_id, age in ages.items()]
        if not 0 <= ms - self._limits_written < LIMITS_EVERY_MS:
            self._limits_written = ms
            lines += backlog_threshold_lines(self._settings, ms)
            for meter_id in self._ages.missed(ms):  # an age needs its limit; the workers write those of the others
                lines += limit_lines(self._settings, meter_id, ms)
        for worker in self.workers:
            lines += worker.now(ms)
        return lines

    def _first_status(self) -> Status:
        """The status of the outbox. If nothing can be written to it, it may still be readable."""
        if not self._outbox.trouble:
            return self._outbox.status()
        with suppress(OutboxError), closing(Outbox(self._outbox.path, read_only=True)) as outbox:
            return outbox.status()
        return Status(depth_lines=0, oldest_age_s=None, size_bytes=0, dropped_lines=0, rejected_lines=0)

    def _outbox_status(self) -> Status:
        """The status of the outbox, or its last one if it cannot be read: a dying disk must not stop the sources."""
        try:
            self._last_status = self._outbox.status()
            self._outbox_limiter.over()
        except OutboxError as error:
            if self._outbox_limiter.due():
                log.error("%s", error)
        return self._last_status

    def _own_lines(self, ms: int, links: Sequence[Link]) -> list[str]:
        """The exporter's counters, and the events that they show."""
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
        events = self._line_events.new(
            rejected=writer.lines_rejected,
            reason=lambda: next((one.message for one in self._outbox.refused(1)), "not known any more"),
            lost=outbox.dropped_lines + sum(link.counts.lost_lines for link in links),
        )
        return [
            own_points.exporter_line(self._instance, fields, ms),
            *(own_points.event_line(self._instance, *event, ms) for event in events),
        ]

    def _write_events(self) -> None:
        for source in self._source_events:
            for event in source.new():
                self._event(*event)

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
        """Remove everything about a meter. The answer has what was removed, or `error` with a message."""
        self._ages.forget(meter_id)
        self._piggyback.drop(point.is_of(meter_id))
        try:
            return {"forgotten": asdict(forget(self._outbox, meter_id, self.workers, self._writer))}
        except OutboxError as error:
            return {"error": str(error)}

    def status(self) -> dict[str, Any]:
        """The status, for `check` and health checks. Scripts read it: the keys keep their names."""
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
