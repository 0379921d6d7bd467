"""Hours, sums and peaks in InfluxDB are those of one uninterrupted run, however `run` and `import` share the work.

`run` is its SourceWorker with a real outbox, which it holds; `import` is the installed command, in another process.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest

from exporter.config import load
from exporter.outbox.queue import Outbox
from exporter.pipeline.link import Link
from exporter.service.source_worker import SourceWorker
from exporter.sources.contract import Chunk
from tests.e2e.captures import write_raw, write_stamped
from tests.e2e.harness import Home
from tests.support.influx_server import Influx, Point, Store
from tests.support.years import HOUR, Meter, Sent, expected_hours

START = datetime(2025, 10, 24, 5, tzinfo=UTC)
"""The hours include the night with an hour twice, and the end of a month."""
HOURS = 190


class Source:
    """A port for the SourceWorker. The test gives it the chunks."""

    name = "port"
    live = True

    def chunks(self, stop: Event, report: object) -> Iterator[Chunk]:
        """No chunks of its own."""
        return iter(())


class Run:
    """The parts of `run` that make and send points. It holds the outbox."""

    def __init__(self, home: Home, influx: Influx) -> None:
        self._client = influx.client()
        self._home = home
        self.start()

    def start(self) -> None:
        self.outbox = Outbox(self._home.outbox)
        self._reader = SourceWorker(Source(), Link("port", "port"), self.outbox, load({}, None))

    def kill(self) -> None:
        """End without a word to the SourceWorker."""
        self.outbox.close()

    def read(self, lists: list[Sent]) -> None:
        for one in lists:
            self._reader.take(Chunk(one.frame, one.received))
            self._reader.tick()

    def send(self) -> None:
        """Send all that waits, oldest first."""
        while batch := self.outbox.take(5000, newest=False):
            assert self._client.write(batch.lines).verdict.name == "TAKEN"
            self.outbox.delete(batch)

    def close(self) -> None:
        self.outbox.close()
        self._client.close()


@pytest.fixture(scope="module")
def meter() -> Meter:
    return Meter("kaifa", seed=14)


@pytest.fixture(scope="module")
def lists(meter: Meter) -> list[Sent]:
    return [meter.hourly(START + number * HOUR) for number in range(HOURS)]


@pytest.fixture(scope="module")
def whole(shared_influx: Influx, lists: list[Sent], tmp_path_factory: pytest.TempPathFactory) -> set[Point]:
    """What one uninterrupted run writes."""
    store = Store(shared_influx)
    run = Run(Home(tmp_path_factory.mktemp("whole")), store)
    run.read(lists)
    run.send()
    run.close()
    return store.points()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def capture(home: Home, lists: list[Sent], *, raw: bool = False) -> Path:
    path = home.folder / f"{lists[0].received:%d-%H}-{lists[-1].received:%d-%H}.{'bin' if raw else 'txt'}"
    if raw:
        return write_raw(path, [one.frame for one in lists])
    return write_stamped(path, [(one.received, one.frame) for one in lists])


def imports(home: Home, influx: Influx, *files: Path) -> None:
    done = home.han("import", *files, influx=influx)
    assert done.returncode == 0, done.stderr
    assert "not remembered" not in done.stderr


def finals(points: set[Point]) -> dict[int, float]:
    wanted = {("kind", "final"), ("direction", "import")}
    return {p.time: dict(p.fields)["value"] for p in points if p.measurement == "hour_energy" and wanted <= set(p.tags)}


def test_run_and_import_in_turn_while_run_holds_the_outbox(
    home: Home, store: Store, whole: set[Point], meter: Meter, lists: list[Sent]
) -> None:
    """Captures that are older and newer than what is read live, with kills between them."""
    assert finals(whole) == expected_hours(meter, [one.hour for one in lists if one.hour is not None])
    assert len(finals(whole)) == HOURS - 1
    assert sum(p.measurement == "meter" for p in whole) == 9, "local days with a reading"
    run = Run(home, store)
    run.read(lists[60:90])
    run.send()
    imports(home, store, capture(home, lists[20:60]))  # its end joins what is read live
    run.read(lists[90:100])
    run.send()
    run.kill()
    run.start()
    imports(home, store, capture(home, lists[100:150]), capture(home, lists[:20]))
    run.read(lists[150:151])
    run.send()
    run.kill()
    imports(home, store, capture(home, lists[140:180]))  # a part of it again, while no service runs
    run.start()
    run.read(lists[180:])
    run.send()
    assert store.points() == whole
    imports(home, store, capture(home, lists))
    assert store.points() == whole, "importing all of it again changes nothing"
    run.close()


def test_captures_in_any_order(
    home: Home, shared_influx: Influx, whole: set[Point], lists: list[Sent], tmp_path: Path
) -> None:
    """Without a service. Each order has its own outbox and database."""
    parts = [capture(home, lists[:70]), capture(home, lists[70:130]), capture(home, lists[130:])]
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0, 1)):
        store = Store(shared_influx)
        done = home.han(
            "import", *(parts[number] for number in order), influx=store, outbox=tmp_path / f"{order}.sqlite"
        )
        assert done.returncode == 0, done.stderr
        assert store.points() == whole


def test_two_computers_import_into_one_influxdb(
    home: Home, store: Store, whole: set[Point], lists: list[Sent], tmp_path: Path
) -> None:
    """Neither has the other's outbox: sums and peaks are of what InfluxDB has."""
    for number, part in enumerate((lists[99:], lists[:100])):  # they join at the list that both have
        done = home.han("import", capture(home, part), influx=store, outbox=tmp_path / f"{number}.sqlite")
        assert done.returncode == 0, done.stderr
    assert store.points() == whole


def test_raw_bytes_give_the_same_hours(home: Home, store: Store, whole: set[Point], lists: list[Sent]) -> None:
    derived = {"hour_energy", "day_energy", "month_energy", "capacity", "capacity_step", "active_energy"}
    imports(home, store, capture(home, lists, raw=True))
    assert {p for p in store.points() if p.measurement in derived} == {p for p in whole if p.measurement in derived}


def test_import_writes_nothing_about_the_present(home: Home, store: Store) -> None:
    """Not even for a capture that ends in this minute: no running hour, no limits, no age."""
    now = datetime.now(UTC).replace(microsecond=0)
    meter = Meter("kaifa", seed=14)
    lists = [meter.hourly(now.replace(minute=0, second=0) - number * HOUR) for number in (2, 1)]
    moment = now - timedelta(seconds=5)
    lists.append(Sent(moment, meter.frame(moment, moment), None))
    imports(home, store, capture(home, lists))
    points = store.points()
    assert len(finals(points)) >= 1
    assert not {"threshold", "reading_age", "exporter", "event"} & {p.measurement for p in points}
    assert not {("kind", "so_far"), ("kind", "projected")} & {tag for p in points for tag in p.tags}
