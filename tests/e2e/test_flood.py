"""A device that sends bytes without end, beside a meter: bounded, reported, and without effect on the meter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Meter
from tests.e2e.made import power
from tests.support.influx_server import Store
from tests.support.patience import HANG_S, until

_TICK = 100.0
_PAGE = 4096


@contextmanager
def flooding(device: Meter, data: bytes) -> Iterator[None]:
    """Send as fast as the reader takes it."""
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            try:
                device.send(data, patience=0.5)
            except TimeoutError:
                continue

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join(HANG_S)


def used(number: int) -> tuple[float, int]:
    """Processor seconds and resident bytes of a process."""
    fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK, int(fields[21]) * _PAGE


@pytest.mark.parametrize(
    "data",
    [b"\x00" * 4096, b"\x7e\xa7\xff\x03\x03\x13" * 700, bytes(range(256)) * 16],
    ids=["zeros", "frame starts", "all bytes"],
)
def test_a_flood_beside_a_meter(home: Home, store: Store, plug: Callable[[str], Meter], data: bytes) -> None:
    device, meter = plug("ttyFLOOD"), plug("ttyHAN0")
    run = home.run(source=f"{device.path} {meter.path}", influx=store)
    run.expect(r"ttyHAN0 \(2400 8N1\)")
    with flooding(device, data):
        assert " WARNING " in run.expect("ttyFLOOD floods: .* 16 kB/s")
        began, (before, _) = time.monotonic(), used(run.process.pid)
        for n in range(1, 11):
            meter.send(power(n, b"BESIDE"))
            until(lambda n=n: len(store.points("active_power")) >= n, 5, "a reading beside the flood")  # type: ignore[misc]
            time.sleep(0.2)
        after, resident = used(run.process.pid)
        assert (after - before) / (time.monotonic() - began) < 0.4
        assert resident < 120_000_000
        assert run.stop() < 5
    assert sum("floods" in line for line in run.log) == 1
