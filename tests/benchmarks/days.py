"""Days of a meter through the installed `run`: `python -m tests.benchmarks.days [days]`, or `… --real SECONDS`.

A simulated Kaifa (a frame every 2 s: 43 200 a day) sends on a socket, which the exporter reads like any port: a read, a
transaction of the outbox, a post to a real InfluxDB (influxd 1.8 on PATH, or HAN_TEST_INFLUX_URL). Without `--real` it
sends as fast as the exporter reads, and the days are those of the meter's clock. Readings get that clock's time because
this computer's clock seems to be unsynchronised: a library with one function, built with a C compiler, says so to the
exporter.

Prints memory after the first hour, the first day and at the end; descriptors and threads; how many points of each
measurement InfluxDB has and how many were sent; and how much waits at the end. Exit code 1 if points are missing or
something waits.
"""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from exporter.service.status_socket import NotRunning, ask
from exporter.simulator.meter import SimulatedMeter
from tests.support.influx_server import Influx, serve

A_DAY: Final = 43_200
AN_HOUR: Final = 1800
"""Frames."""
_UNREAD: Final = 2000
"""The meter pauses while so many frames are not read yet, ..."""
_WAITING: Final = 20_000
"""... or so many lines wait in the outbox: catching up is not measured here."""
_UNSYNCHRONISED: Final = "int adjtimex(void *state) { (void)state; return 5; /* TIME_ERROR */ }"


@dataclass(frozen=True, slots=True)
class Sample:
    """What the process uses after so many readings. Memory in kB; `private` is memory that is not from a file."""

    readings: int
    resident: int
    private: int
    descriptors: int
    threads: int
    waiting: int


@dataclass
class Meter:
    """A simulated Kaifa at the other end of a socket; `sent` counts its frames by their length."""

    start: datetime
    end: datetime
    real: bool
    sent: Counter[int] = field(default_factory=Counter)
    readings: int = 0
    waiting: int = 0
    failed: str = ""

    def __post_init__(self) -> None:
        self._simulated = SimulatedMeter("kaifa", meter_id=f"SIMULATED-{secrets.token_hex(3)}")
        self._server = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def id(self) -> str:
        return self._simulated.id

    @property
    def source(self) -> str:
        return f"socket://127.0.0.1:{self._server.getsockname()[1]}"

    @property
    def done(self) -> bool:
        """Everything was sent."""
        return not self._thread.is_alive()

    def _serve(self) -> None:
        try:
            self._connection, _ = self._server.accept()
            for complete, frame in self._simulated.frames(self.start, self.end):
                self._wait(complete)
                self._connection.sendall(frame)
                self.sent[len(frame)] += 1
        except OSError as error:  # printed at the end, with what is missing because of it
            self.failed = str(error)

    def _wait(self, complete: datetime) -> None:
        if self.real:
            time.sleep(max(0.0, (complete - datetime.now(UTC)).total_seconds()))
            return
        while self.sent.total() - self.readings > _UNREAD or self.waiting > _WAITING:
            time.sleep(0.02)

    def expected(self) -> dict[str, int]:
        """How many points the sent frames give. Lists 1, 2 and 3 have different lengths."""
        one, two, hourly = (self.sent[length] for length in sorted(self.sent))
        ten = two + hourly
        return {
            "active_power": one + 2 * ten,
            "reactive_power": 2 * ten,
            "current": 3 * ten,
            "voltage": 3 * ten,
            "fuse_load": 3 * ten,
            "meter_clock_offset": one + ten,
            "active_energy": 2 * hourly,
            "reactive_energy": 2 * hourly,
            "hour_energy": 2 * (hourly - 1),
        }


class Watch:
    """Samples of a process, each taken after so many more frames."""

    def __init__(self, pid: int, outbox: Path, meter: Meter) -> None:
        self._pid, self._outbox, self._meter = pid, outbox, meter
        self.samples: list[Sample] = []

    def look(self) -> bool:
        """Ask for its progress; False if it does not answer."""
        try:
            status = ask(self._outbox)
        except NotRunning:
            return False
        self._meter.readings = int(status["sources"][0]["readings"])
        self._meter.waiting = int(status["outbox"]["depth_lines"])
        return True

    def sample(self) -> Sample:
        """Take one now."""
        process = Path(f"/proc/{self._pid}")
        lines = (process / "status").read_text(encoding="ascii").splitlines()
        values = {name: value for name, _, value in (line.partition(":") for line in lines)}
        one = Sample(
            self._meter.readings,
            int(values["VmRSS"].split()[0]),
            int(values["RssAnon"].split()[0]),
            len(list((process / "fd").iterdir())),
            int(values["Threads"]),
            self._meter.waiting,
        )
        self.samples.append(one)
        return one


def shim(folder: Path) -> Path:
    """A library that makes the clock seem unsynchronised."""
    source, library = folder / "adjtimex.c", folder / "adjtimex.so"
    source.write_text(_UNSYNCHRONISED, encoding="ascii")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


def started(folder: Path, meter: Meter, influx: Influx) -> subprocess.Popen[bytes]:
    """The service, which writes to this InfluxDB."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HAN_")} | {
        "HAN_SOURCE": meter.source,
        "HAN_OUTBOX": str(folder / "outbox.sqlite"),
        "HAN_INFLUX_URL": influx.url,
        "HAN_INFLUX_TOKEN": influx.token,
        "HAN_INFLUX_BUCKET": influx.bucket,
        "HAN_INFLUX_ORG": influx.org,
    }
    if not meter.real:
        environment["LD_PRELOAD"] = str(shim(folder))
    return subprocess.Popen([str(Path(sys.executable).with_name("han-exporter")), "run"], env=environment)


def watched(process: subprocess.Popen[bytes], folder: Path, meter: Meter, every: int) -> Watch:
    """Take samples until all is sent and read and nothing waits, or until nothing was read for ten minutes."""
    watch = Watch(process.pid, folder / "outbox.sqlite", meter)
    following, before, moved = every, -1, time.monotonic()
    began = moved
    while process.poll() is None:
        time.sleep(1.0 if meter.real else 0.1)
        answered = watch.look()
        if answered and meter.readings >= following:
            one = watch.sample()
            following = one.readings + every
            if len(watch.samples) in (1, 2, 3) or len(watch.samples) % 24 == 0:
                _say(one, time.monotonic() - began)
        if meter.readings != before:
            before, moved = meter.readings, time.monotonic()
        # The exporter's own points come every 10 s, so the outbox is empty only for moments.
        if answered and meter.done and meter.readings >= meter.sent.total() and meter.waiting == 0:
            break
        if time.monotonic() - moved > 600:
            break
    _say(watch.sample(), time.monotonic() - began)
    return watch


def _say(one: Sample, seconds: float) -> None:
    print(
        f"{seconds:7.0f} s  {one.readings:9,d} readings ({one.readings / A_DAY:6.3f} days)  "
        f"resident {one.resident / 1024:6.2f} MB, private {one.private / 1024:6.2f} MB, "
        f"{one.descriptors} descriptors, {one.threads} threads, {one.waiting} lines wait",
        flush=True,
    )


def found(influx: Influx, meter_id: str, names: dict[str, int]) -> dict[str, int]:
    """How many points of a meter InfluxDB has; of hours, the final ones."""
    held = {}
    for name in names:
        final = " AND kind = 'final'" if name == "hour_energy" else ""
        rows = influx.query(f"SELECT count(value) FROM {name} WHERE meter_id = '{meter_id}'{final}")
        held[name] = int(rows[0].rows[0][1]) if rows else 0
    return held


def judge(watch: Watch, meter: Meter, influx: Influx) -> int:
    """Print the result; 1 if something is missing."""
    expected = meter.expected()
    held = found(influx, meter.id, expected)
    print(f"{meter.sent.total()} frames sent, {meter.readings} read" + (f"; {meter.failed}" if meter.failed else ""))
    for name, count in expected.items():
        print(f"  {name:<20} expected {count:9,d}, found {held[name]:9,d}{'' if held[name] == count else '  WRONG'}")
    last = watch.samples[-1]
    for title, frames in (("the first sample", 0), ("an hour", AN_HOUR), ("a day", A_DAY), ("ten days", 10 * A_DAY)):
        first = next((sample for sample in watch.samples if sample.readings >= frames), last)
        if first is not last:
            change = (last.resident / first.resident - 1) * 100
            print(f"memory after {title} {first.resident / 1024:.2f} MB; at the end {change:+.1f} %")
    most = max(sample.resident for sample in watch.samples)
    print(f"memory at the end {last.resident / 1024:.2f} MB, at most {most / 1024:.2f} MB")
    for what in ("descriptors", "threads"):
        counts = Counter(getattr(sample, what) for sample in watch.samples)
        print(f"{what}: " + ", ".join(f"{value} in {times} samples" for value, times in sorted(counts.items())))
    print(f"outbox: {last.waiting} lines at the end")
    return int(held != expected or meter.readings != meter.sent.total() or last.waiting != 0)


def main(arguments: list[str] | None = None) -> int:
    """Run, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("days", type=float, nargs="?", default=30.0)
    parser.add_argument("--real", type=float, metavar="SECONDS", help="in real time")
    options = parser.parse_args(arguments)
    now = datetime.now(UTC).replace(microsecond=0)
    # Days in the future: in no hour does the meter's clock agree with this computer's.
    start = now if options.real else now.replace(minute=0, second=0) + timedelta(days=3)
    end = start + (timedelta(seconds=options.real) if options.real else timedelta(days=options.days))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        influx = serve(folder)
        meter = Meter(start, end, options.real is not None)
        process = started(folder, meter, influx)
        try:
            watch = watched(process, folder, meter, 15 if meter.real else AN_HOUR)
            wrong = judge(watch, meter, influx)
        finally:
            process.terminate()
            code = process.wait(30)
            influx.stop()
        return wrong or code


if __name__ == "__main__":
    raise SystemExit(main())
