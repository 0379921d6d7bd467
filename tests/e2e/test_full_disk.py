"""A disk that takes nothing more: readings go straight on, and to the disk again when it does."""

from __future__ import annotations

import resource

from tests.e2e.harness import Home, Meter, Run, started, until, words
from tests.e2e.made import frames_of_power
from tests.e2e.truth import assert_same, of_meters, points_of_lists, powers
from tests.influx_server import Influx, Store, free_port


def disk_takes(run: Run, octets: int) -> None:
    """Let no write of this process go beyond so many octets of a file, as if the disk were full (-1: any)."""
    _, hard = resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (octets, hard))


def test_a_full_disk_holds_up_no_reading(home: Home, store: Store, meter: Meter, mark: str) -> None:
    run = started(home, meter, store)
    frames = frames_of_power(f"FULL-{mark}", range(30))

    def there(count: int) -> bool:
        return len(powers(store.points()).get(f"FULL-{mark}", [])) >= count

    for octets in frames[:10]:
        meter.send(octets)
    until(lambda: there(10))
    disk_takes(run, 1)
    for octets in frames[10:20]:
        meter.send(octets)
    run.expect("The outbox takes nothing .*Readings go straight to InfluxDB")
    until(lambda: there(20))
    disk_takes(run, -1)
    for octets in frames[20:]:
        meter.send(octets)
    until(lambda: there(30))
    run.stop()
    assert "nothing is left unsent" in words(run.log)
    assert_same(of_meters(store.points()), points_of_lists(store.points(), f"FULL-{mark}", frames))


def test_a_full_disk_and_no_influxdb_are_told_as_they_are(home: Home, influx: Influx, meter: Meter, mark: str) -> None:
    run = started(home, meter, influx, influx_url=f"http://127.0.0.1:{free_port()}")
    disk_takes(run, 1)
    for octets in frames_of_power(f"LOST-{mark}", range(5)):
        meter.send(octets)
    run.expect("wait in memory, and are lost if this is stopped before it takes them")
    assert run.stop() < 6
    assert "that the outbox could not take are lost" in words(run.log)
