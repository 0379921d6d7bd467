"""What `run` costs while it does next to nothing: `python -m tests.benchmarks.idle [seconds]`.

Prints the resident memory of the service with one simulated meter, its processor time, and what the largest parts of it
cost to import, each in an interpreter of its own. With HAN_INFLUX_URL set it writes there, else into its outbox.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.figures import Effort, Figure

PARTS = ("sys", "sqlite3", "serial", "tenacity", "click", "pydantic_settings", "influxdb_client", "exporter.service")
_RESIDENT = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmRSS')][0])"


def imported_kb(module: str) -> int:
    """Resident memory, kB, of an interpreter that has imported one module."""
    out = subprocess.run([sys.executable, "-c", f"import {module}; {_RESIDENT}"], capture_output=True, check=True)
    return int(out.stdout)


def service_cost(seconds: float) -> tuple[int, float]:
    """Resident memory (kB) and processor seconds an hour of `run`, after so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "HAN_SOURCE": "sim:kamstrup", "HAN_OUTBOX": f"{folder}/outbox.sqlite"}
        command = [str(Path(sys.executable).with_name("han-exporter")), "run", "--log-level", "error"]
        with subprocess.Popen(command, env=environment) as process:
            time.sleep(5)  # the start is not idling
            before = _processor_s(process.pid)
            time.sleep(seconds)
            used = _processor_s(process.pid) - before
            status = Path(f"/proc/{process.pid}/status").read_text()
            process.terminate()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return resident, used / seconds * 3600


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(effort: Effort) -> Iterator[Figure]:
    """The service's cost, in short: what `python -m tests.benchmarks` shows of it."""
    seconds = effort.of(10, 60, 600)
    resident, used = service_cost(seconds)
    note = f"in {seconds} s, with one simulated meter"
    yield Figure("run, idle: resident memory", resident / 1024, "MB", 80, at_most=True, note=note)
    yield Figure("run, idle: of a core", used / 36, "%", 0.1, at_most=True, note=f"{used:.1f} s an hour")


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    resident, used = service_cost(seconds)
    print(f"run: {resident / 1024:.1f} MB resident, {used:.1f} processor seconds an hour ({used / 36:.3f} % of a core)")
    bare = imported_kb("sys")
    for part in PARTS:
        print(f"  import {part:<18} {(imported_kb(part) - bare) / 1024:6.1f} MB over a bare interpreter")


if __name__ == "__main__":
    main()
