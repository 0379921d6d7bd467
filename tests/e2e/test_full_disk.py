"""A full disk: readings are sent from memory, and go to the disk again when there is room."""

from __future__ import annotations

import re
import resource
from contextlib import closing
from pathlib import Path

import pytest

from exporter.outbox.queue import Outbox
from tests.e2e.harness import Home, Meter, Run, started, words
from tests.e2e.made import frames_of_power, power
from tests.e2e.truth import assert_same, of_meters, points_of_lists, powers
from tests.support.influx_server import Influx, Store, free_port
from tests.support.patience import until
from tests.support.rows import rows
from tests.support.small_disk import fill, room, small_disk


def disk_takes(run: Run, size: int) -> None:
    """Let this process write no file of more than so many bytes, as if the disk were full (-1: any size)."""
    _, hard = resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def test_a_full_disk_stops_no_reading(home: Home, store: Store, meter: Meter, mark: str) -> None:
    run = started(home, meter, store)
    frames = frames_of_power(f"FULL-{mark}", range(30))

    def there(count: int) -> bool:
        return len(powers(store.points()).get(f"FULL-{mark}", [])) >= count

    for frame in frames[:10]:
        meter.send(frame)
    until(lambda: there(10))
    disk_takes(run, 1)
    for frame in frames[10:20]:
        meter.send(frame)
    run.expect("The outbox takes nothing ")
    until(lambda: there(20))
    disk_takes(run, -1)
    for frame in frames[20:]:
        meter.send(frame)
    until(lambda: there(30))
    run.stop()
    assert "nothing is left unsent" in words(run.log)
    assert_same(of_meters(store.points()), points_of_lists(store.points(), f"FULL-{mark}", frames))


def test_a_full_disk_and_no_influxdb_are_both_reported(home: Home, influx: Influx, meter: Meter, mark: str) -> None:
    run = started(home, meter, influx, influx_url=f"http://127.0.0.1:{free_port()}")
    disk_takes(run, 1)
    for frame in frames_of_power(f"LOST-{mark}", range(5)):
        meter.send(frame)
    run.expect("The outbox takes nothing .*in memory")
    assert run.stop() < 6
    assert re.search(r"lines? (is|are) lost", words(run.log))


def backlog(path: Path, appends: int) -> None:
    """Make an outbox in which so many hundreds of lines wait, and its reserve."""
    outbox = Outbox(path)
    for number in range(appends):
        outbox.append(
            rows([f"active_power,direction=import,meter_id=OLD value={number}.0 {number}{k:03}" for k in range(100)])
        )
    outbox.close()


def newest(path: Path) -> tuple[str, ...]:
    """Return the newest waiting lines, while another process has the outbox."""
    with closing(Outbox(path, read_only=True)) as outbox:
        batch = outbox.take(100, newest=True)
        return batch.lines if batch is not None else ()


def waiting(path: Path) -> tuple[list[str], int]:
    """Return the waiting lines, and how many were dropped."""
    outbox = Outbox(path)
    dropped = outbox.status().dropped_lines
    lines: list[str] = []
    while batch := outbox.take(5000, newest=False):
        lines += batch.lines
        outbox.delete(batch)
    outbox.close()
    return lines, dropped


def test_started_on_a_full_disk_without_influxdb_the_oldest_go_and_no_new_one(
    home: Home, influx: Influx, meter: Meter, mark: str
) -> None:
    with small_disk() as disk:
        home.outbox = disk / "outbox.sqlite"
        backlog(home.outbox, 160)
        (disk / "outbox.sqlite.lock").unlink()  # for the process number in it there will be no room
        fill(disk)
        run = started(home, meter, influx, influx_url=f"http://127.0.0.1:{free_port()}")
        fill(disk)
        assert room(disk) == 0
        for frame in frames_of_power(f"NEW-{mark}", range(1500)):
            meter.send(frame)
        run.expect("is full: .* lines were dropped", 60)
        until(lambda: any(" value=1499.0 " in line for line in newest(home.outbox)), 60)
        run.stop()
        assert "takes nothing" not in words(run.log)
        lines, dropped = waiting(home.outbox)
        assert dropped > 0
        old = [line for line in lines if "meter_id=OLD" in line]
        assert len(old) + dropped == 16_000
        new = [line for line in lines if f"NEW-{mark}" in line and line.startswith("active_power")]
        assert len(new) == 1500


def test_without_influxdb_a_disk_that_is_too_full_to_start_on_ends_run(home: Home, meter: Meter) -> None:
    with small_disk() as disk:
        home.outbox = disk / "outbox.sqlite"
        fill(disk)
        done = home.han("run", source=meter.path)
        assert done.returncode not in (0, None)
        assert "disk is full" in done.stderr


@pytest.mark.parametrize("before", ["nothing", "an outbox"])
def test_started_on_a_full_disk_readings_are_sent_from_memory_until_there_is_room(
    home: Home, store: Store, meter: Meter, mark: str, before: str
) -> None:
    frames = frames_of_power(f"FULL-{mark}", range(20))
    with small_disk() as disk:
        home.outbox = disk / "outbox.sqlite"
        if before == "an outbox":
            outbox = Outbox(home.outbox)
            outbox.append([], {"last_id:ttyHAN0": f"KNOWN-{mark}"})
            outbox.close()
            Path(f"{home.outbox}.reserve").unlink()
        other = fill(disk)
        run = started(home, meter, store)
        run.expect("disk is full.*directly")
        if before == "an outbox":
            meter.send(power(99))
            until(lambda: powers(store.points()).get(f"KNOWN-{mark}") == [99.0])
        for frame in frames[:10]:
            meter.send(frame)
        until(lambda: len(powers(store.points()).get(f"FULL-{mark}", [])) == 10)
        second = home.han("run", influx=store, source=meter.path)
        assert second.returncode == 2
        assert "another han-exporter" in second.stderr
        check = home.han("check", influx=store, source=meter.path)
        assert check.returncode == 1
        assert re.search("(?m)^WRONG  outbox: .*disk is full", check.stdout)
        check = home.han("check", "--running")
        assert check.returncode == 0, "readings arrive, and a restart would not make room"
        assert re.search("(?m)^note   outbox: .*free some room", check.stdout)
        other.unlink()
        run.expect("The outbox .* can be used again", 40)
        assert "ok     outbox: " in home.han("check", "--running").stdout
        for frame in frames[10:]:
            meter.send(frame)
        until(lambda: len(powers(store.points()).get(f"FULL-{mark}", [])) == 20)
        run.stop()
        assert "nothing is left unsent" in words(run.log)
        assert "Traceback" not in words(run.log)
        with closing(Outbox(home.outbox)) as outbox:
            assert outbox.get_state("last_id:ttyHAN0") == f"FULL-{mark}"
    points = {point for point in of_meters(store.points()) if f"KNOWN-{mark}" not in str(point)}
    assert_same(points, points_of_lists(store.points(), f"FULL-{mark}", frames))
