"""Houses with a simulated meter, and an InfluxDB with what `run` writes in two months.

The frames of each house go through the pipeline as in `run`. For two months there are hourly lists, for the last two
days a list every minute, and for the last hours one every 10 s, with what `run` writes about the present: the running
hour, limits, ages, and the exporter's own points.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from exporter import __version__
from exporter.config import Settings
from exporter.derive.derivations import backlog_threshold_lines
from exporter.meters import OSLO
from exporter.model.calendar import to_ms
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.link import Link
from exporter.pipeline.pipeline import Fed, Pipeline
from exporter.service import own_points
from exporter.service.service import Service
from exporter.simulator import aidon
from exporter.simulator.encoder import local_clock, standard_time
from exporter.simulator.household import Household
from exporter.simulator.meter import Frame, List, SimulatedMeter
from exporter.sinks.contract import Verdict, WriteResult
from exporter.sources.contract import Chunk
from tests.support.influx_server import Influx
from tests.support.pipeline import Memory

NOW = datetime(2026, 11, 4, 11, 23, 40, tzinfo=UTC)
"""A Wednesday, 12:23:40 in Oslo, ten days after the day of 25 hours."""
ZONE = OSLO
_MINUTES = timedelta(days=2)
_TICKS = timedelta(hours=3)
_OWN = timedelta(hours=1)
_TICK = timedelta(seconds=10)
_BATCH = 5000
_GATHERED = 2000
"""How many lines of the past `run` adds to its outbox at once, with the sums of their months."""


@dataclass(frozen=True)
class House:
    """A household and its meter. `given_id` is "" for the id of the simulated meter; `fuse` is in A."""

    name: str
    kind: str
    seed: int
    fuse: float
    phases: int = 3
    net: str = "TN"
    solar: bool = False
    given_id: str = ""

    @cached_property
    def meter(self) -> SimulatedMeter:
        return SimulatedMeter(
            self.kind, self.phases, self.net, self.seed, self.given_id or None, ZONE, solar=self.solar
        )

    @property
    def meter_id(self) -> str:
        return self.meter.id

    @property
    def household(self) -> Household:
        """The household that the meter measures."""
        return self.meter._household

    def lists(self, now: datetime) -> Iterator[Frame]:
        """The frames up to `now`, in order."""
        first = now.astimezone(ZONE).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        begin = (first - timedelta(days=1)).replace(day=1).astimezone(UTC)
        return heapq.merge(
            self.meter.frames(begin, now, frozenset({List.HOURLY})),
            self._each_minute(now - _MINUTES, now - _TICKS),
            self.meter.frames(now - _TICKS, now, frozenset({List.TEN_SECONDS})),
            key=lambda frame: frame.complete,
        )

    def _each_minute(self, start: datetime, end: datetime) -> Iterator[Frame]:
        moment = start.replace(second=30, microsecond=0)
        while moment < end:
            yield from self.meter.frames(moment, moment + _TICK, frozenset({List.TEN_SECONDS}))
            moment += timedelta(minutes=1)


@dataclass(frozen=True)
class SwedishHouse(House):
    """A meter that sends the power of each phase and no id, and its registers every 10 s."""

    def lists(self, now: datetime) -> Iterator[Frame]:
        moment = now - _OWN
        while moment < now:
            sample = self.household.sample(moment, registers_at=moment)
            clock = local_clock(standard_time(moment, ZONE), deviation=0)
            yield Frame(moment + timedelta(seconds=2), aidon.swedish(sample, clock))
            moment += _TICK


TN = House("tn", "kamstrup", 1, 40, given_id="5706567100012345")
IT = House("it", "aidon", 2, 32, net="IT")
CABIN = House("cabin", "kaifa", 3, 25, phases=1)
SOLAR = House("solar", "aidon", 7, 40, solar=True)
SWEDISH = SwedishHouse("swedish", "aidon", 5, 25, given_id="735999000000000000")
HOUSES = (TN, IT, CABIN, SOLAR, SWEDISH)


@dataclass
class _Exporter:
    """What `run` does with one source, at the times of the house."""

    house: House
    begun: datetime
    now: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.now = self.begun
        self.state: dict[str, str] = {}
        house = self.house
        self.settings = Settings(main_fuse_a=house.fuse, meter_id=house.given_id or None, instance=house.name)
        self.link = Link(house.kind, f"sim:{house.kind}", monotonic=self._seconds)
        clock = HostClock(lambda: self.now, self._seconds, lambda: True)
        self.pipeline = Pipeline(house.kind, self.settings, Memory(self.state), clock, live=True, link=self.link)

    def _seconds(self) -> float:
        return (self.now - self.begun).total_seconds()

    def read(self, frame: Frame) -> list[str]:
        self.now = frame.complete
        fed = self.pipeline.feed((Chunk(frame.data, frame.complete),), more=True)
        assert not fed.outcomes, fed.outcomes
        return _lines(fed)

    def kept(self) -> list[str]:
        fed = self.pipeline.feed(())
        self.state.update(fed.state)
        self.pipeline.kept()
        return _lines(fed)

    def tick(self, moment: datetime, service: Service) -> list[str]:
        self.now = moment
        ms = to_ms(moment)
        found = service._own_lines(ms, [self.link])
        found += (own_points.reading_age_line(meter, age, ms) for meter, age in self.link.reading_ages().items())
        if not moment.minute % 5 and moment.second < 10:
            found += backlog_threshold_lines(self.settings, ms)
        return [*found, *self.pipeline.now(ms)]


def _lines(fed: Fed) -> list[str]:
    return [line for row in fed.rows for line in row.body.decode().split("\n")]


def lines(house: House, now: datetime = NOW) -> Iterator[list[str]]:
    """What InfluxDB has of a house at `now`, in the order in which it was written."""
    began = now - _OWN
    with tempfile.TemporaryDirectory() as folder:
        own = Settings(influx_url="http://127.0.0.1:9", outbox=Path(folder) / "outbox", instance=house.name)
        service = Service(own, [])
        try:
            exporter = _Exporter(house, now - timedelta(days=70))
            words = f"han-exporter {__version__} started"
            yield [own_points.event_line(house.name, "start", words, to_ms(began))]
            tick, gathered = began, 0
            for frame in house.lists(now):
                while tick <= frame.complete:
                    yield exporter.tick(tick, service)
                    tick += _TICK
                some = exporter.read(frame)
                gathered += len(some)
                if gathered >= _GATHERED:
                    gathered = 0
                    some += exporter.kept()
                yield some
            yield [*exporter.kept(), *exporter.tick(now, service)]
        finally:
            service._outbox.close()


def fill(influx: Influx, houses: Iterable[House] = HOUSES, now: datetime = NOW) -> None:
    """Write what InfluxDB has of the houses at `now`."""
    client = influx.client()
    try:
        for house in houses:
            batch: list[str] = []
            for some in lines(house, now):
                batch += some
                if len(batch) >= _BATCH:
                    _write(client.write(batch))
                    batch = []
            _write(client.write(batch))
    finally:
        client.close()


def _write(outcome: WriteResult) -> None:
    assert outcome.verdict is Verdict.TAKEN, outcome
