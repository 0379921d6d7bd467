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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any, Final

from exporter import __version__, points, rejects
from exporter.config import Settings
from exporter.deriving import Deriver, backlog_threshold_lines, last_heard, limit_lines
from exporter.forgetting import forget, state_of
from exporter.host_clock import HostTime
from exporter.influx.client import Client
from exporter.influx.writer import Writer
from exporter.intake import Heard, Intake
from exporter.marks import LineMarks, SourceMarks
from exporter.meters import safe_text
from exporter.outbox import Outbox, OutboxError
from exporter.placing import NAMELESS_WAIT_MS, Placed, Placer, to_ms
from exporter.sources import Chunk, Happened, Learns, Source, SourceError, SourceEvent
from exporter.status_socket import StatusServer
from exporter.straight import Straight
from exporter.telemetry import Link, ReadingAges, exporter_fields

log = logging.getLogger(__name__)

METRICS_EVERY_S: Final = 10.0
_SEND_AGAIN_S: Final = 10.0
_THRESHOLD_EVERY_MS: Final = 5 * 60_000
_PAST: Final = timedelta(minutes=1)
_GATHERED_LINES: Final = 2000
_STOP_SOURCES_S: Final = 1.5
_STOP_WRITER_S: Final = 3.2


class Reader:
    """One source's way to the outbox: octets -> readings -> lines, and the state they were derived from.

    What one chunk brought goes into the outbox in one transaction, with the new state. Chunks of the past (a capture,
    the simulator's backfill) can be had again, and go in together, to spare the disk.
    """

    def __init__(
        self, source: Source, link: Link, outbox: Outbox, settings: Settings, straight: Straight | None = None
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

    def _report(self, event: SourceEvent) -> None:
        self.link.happened(event)
        if event.what is Happened.FOUND and isinstance(self.source, Learns):
            with self._lock:  # kept with the frame that it was found by
                self._unkept[f"line:{self.source.name}"] = self.source.learnt

    def take(self, chunk: Chunk) -> None:
        """Bring one chunk into the outbox."""
        with self._lock:
            outcomes = self._intake.feed(chunk.octets, chunk.received, chunk.octet_seconds)
            self.link.heard(len(chunk.octets), outcomes)
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
            doomed = points.is_of(meter_id)
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
        try:
            self._outbox.append(lines, state)
            self._unkept = {}
            self._deriver.kept()
        except OutboxError as error:
            self._unkept = state  # what was learnt is still true when there is room again
            if self._straight is not None:
                self.link.counts.lost_lines += self._straight.put(lines, str(error))
                self._outbox.wake()
                return
            self.link.counts.lost_lines += len(lines)
            log.error("%d lines are lost, since the outbox takes none: %s", len(lines), error)


def _name_apart(sources: Sequence[Source]) -> None:
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
        self._limits_told = 0
        self._started = datetime.now(UTC)
        self._outbox = Outbox(settings.outbox_path, max_bytes=settings.outbox_max)
        self._straight = Straight() if settings.influx_url is not None else None
        _name_apart(sources)
        self.readers = [
            Reader(source, Link(source.name, url), self._outbox, settings, self._straight)
            for source, url in zip(sources, settings.sources, strict=True)
        ]
        self._writer = self._make_writer(settings)
        self._ages = ReadingAges(self._heard_before())
        self._source_marks = [SourceMarks(reader.link) for reader in self.readers]
        self._line_marks = LineMarks(self._outbox.status().dropped_lines)

    def _heard_before(self) -> dict[str, int]:
        """When each meter was heard that was the last on its source, ms. Of a simulated one nothing is missed."""
        last = {*self._outbox.states("last_id:").values(), *(str(reader.link.meter) for reader in self.readers)}
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
        return Writer(self._outbox, client, replaced=points.REPLACED_MEASUREMENTS, straight=self._straight)

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
            threading.Thread(target=reader.run, args=(self._stop,), name=reader.source.name, daemon=True)
            for reader in self.readers
        ]
        sender = None
        if self._writer is not None:
            sender = threading.Thread(target=self._send, args=(self._writer,), name="writer", daemon=True)
            sender.start()
        status = StatusServer(self._outbox.path, self.status, {"forget": self.forget} | rejects.commands(self._outbox))
        self._event("start", f"han-exporter {__version__} started")
        for thread in threads:
            thread.start()
        try:
            self._until_stopped(threads)
        finally:
            self._end(threads, sender, status)
        return 2 if self.readers and all(reader.failed for reader in self.readers) else 0

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        log.info("stopping (%s)", signal.Signals(number).name)
        self._stop.set()

    def _until_stopped(self, threads: Sequence[threading.Thread]) -> None:
        next_metrics = time.monotonic() + METRICS_EVERY_S
        while not self._stop.wait(1.0 if any(reader.source.live for reader in self.readers) else 0.1):
            if not any(thread.is_alive() for thread in threads):
                log.info("every source has ended")
                self._wait_until_sent()
                return
            now = time.monotonic()
            for reader in self.readers:
                reader.look_at_waiting(now)
            self._mark()
            if now >= next_metrics:
                next_metrics = now + METRICS_EVERY_S
                self._write_metrics()

    def _wait_until_sent(self) -> None:
        """All has been read: what waits is still sent, however long that takes, unless someone says stop."""
        while self._writer is not None and self._outbox.status().depth_lines and not self._stop.wait(0.1):
            pass

    def _end(self, threads: Sequence[threading.Thread], sender: threading.Thread | None, status: StatusServer) -> None:
        """Sources first, so that nothing comes in any more; then what is left goes out; then the file is closed."""
        self._stop.set()
        deadline = time.monotonic() + _STOP_SOURCES_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._mark()
        self._event("stop", "han-exporter stopped")
        self._stop_writer.set()
        self._outbox.wake()
        if sender is not None:
            sender.join(_STOP_WRITER_S)
        status.close()
        left = self._outbox.status().depth_lines
        self._outbox.close()
        log.info("stopped; %s", f"{left} lines wait in {self._outbox.path}" if left else "nothing is left unsent")

    def _write_metrics(self) -> None:
        """The exporter's own points. They speak of now, so without an InfluxDB nobody would ever need them."""
        if self._writer is None:
            return
        ms = to_ms(datetime.now(UTC))
        links = [reader.link for reader in self.readers]
        lines = self._own_lines(ms, links)
        ages = self._ages.of(links, ms)
        lines += [points.reading_age_line(meter_id, age, ms) for meter_id, age in ages.items()]
        if not 0 <= ms - self._limits_told < _THRESHOLD_EVERY_MS:
            self._limits_told = ms
            lines += backlog_threshold_lines(self._settings, ms)
            for meter_id in self._ages.missed(ms):  # its age is told, so its limit is told too
                lines += limit_lines(self._settings, meter_id, ms)
        for reader in self.readers:
            lines += reader.now(ms)
        self._append(lines)

    def _own_lines(self, ms: int, links: Sequence[Link]) -> list[str]:
        """The exporter's counters, and what they have that is worth a mark."""
        assert self._writer is not None
        outbox, writer = self._outbox.status(), self._writer.status()
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
        fields["clock_untrusted"] = float(not all(reader.clock_trusted for reader in self.readers))
        marks = self._line_marks.new(
            rejected=writer.lines_rejected,
            why=lambda: next((one.words for one in self._outbox.rejected(1)), "it is no more"),
            lost=outbox.dropped_lines + sum(link.counts.lost_lines for link in links),
        )
        return [
            points.exporter_line(self._instance, fields, ms),
            *(points.event_line(self._instance, *mark, ms) for mark in marks),
        ]

    def _mark(self) -> None:
        for source in self._source_marks:
            for mark in source.new():
                self._event(*mark)

    def _event(self, kind: str, text: str) -> None:
        if self._writer is not None:
            self._append([points.event_line(self._instance, kind, text, to_ms(datetime.now(UTC)))])

    def _append(self, lines: Sequence[str]) -> None:
        try:
            self._outbox.append(lines)
        except OutboxError as error:
            if self._straight is not None:
                self._straight.put(lines, str(error))
                self._outbox.wake()

    def forget(self, meter_id: str) -> dict[str, Any]:
        """Remove what is kept of a meter, for `forget`: what was removed, or `error` in words."""
        self._ages.forget(meter_id)
        try:
            return {"forgotten": asdict(forget(self._outbox, meter_id, self.readers, self._writer))}
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
            "sources": [reader.link.snapshot() for reader in self.readers],
            "outbox": {"path": str(self._outbox.path), **asdict(self._outbox.status())},
            "influx": influx,
        }
