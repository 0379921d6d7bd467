"""(e) The outbox: readings appended a second, each on the disk before the next, and how fast a backlog is drained.

Each reading of a Kamstrup meter is appended with the lines derived from it, as `run` does. The speed of the disk itself
is measured beside it: a page is appended to a file and fsync-ed, again and again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Final

from exporter.outbox.queue import Outbox
from tests.benchmarks.catch_up import BATCH, readings
from tests.benchmarks.figures import Effort, Figure, calibrate, together
from tests.support.rows import rows

APPENDS_AIM: Final = 200
DRAIN_AIM: Final = 20_000
_PAGE: Final = b"\x5a" * 4096


def run(effort: Effort) -> Iterator[Figure]:
    """All of (e)."""
    seconds = effort.of(1, 5)
    path = effort.folder / "outbox.sqlite"
    lines = list(readings(effort.of(2000, 20_000, 60_000)))
    syncs = _syncs_a_second(effort.folder / "synced", seconds)
    appended = _appended_a_second(path, lines, seconds)
    note = "" if appended >= APPENDS_AIM or syncs > APPENDS_AIM else "the disk is the limit"
    yield Figure("disk: 4 kB written and fsync-ed", syncs, "/s")
    yield Figure("outbox: appended and on the disk", appended, "readings/s", APPENDS_AIM, note=note)
    yield Figure("outbox: append to fsync", appended / syncs, "x", note="1.00: only the disk takes time")
    drains: list[float] = []
    loop = together(lambda: drains.append(_drained(path, lines)), calibrate, repetitions=3, patience_s=20.0)[1]
    drained_s = min(drains)
    all_lines = sum(map(len, lines))
    note = f"{len(lines):,} rows as `run` leaves them, {BATCH} lines a batch"
    yield Figure("outbox: drained", len(lines) / drained_s, "readings/s", DRAIN_AIM, note=note)
    yield Figure("outbox: drained, lines", all_lines / drained_s, "lines/s", DRAIN_AIM)
    ratio = all_lines / 1000 / drained_s * loop.best
    yield Figure("outbox: 1000 lines drained to the calibration loop", ratio, "x", compared=True)


def _often(work: Callable[[], object], seconds: float) -> float:
    """How many times it can be done in a second."""
    began, done = time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        work()
        done += 1
    return done / passed


def _syncs_a_second(path: Path, seconds: float) -> float:
    with path.open("wb", buffering=0) as file:

        def synced() -> None:
            file.write(_PAGE)
            os.fsync(file.fileno())

        return _often(synced, seconds)


def _appended_a_second(path: Path, lines: list[list[str]], seconds: float) -> float:
    outbox, following = _opened(path), cycle(lines)
    try:
        return _often(lambda: outbox.append(rows(next(following))), seconds)
    finally:
        outbox.close()


def _drained(path: Path, lines: list[list[str]]) -> float:
    """Seconds in which a backlog of these rows is taken and deleted, as if InfluxDB took every batch."""
    outbox = _opened(path)
    try:
        outbox._file._connection.execute("PRAGMA synchronous = OFF")  # a real backlog comes slowly
        for one in lines:
            outbox.append(rows(one))
        outbox._file._connection.execute("PRAGMA synchronous = FULL")
        began = time.monotonic()
        while (batch := outbox.take(BATCH, newest=False)) is not None:
            outbox.delete(batch)
        return time.monotonic() - began
    finally:
        outbox.close()


def _opened(path: Path) -> Outbox:
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    return Outbox(path)
