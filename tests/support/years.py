"""A meter's hourly lists over months, the true energies, and what `run` writes for them: for the tests of hours.

The simulator's encoders make the frames, and its household gives the truth. What the exporter writes is kept as
InfluxDB keeps it: a point that is written again replaces the one before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from zoneinfo import ZoneInfo

from exporter.config import Settings
from exporter.model.reading import MeterClock
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.pipeline import Fed, Pipeline, Purpose
from exporter.simulator import aidon, kaifa, kamstrup
from exporter.simulator.encoder import local_clock, standard_time
from exporter.simulator.household import Household
from exporter.simulator.sample import Flows, Identity, Sample
from exporter.sources.contract import Chunk
from tests.support.pipeline import Memory

OSLO = ZoneInfo("Europe/Oslo")
HOUR = timedelta(hours=1)
HOUR_MS = 3_600_000
START = datetime(2025, 1, 1, tzinfo=UTC)
YEAR = 365 * 24
METER = "5706567000000000"
MAKERS = ("kamstrup", "aidon", "kaifa")
LAG = {"kamstrup": 6.1, "aidon": 11.4, "kaifa": 11.0, "swedish": 2.3}
"""Seconds from the full hour, by the meter's own clock, to the closing flag."""
STEP = {"kamstrup": 10, "aidon": 10, "kaifa": 1, "swedish": 1}
"""The step of the registers, Wh."""


def ms(moment: datetime) -> int:
    """UTC -> ms since 1970."""
    return round(moment.timestamp() * 1000)


@dataclass(frozen=True)
class Sent:
    """A list: when its closing flag was received, and the full hour of its registers (None: not of a full hour)."""

    received: datetime
    frame: bytes
    hour: int | None


@cache
def _household(_thread: int, seed: int, phases: int, net: str, zone: ZoneInfo, solar: bool) -> Household:
    return Household(seed, phases, net, zone, solar=solar)


def shared_household(seed: int, phases: int, net: str, zone: ZoneInfo, *, solar: bool = False) -> Household:
    """A household that sums the years before only once, for all meters of a thread that measure it.

    It can be shared, since it depends only on seed and time.
    """
    return _household(threading.get_ident(), seed, phases, net, zone, solar)


def household(seed: int, solar: bool = False) -> Household:
    """The household of a three-phase meter."""
    return shared_household(seed, 3, "TN", OSLO, solar=solar)


@cache
def _registers(house: Household, moment: datetime) -> Flows:
    """A household's registers: a year of them is calculated once in a session."""
    return house.registers(moment)


@dataclass
class Meter:
    """One meter. `off`: how much its clock is fast. `shows`: the time that it shows ("" for what its maker usually
    does).

    A meter whose clock is fast by 3 minutes begins its hours 3 minutes early, in its registers and on the bill.
    """

    maker: str
    off: timedelta = timedelta()
    shows: str = ""
    seed: int = 4
    solar: bool = False
    meter_id: str = METER
    house: Household = field(init=False)

    def __post_init__(self) -> None:
        self.house = household(self.seed, self.solar)

    @property
    def early(self) -> timedelta:
        """How long before the true full hour its own hour begins: `off` without whole hours."""
        return self.off - HOUR * round(self.off / HOUR)

    def registers(self, hour: int) -> tuple[int, int]:
        """Its registers of import and export, Wh, at its own full hour that is nearest to `hour` (ms)."""
        flows = _registers(self.house, datetime.fromtimestamp(hour / 1000, UTC) - self.early)
        step = STEP[self.maker]
        return int(flows.active_import) // step * step, int(flows.active_export) // step * step

    def energy(self, hour: int) -> tuple[int, int]:
        """The true import and export of the hour that begins at `hour` (ms), Wh."""
        before, after = self.registers(hour), self.registers(hour + HOUR_MS)
        return after[0] - before[0], after[1] - before[1]

    def hourly(self, hour: datetime, lag: float | None = None) -> Sent:
        """The hourly list of the full hour nearest to `hour`."""
        began = hour - self.early
        lag = LAG[self.maker] if lag is None else lag
        frame = self.frame(began, began + timedelta(seconds=int(lag)))
        return Sent(began + timedelta(seconds=lag), frame, ms(hour))

    def frame(self, registers_at: datetime, moment: datetime) -> bytes:
        """A list with the registers of one moment and the clock of another."""
        sample = Sample(
            Flows(1234, 0, 56, 0),
            (5.4, None, None),
            (231.0, None, None),
            (Flows(1234, 0, 56, 0), Flows(0, 0, 0, 0), Flows(0, 0, 0, 0)),
            _registers(self.house, registers_at),
        )
        identity = Identity(self.meter_id.encode(), b"6841121BN243101040")
        clock = self.clock(moment)
        if self.maker == "kamstrup":
            return kamstrup.hourly(identity, sample, clock, nulls=False)
        if self.maker == "kaifa":
            return kaifa.list3(identity, sample, clock)
        return aidon.list3(identity, sample, clock) if self.maker == "aidon" else aidon.swedish(sample, clock)

    def clock(self, moment: datetime) -> MeterClock:
        """What the meter shows at a moment."""
        own = moment + self.off
        shows = self.shows or ("civil" if self.maker == "kaifa" else "standard")
        if shows == "standard":
            local = standard_time(own, OSLO)
        else:
            local = own.astimezone(OSLO if shows == "civil" else UTC).replace(tzinfo=None)
        if self.maker == "aidon":  # it shows the full hour
            local = local.replace(minute=0, second=0)
        return local_clock(local, deviation=0 if self.maker == "aidon" else None)


@dataclass
class Written:
    """What InfluxDB would have: (measurement and tags, time) -> fields. Checks that a final hour never changes."""

    points: dict[tuple[str, int], str] = field(default_factory=dict)
    final_lines: int = 0

    def take(self, lines: Iterable[str]) -> None:
        for line in lines:
            series, fields, time = line.rsplit(" ", 2)
            key = series, int(time)
            if ",kind=final," in series:
                self.final_lines += 1
                assert self.points.get(key, fields) == fields, f"a final hour changed: {line}"
            self.points[key] = fields

    def values(self, measurement: str, *parts: str) -> dict[int, float]:
        """Time -> value of the points of a measurement whose series contains every part."""
        return {
            time: float(fields.partition(",")[0].removeprefix("value="))
            for (series, time), fields in self.points.items()
            if series.startswith(measurement + ",") and all(part in series for part in parts)
        }

    def finals(self, direction: str = "import", meter_id: str = METER) -> dict[int, float]:
        """The final hours: start (ms) -> Wh."""
        return self.values("hour_energy", f"direction={direction},", "kind=final", f"meter_id={meter_id}")


class Exporter:
    """A Pipeline, and an outbox that keeps lines and state together, or neither."""

    def __init__(
        self,
        settings: Settings | None = None,
        state: dict[str, str] | None = None,
        monotonic: Callable[[], float] = lambda: 0.0,
        purpose: Purpose = Purpose.RUN,
    ) -> None:
        self.settings = settings or Settings(meter_id=METER)
        self.clock = HostClock(monotonic=monotonic)
        self.purpose = purpose
        self.state: dict[str, str] = {} if state is None else state
        self.written = Written()
        self.start()

    def start(self) -> None:
        """A new process: what was not kept is lost."""
        self._lines: list[str] = []
        self.pipeline = Pipeline("meter", self.settings, Memory(self.state), self.clock, purpose=self.purpose)

    def read(self, frame: bytes, received: datetime | None, *, keep: bool = False) -> None:
        """Read one frame. With `keep`, in a transaction of its own, as `run` does."""
        fed = self.pipeline.feed((Chunk(frame, received),), more=not keep)
        assert not fed.outcomes, fed.outcomes
        self._take(fed)
        if keep:
            self._keep(fed)

    def keep(self) -> None:
        """One transaction of the outbox."""
        fed = self.pipeline.feed(())
        self._take(fed)
        self._keep(fed)

    def stop(self) -> None:
        """End the process in order."""
        fed = self.pipeline.end(all_heard=False)
        self._take(fed)
        self._keep(fed)

    def _take(self, fed: Fed) -> None:
        self._lines += [line for row in fed.rows for line in row.body.decode().split("\n")]

    def _keep(self, fed: Fed) -> None:
        self.written.take(self._lines)
        self.state.update(fed.state)
        self.pipeline.kept()
        self._lines = []


def up_times(random: Random, share_down: float = 0.15) -> list[tuple[datetime, datetime]]:
    """When the exporter runs in the year: times of up to some weeks, with pauses of seconds to days."""
    spans, now, end = [], START - HOUR / 2, START + YEAR * HOUR
    while now < end:
        up = timedelta(hours=random.expovariate(1 / 150))
        mean_down_h = 150 * share_down / (1 - share_down)
        down = timedelta(hours=random.expovariate(1 / mean_down_h)) if random.random() < 0.7 else timedelta(seconds=40)
        spans.append((now, min(now + up, end)))
        now += up + down
    return spans


def run_through(
    exporter: Exporter, sent: Iterable[Sent], spans: list[tuple[datetime, datetime]], random: Random
) -> list[Sent]:
    """Let the exporter read what is sent while it runs, and return that. Every span is a process of its own."""
    found: list[Sent] = []
    span = -1
    lists = list(sent)
    for one in lists:
        while span + 1 < len(spans) and spans[span + 1][0] <= one.received:
            exporter.stop()
            exporter.start()
            span += 1
        if span < 0 or one.received > spans[span][1]:
            continue
        exporter.read(one.frame, one.received, keep=random.random() < 0.01)
        found.append(one)
    exporter.stop()
    return found


def expected_hours(meter: Meter, hours: Iterable[int]) -> dict[int, float]:
    """The hours whose two registers are known: start -> Wh of import, from the household."""
    known = set(hours)
    return {hour: float(meter.energy(hour)[0]) for hour in sorted(known) if hour + HOUR_MS in known}


def local_capacity(finals: Mapping[int, float]) -> dict[tuple[int, int], tuple[list[float], float]]:
    """The capacity charge in plain Python: (year, month) -> highest hours of the three highest days, and their mean."""
    days: dict[tuple[int, int, int], float] = {}
    for hour, wh in finals.items():
        local = datetime.fromtimestamp(hour / 1000, OSLO)
        day = local.year, local.month, local.day
        days[day] = max(days.get(day, 0.0), wh)
    months: dict[tuple[int, int], list[float]] = {}
    for (year, month, _), wh in days.items():
        months.setdefault((year, month), []).append(wh)
    best = {month: sorted(highest, reverse=True)[:3] for month, highest in months.items()}
    return {month: (peaks, sum(peaks) / len(peaks)) for month, peaks in best.items()}
