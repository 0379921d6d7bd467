"""A year of one meter, written into an InfluxDB: `python -m tests.benchmarks.year [URL]`.

Every line that `run` would have written for a Kamstrup meter in a house with three phases: what the meter sends every
10 s and each hour, what is derived from it, and the exporter's own metrics; about 75 million points. URL, token,
organisation and bucket are HAN_INFLUX_URL and so on, as for `run`.

The readings are made directly from the simulated household: encoding and decoding would take three times as long. A
test compares the two. The lines are made by points.py and Derivations, so they have the product's schema.
"""

from __future__ import annotations

import argparse
import gzip
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from exporter.config import Settings, load
from exporter.derive import points
from exporter.derive.capacity import with_running
from exporter.derive.derivations import Derivations, backlog_threshold_lines
from exporter.derive.limits import thresholds
from exporter.derive.running_hour import HourSoFar, projected
from exporter.derive.values import Values
from exporter.model.calendar import HOUR_MS, day_start, from_ms, month_start, next_day, to_ms
from exporter.model.obis import ObisCode, describe
from exporter.model.reading import Measurement, Meter, Placed, Reading, Zone
from exporter.pipeline.link import Link
from exporter.service import own_points
from exporter.service.metrics import exporter_fields
from exporter.simulator.household import Household
from exporter.simulator.loads import noise
from exporter.simulator.meter import MAKERS
from exporter.simulator.sample import Sample

SLOT_MS: Final = 10_000
HOURLY_MS: Final = MAKERS["kamstrup"].hourly
LIST_SIZES: Final = {False: 232, True: 306}
"""Bytes in a frame of the 10 s list (False) and of the hourly list (True), with an id of 20 characters."""
_JITTER_S: Final = 0.05
_METRICS_MS: Final = 3_100
"""How long after a reading the service writes its own metrics."""
_THRESHOLDS_MS: Final = 5 * 60_000
_RESTART_MS: Final = 30 * 24 * HOUR_MS


def _codes(group_c: Iterable[int], group_d: int) -> tuple[tuple[ObisCode, str], ...]:
    codes = [ObisCode(1, 1, c, group_d, 0) for c in group_c]
    return tuple((code, quantity.unit) for code in codes if (quantity := describe(code)) is not None)


_VALUES: Final = _codes((1, 2, 3, 4, 31, 51, 71, 32, 52, 72), 7)
_REGISTERS: Final = _codes((1, 2, 3, 4), 8)


class Readings:
    """What a Kamstrup meter in a house with a TN net sends, as it is after decoding and placing, in order."""

    def __init__(self, seed: int, zone: Zone) -> None:
        self.meter_id = f"SIMULATED-KAMSTRUP-{seed}"
        self._seed = seed
        self._household = Household(seed, 3, "TN", zone)
        self._meter = Meter(self.meter_id, "Kamstrup", MAKERS["kamstrup"].types[1].decode())

    def between(self, start_ms: int, end_ms: int) -> Iterator[Placed]:
        """Every reading that is sent from `start_ms` on, before `end_ms`."""
        for slot in range(start_ms - start_ms % -SLOT_MS, end_ms, SLOT_MS):
            yield self.reading(slot, hourly=False)
            if slot % HOUR_MS == 0 and slot + HOURLY_MS < end_ms:
                yield self.reading(slot + HOURLY_MS, hourly=True)

    def received(self, ms: int, *, hourly: bool) -> datetime:
        """When the closing flag of a frame that is sent at `ms` is received: after the wire and an adapter."""
        wire = LIST_SIZES[hourly] * 10 / 2400
        return from_ms(ms) + timedelta(seconds=wire + _JITTER_S * noise(self._seed, 90, ms // 1000))

    def reading(self, ms: int, *, hourly: bool) -> Placed:
        """The list that is sent at `ms`."""
        moment = from_ms(ms)
        hour = ms - ms % HOUR_MS if hourly else None
        sample = self._household.sample(moment, registers_at=None if hour is None else from_ms(hour))
        codes = _VALUES + _REGISTERS if hourly else _VALUES
        measurements = tuple(
            Measurement(code, value, unit) for (code, unit), value in zip(codes, _sent(sample), strict=True)
        )
        received = self.received(ms, hourly=hourly)
        reading = Reading(self._meter, "Kamstrup_V0001", measurements, clock=moment, received=received)
        at, offset = to_ms(received), (moment - received) / timedelta(seconds=1)
        return Placed(reading, self.meter_id, at, at if hour is None else hour, hourly, offset)


def _sent(sample: Sample) -> list[float]:
    """The values in the steps of the meter: 1 W, 0.01 A, 1 V, 10 Wh."""
    values = [float(watt) for watt in sample.power]
    values += [round((ampere or 0.0) * 100) / 100.0 for ampere in sample.currents]
    values += [float(round(volt or 0.0)) for volt in sample.voltages]
    return values + [float(wh // 10 * 10) for wh in sample.registers or ()]


class RunningHour:
    """What Derivations.now gives for the running hour, without reading all hours of the month each time."""

    def __init__(self, meter_id: str, zone: Zone) -> None:
        self._meter_id, self._zone = meter_id, zone
        self._so_far = {"import": HourSoFar(), "export": HourSoFar()}
        self._registers: dict[int, float] = {}
        self._day = range(0)
        self._known = -1
        self._highest: dict[int, float] = {}

    def take(self, placed: Placed) -> None:
        """Take the next reading."""
        assert placed.time is not None and placed.register_time is not None
        values = placed.reading.measurements
        for place, hour in enumerate(self._so_far.values()):
            hour.take(placed.time, values[place].value)
            if placed.is_hour:
                hour.take_register(placed.register_time, values[len(_VALUES) + place].value)
        if placed.is_hour:
            self._registers[placed.register_time] = values[len(_VALUES)].value

    def lines(self, now_ms: int) -> Iterator[str]:
        """The energy so far, the projected energy, and the capacity that follows from it."""
        start = now_ms - now_ms % HOUR_MS
        for direction, hour in self._so_far.items():
            known = hour.until(now_ms)
            if known is None:
                continue
            so_far, unknown, power = known
            yield points.running_hour_line(self._meter_id, direction, "so_far", so_far, now_ms)
            expected = projected(so_far, power, start + HOUR_MS - now_ms, unknown)
            if expected is None:
                continue
            yield points.running_hour_line(self._meter_id, direction, "projected", expected, now_ms)
            if direction == "import":
                mean = with_running(self._month(start), start, expected, self._zone)
                yield points.projected_capacity_line(self._meter_id, mean, now_ms)

    def _month(self, hour: int) -> dict[int, float]:
        """The final hours of the month that can matter: the highest one of each day."""
        if hour not in self._day or len(self._registers) != self._known:
            self._day = range(day_start(hour, self._zone), next_day(hour, self._zone))
            month = month_start(hour, self._zone)
            self._registers = {at: wh for at, wh in self._registers.items() if at >= month}
            self._known = len(self._registers)
            days: dict[int, tuple[float, int]] = {}
            for at, register in sorted(self._registers.items()):
                if at + HOUR_MS in self._registers:
                    wh, day = self._registers[at + HOUR_MS] - register, day_start(at, self._zone)
                    days[day] = max(days.get(day, (-1.0, 0)), (wh, at))
            self._highest = {at: wh for wh, at in days.values()}
        return self._highest


class Year:
    """All lines of the time from `start_ms` to `end_ms`: the same for the same arguments and settings."""

    def __init__(self, settings: Settings, seed: int, start_ms: int, end_ms: int) -> None:
        self._settings, self._seed = settings, seed
        self._start, self._end = start_ms, end_ms
        self._readings = Readings(seed, settings.zone)
        self.meter_id = self._readings.meter_id
        self._instance = settings.instance or "benchmark"
        self._state: dict[str, str] = {}
        self._deriver = Derivations(settings, self._state.get)
        self._running = RunningHour(self.meter_id, settings.zone)
        self._limits_written = self._started = 0
        self._written = 0
        outbox = ("outbox_depth", "outbox_age", "outbox_bytes", "lines_dropped", "lines_rejected", "clock_untrusted")
        writer = ("points_written", "write_retries", "write_latency")
        link = Link("kamstrup", "sim:kamstrup")
        link.counts.messages = 1
        self._fields = exporter_fields([link], dict.fromkeys(outbox, 0.0), dict.fromkeys(writer, 0.0))

    def lines(self) -> Iterator[list[str]]:
        """The lines of each reading, and those of the service in the 10 s after it."""
        for placed in self._readings.between(self._start, self._end):
            lines = list(points.lines(placed))
            values = Values.of(placed)
            lines += [] if values is None else self._deriver.of(values)
            self._running.take(placed)
            if placed.is_hour:
                lines += self._deriver.sums()
                self._state.update(self._deriver.new_state())
                self._deriver.kept()
            else:
                lines += self._of_service(placed)
            self._written += len(lines)
            yield lines

    def _tick(self, placed: Placed) -> tuple[int, float]:
        # when the metrics after a reading are written, ms, and how old the reading is then, s
        assert placed.time is not None
        slot = placed.time - placed.time % SLOT_MS
        ms = slot + _METRICS_MS + int(15 * noise(self._seed, 91, slot // 1000))
        return ms, (ms - placed.time) / 1000 + noise(self._seed, 92, slot // 1000) / 1000

    def _of_service(self, placed: Placed) -> Iterator[str]:
        ms, age = self._tick(placed)
        if ms >= self._end:
            return
        if ms - self._started >= _RESTART_MS:
            if self._started:
                yield own_points.event_line(self._instance, "stop", "han-exporter stopped", ms - 5000)
            self._started = ms
            yield own_points.event_line(self._instance, "start", "han-exporter started", ms)
        yield own_points.exporter_line(self._instance, self._metrics(ms), ms)
        if ms - self._limits_written >= _THRESHOLDS_MS:
            self._limits_written = ms
            yield from backlog_threshold_lines(self._settings, ms)
            yield from _limit_lines(self._settings, self.meter_id, ms)
        yield from self._running.lines(ms)
        yield own_points.reading_age_line(self.meter_id, age, ms)

    def _metrics(self, ms: int) -> dict[str, int | float]:
        since, chance = (ms - self._started) // SLOT_MS, noise(self._seed, 93, ms // 1000)
        self._fields |= {
            "frames": since,
            "readings": since,
            "octets": since * LIST_SIZES[False],
            "outbox_depth": int(chance * 30),
            "outbox_bytes": 4096 * 24,
            "points_written": self._written,
            "write_latency": 0.002 + 0.02 * chance * chance,
            "memory": 45_000_000 + 4096 * int(chance * 8),
        }
        return self._fields


def _limit_lines(settings: Settings, meter_id: str, ms: int) -> Iterator[str]:
    for threshold in thresholds(settings.limits(meter_id)):
        yield points.threshold_line(threshold, ms, meter_id)


class Sender:
    """Posts batches in threads, while the next ones are made."""

    def __init__(self, settings: Settings, *, level: int, threads: int = 2) -> None:
        import urllib3

        query = {"org": settings.influx_org, "bucket": settings.influx_bucket, "precision": "ms"}
        self._target = f"{(settings.influx_url or '').rstrip('/')}/api/v2/write?{urlencode(query)}"
        self._headers = {"Authorization": f"Token {settings.token()}"} if settings.token() else {}
        self._level = level
        if level:
            self._headers["Content-Encoding"] = "gzip"
        self._http = urllib3.PoolManager(retries=False, timeout=120.0, maxsize=threads)
        self._waiting: queue.Queue[list[str] | None] = queue.Queue(2)
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        self.failure = ""
        self.sent_bytes = 0
        for thread in self._threads:
            thread.start()

    def post(self, lines: list[str]) -> None:
        """Send them. Raises SystemExit with the answer of InfluxDB if it did not take a batch."""
        while not self.failure:
            try:
                self._waiting.put(lines, timeout=0.5)
            except queue.Full:
                continue
            return
        raise SystemExit(self.failure)

    def finish(self) -> None:
        """Wait until all is sent."""
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()
        if self.failure:
            raise SystemExit(self.failure)

    def _run(self) -> None:
        import urllib3

        while (lines := self._waiting.get()) is not None:
            if self.failure:
                continue
            body = "\n".join(lines).encode()
            if self._level:
                body = gzip.compress(body, compresslevel=self._level, mtime=0)
            try:
                answer = self._http.request("POST", self._target, body=body, headers=self._headers)
            except (urllib3.exceptions.HTTPError, OSError) as problem:
                self.failure = f"InfluxDB cannot be reached, or it closed the connection: {problem}"
                continue
            self.sent_bytes += len(body)
            if answer.status != 204:
                self.failure = f"InfluxDB answers {answer.status}: {answer.data.decode('utf-8', 'replace')[:500]}"


def main() -> None:
    """Write a year."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help="InfluxDB, like http://localhost:8086 [default: HAN_INFLUX_URL]")
    parser.add_argument("--days", type=float, default=365.0)
    parser.add_argument("--end", help="the last moment, like 2026-11-22T20:00:00+00:00 [default: now]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=20_000, help="lines a request [default: 20000]")
    parser.add_argument("--gzip", type=int, default=0, help="level of compression [default: 0, none]")
    given = parser.parse_args()
    settings = load({"influx_url": given.url})
    if settings.influx_url is None:
        parser.error("where is InfluxDB? Give its URL, or set HAN_INFLUX_URL")
    end = to_ms(datetime.fromisoformat(given.end).astimezone(UTC) if given.end else datetime.now(UTC))
    start = end - round(given.days * 86_400_000)
    year, sender = Year(settings, given.seed, start, end), Sender(settings, level=given.gzip)
    began = shown = time.monotonic()
    waiting: list[str] = []
    written, now = 0, start
    for lines in year.lines():
        waiting += lines
        now = min(now + SLOT_MS, end)  # accurate enough to show progress
        if len(waiting) >= given.batch:
            written += len(waiting)
            sender.post(waiting)
            waiting = []
            if time.monotonic() - shown > 5:
                shown = time.monotonic()
                _show(f"{(now - start) / (end - start):6.1%}  {from_ms(now):%Y-%m-%d}", written, shown - began, "\r")
    if waiting:
        sender.post(waiting)
    sender.finish()
    _show(f"{year.meter_id}: ", written + len(waiting), time.monotonic() - began, "\n")
    print(f"{sender.sent_bytes / 1e6:.0f} MB sent", file=sys.stderr)


def _show(what: str, written: int, seconds: float, end: str) -> None:
    print(f"{what}  {written / 1e6:.1f} million points, {written / seconds:,.0f} a second  ", end=end, file=sys.stderr)


if __name__ == "__main__":
    main()
