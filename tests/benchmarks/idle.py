"""What `run` costs while it has almost nothing to do: `python -m tests.benchmarks.idle [seconds]`.

Three processes at the same time, each with one meter that sends every 10 s: simulated with InfluxDB (the one of the
tests: influxd 1.8 on PATH, or HAN_TEST_INFLUX_URL), simulated without it, and on a serial port with it. Measures
resident memory, processor time, wake-ups, and what is written to an SD card, extrapolated to a day. Where strace exists
and is allowed, it counts syncs afterwards, since it slows a process down. Run as a command, this module also prints the
memory that the largest modules need.
"""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from exporter.simulator.meter import SimulatedMeter
from tests.benchmarks import child
from tests.benchmarks.figures import Effort, Figure, header, row
from tests.support.influx_server import serve

PARTS = (
    "sys",
    "sqlite3",
    "serial",
    "tenacity",
    "click",
    "pydantic",
    "influxdb_client",
    "exporter.service.service",
)
_RESIDENT = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS')][0])"
_START_S: Final = 5.0
"""The start is not measured."""
_DAY_S: Final = 86_400
_SYNCS: Final = ("fsync", "fdatasync")
_AT_ONCE: Final = 4
_LATENCY_S: Final = 0.016
"""An FTDI adapter hands over its bytes every 16 ms: about four bytes at 2400 baud."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a process has used so far: processor seconds, voluntary context switches, bytes written to the disk."""

    processor_s: float
    wakeups: int
    written: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process costs: memory, kB; the others for each second. `syncs` is None if they could not be counted."""

    resident_kb: int
    processor_s: float
    wakeups: float
    written: float
    syncs: float | None


def imported_kb(module: str) -> int:
    """Resident memory, kB, of an interpreter that has imported one module."""
    out = subprocess.run([sys.executable, "-c", f"import {module}; {_RESIDENT}"], capture_output=True, check=True)
    return int(out.stdout)


def costs(seconds: float, folder: Path) -> dict[str, Cost]:
    """What `run` costs, by how it is used. Measures for so many seconds, and as long again with strace if it exists."""
    with ExitStack() as stack:
        pids: dict[str, int] = {}
        for name, settings in _uses(stack, folder).items():
            outbox = folder / f"{len(pids)}.sqlite"
            outbox.unlink(missing_ok=True)
            pids[name] = stack.enter_context(_running({**settings, "HAN_OUTBOX": str(outbox)}))
        time.sleep(_START_S)
        before = {name: _spent(pid) for name, pid in pids.items()}
        time.sleep(seconds)
        after = {name: _spent(pid) for name, pid in pids.items()}
        resident = {name: _resident_kb(pid) for name, pid in pids.items()}
        syncs = dict(zip(pids, _syncs(list(pids.values()), seconds, folder), strict=True))
    return {
        name: Cost(
            resident[name],
            (after[name].processor_s - before[name].processor_s) / seconds,
            (after[name].wakeups - before[name].wakeups) / seconds,
            (after[name].written - before[name].written) / seconds,
            syncs[name],
        )
        for name in pids
    }


def _uses(stack: ExitStack, folder: Path) -> Mapping[str, Mapping[str, str]]:
    alone = {"HAN_SOURCE": "sim:kamstrup"}
    place = folder / "influx"
    place.mkdir(exist_ok=True)
    try:
        influx = serve(place)
    except LookupError:
        return {"without InfluxDB": alone}
    stack.callback(influx.stop)
    server = {"URL": influx.url, "TOKEN": influx.token, "ORG": influx.org, "BUCKET": influx.bucket}
    writes = {f"HAN_INFLUX_{name}": value for name, value in server.items()}
    serial = {"HAN_SOURCE": _serial(stack)} | writes
    return {"with InfluxDB": alone | writes, "without InfluxDB": alone, "on a serial port with InfluxDB": serial}


def _serial(stack: ExitStack) -> str:
    """A port on which a meter sends a list every 10 s at 2400 baud, in pieces as a USB adapter hands them over."""
    meter_end, port = pty.openpty()
    tty.setraw(port)
    name, over = os.ttyname(port), threading.Event()
    sent = SimulatedMeter("kamstrup").frames(datetime.now(UTC))

    def send() -> None:
        began = time.monotonic()
        for number, frame in enumerate(sent):
            for place, at in enumerate(range(0, len(frame.data), _AT_ONCE)):
                os.write(meter_end, frame.data[at : at + _AT_ONCE])
                if over.wait(max(0.0, began + 10 * number + _LATENCY_S * place - time.monotonic())):
                    return
            if over.wait(max(0.0, began + 10 * (number + 1) - time.monotonic())):
                return

    sender = threading.Thread(target=send)
    sender.start()
    for handle in (port, meter_end):
        stack.callback(os.close, handle)
    stack.callback(sender.join)
    stack.callback(over.set)
    return f"{name}?baud=2400"


@contextmanager
def _running(settings: Mapping[str, str]) -> Iterator[int]:
    command = [child.PROGRAM, "run", "--log-level", "error"]
    with subprocess.Popen(command, env=child.environment(settings)) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def _spent(pid: int) -> Spent:
    """Threads that have ended are not counted: in an idle `run`, none ends."""
    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    running = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)
    switches = sum(_field(task / "status", "voluntary_ctxt_switches") for task in tasks)
    return Spent(running / 1e9, switches, _field(Path(f"/proc/{pid}/io"), "write_bytes"))


def _resident_kb(pid: int) -> int:
    return _field(Path(f"/proc/{pid}/status"), "VmRSS")


def _field(path: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in path.read_text().splitlines() if line.startswith(f"{name}:"))


def _syncs(pids: Sequence[int], seconds: float, folder: Path) -> list[float | None]:
    """Syncs a second of each process; None if strace does not exist or is not allowed."""
    if shutil.which("strace") is None:
        return [None] * len(pids)
    tables = [folder / f"strace-{pid}" for pid in pids]
    look = ["strace", "-f", "-qq", "-c", "-U", "name,calls", "-e", f"trace={','.join(_SYNCS)}"]
    watchers = [
        subprocess.Popen([*look, "-o", str(table), "-p", str(pid)], stderr=subprocess.DEVNULL)
        for pid, table in zip(pids, tables, strict=True)
    ]
    time.sleep(seconds)
    refused = [watcher.poll() is not None for watcher in watchers]
    for watcher in watchers:
        watcher.send_signal(signal.SIGINT)  # it detaches, and writes its table
        watcher.wait()
    return [None if no else _counted(table) / seconds for no, table in zip(refused, tables, strict=True)]


def _counted(table: Path) -> int:
    rows = [line.split() for line in table.read_text().splitlines()]
    return sum(int(row[1]) for row in rows if len(row) > 1 and row[0] in _SYNCS)


def figures(cost: Cost, name: str, seconds: float) -> Iterator[Figure]:
    """The rows for a cost."""
    what = f"run, idle, {name}"
    note = f"in {seconds:g} s, one meter"
    yield Figure(f"{what}: resident memory", cost.resident_kb / 1024, "MB", 60, at_most=True, note=note)
    an_hour = f"{cost.processor_s * 3600:.1f} s an hour"
    yield Figure(f"{what}: of a core", cost.processor_s * 100, "%", 0.1, at_most=True, note=an_hour)
    yield Figure(f"{what}: wake-ups", cost.wakeups * 60, "/min")
    yield Figure(f"{what}: written to the disk", cost.written * _DAY_S / 1e6, "MB/day")
    syncs = None if cost.syncs is None else cost.syncs * _DAY_S
    yield Figure(
        f"{what}: syncs",
        syncs,
        "/day",
        note="" if syncs is not None else "not available: strace does not exist or is not allowed",
    )


def run(effort: Effort) -> Iterator[Figure]:
    """The cost of the service, as `python -m tests.benchmarks` shows it."""
    seconds = effort.of(10, 60, 600)
    for name, cost in costs(seconds, effort.folder).items():
        yield from figures(cost, name, seconds)


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    print(header())
    with tempfile.TemporaryDirectory() as folder:
        for name, cost in costs(seconds, Path(folder)).items():
            for figure in figures(cost, name, seconds):
                print(row(figure))
    bare = imported_kb("sys")
    for part in PARTS:
        print(f"  import {part:<18} {(imported_kb(part) - bare) / 1024:6.1f} MB over a bare interpreter")


if __name__ == "__main__":
    main()
