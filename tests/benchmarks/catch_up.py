"""After a week's outage: `python -m tests.benchmarks.catch_up [readings]`; influxd 1.8 on PATH.

`run` sends an outbox with 60 000 readings of one meter, one row for each, while it reads another meter live. Prints how
fast the outbox empties compared with only posting the same lines, the greatest age of the live meter's newest point in
InfluxDB, and how much memory `run` needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from exporter.config import Settings
from exporter.outbox.queue import Outbox
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.pipeline import NoState, Pipeline
from exporter.simulator.meter import List, SimulatedMeter
from exporter.sinks.contract import Verdict
from exporter.sources.contract import Chunk
from tests.support.influx_server import LocalInflux
from tests.support.rows import rows

READINGS: Final = 60_000
BATCH: Final = 5000
LIVE: Final = "SIMULATED-KAMSTRUP-2"


def readings(count: int) -> Iterator[list[str]]:
    """The lines of each of `count` readings of a meter, the last of them one hour old."""
    settings = Settings()
    pipeline = Pipeline("sim", settings, NoState(), HostClock())
    end = datetime.now(UTC) - timedelta(hours=1)
    meter = SimulatedMeter("kamstrup")
    for received, frame in meter.frames(end - timedelta(seconds=10 * count), end, frozenset(List)):
        fed = pipeline.feed((Chunk(frame, received),), more=True)
        assert not fed.outcomes
        lines = [line for row in fed.rows for line in row.body.decode().split("\n")]
        if lines:
            yield lines


def fill(path: Path, count: int) -> list[str]:
    """An outbox as it is after the outage; all its lines."""
    outbox, lines = Outbox(path), []
    outbox._file._connection.execute("PRAGMA synchronous = OFF")  # a real outbox is filled in a week, not in a minute
    for one in readings(count):
        outbox.append(rows(one))
        lines += one
    outbox.close()
    return lines


def full_speed(influx: LocalInflux, lines: list[str]) -> float:
    """Lines a second if they are only posted."""
    influx.admin("CREATE DATABASE bare")
    client = influx.client(bucket="bare")
    began = time.monotonic()
    for start in range(0, len(lines), BATCH):
        assert client.write(lines[start : start + BATCH]).verdict is Verdict.TAKEN
    client.close()
    return len(lines) / (time.monotonic() - began)


def resident_mb(pid: int) -> float:
    """The peak memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def newest_age_s(influx: LocalInflux) -> float:
    """The age of the live meter's newest point."""
    found = influx.query(f"SELECT last(value) FROM active_power WHERE meter_id = '{LIVE}'")
    return time.time() - int(found[0].rows[0][0]) / 1000 if found else 0.0


def waiting(path: Path) -> int:
    """Lines in an outbox that another process may have open."""
    view = Outbox(path, read_only=True)
    try:
        return view.status().depth_lines
    finally:
        view.close()


def catch_up(influx: LocalInflux, path: Path) -> tuple[float, float, float]:
    """Seconds from the first batch until nothing waits, greatest age of the live meter's newest point, peak memory."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HAN_")} | {
        "HAN_SOURCE": "sim:kamstrup?seed=2",
        "HAN_OUTBOX": str(path),
        "HAN_INFLUX_URL": influx.url,
        "HAN_INFLUX_TOKEN": influx.token,
        "HAN_INFLUX_BUCKET": influx.bucket,
        "HAN_LOG_LEVEL": "error",
    }
    command = [str(Path(sys.executable).with_name("han-exporter")), "run"]
    oldest, filled = 0.0, waiting(path)
    with subprocess.Popen(command, env=environment) as process:
        while waiting(path) >= filled:  # until the first batch is sent: the start of the process does not count
            time.sleep(0.05)
        began = time.monotonic()
        while waiting(path) > 100:
            time.sleep(0.5)
            oldest = max(oldest, newest_age_s(influx))
        took, memory = time.monotonic() - began, resident_mb(process.pid)
        process.terminate()
    return took, oldest, memory


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else READINGS
    program = shutil.which("influxd")
    if program is None:
        sys.exit("influxd (1.8) is not on PATH")
    with tempfile.TemporaryDirectory() as folder:
        influx = LocalInflux(program, Path(folder))
        try:
            lines = fill(Path(folder) / "outbox.sqlite", count)
            size = sum(file.stat().st_size for file in Path(folder).glob("outbox.sqlite*"))
            print(f"{count} readings, {len(lines)} lines, {size / 1e6:.0f} MB of outbox")
            bare = full_speed(influx, lines)
            print(f"only posted: {bare:,.0f} lines/s")
            took, oldest, memory = catch_up(influx, Path(folder) / "outbox.sqlite")
            print(
                f"caught up in {took:.1f} s: {len(lines) / took:,.0f} lines/s, {len(lines) / took / bare:.2f} of that"
            )
            print(f"the live meter's newest point was at most {oldest:.1f} s old (it sends every 10 s)")
            print(f"memory of run at most {memory:.0f} MB")
        finally:
            influx.stop()


if __name__ == "__main__":
    main()
