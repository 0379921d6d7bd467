"""A simulated meter: a household, and the frames that a meter of each maker would send, at their times."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from exporter.simulator import aidon, kaifa, kamstrup
from exporter.simulator.household import Household
from exporter.simulator.sample import Identity, Sample

OSLO: Final = ZoneInfo("Europe/Oslo")
NETS: Final = ("TN", "IT")
PHASES: Final = (1, 3)

_HOUR: Final = 3_600_000  # ms, as all times of the schedule are
_TEN_SECONDS: Final = 10_000
_LONGEST: Final = timedelta(seconds=2.5)  # from the start of a frame to its closing flag
_BYTE_SECONDS: Final = 10 / 2400


class List(Enum):
    """The list that is sent at a moment."""

    FAST = "every 2 or 2.5 s"
    TEN_SECONDS = "every 10 s"
    HOURLY = "hourly"


class Frame(NamedTuple):
    """The bytes of a frame, and when its closing flag comes on a wire with 2400 baud (UTC)."""

    complete: datetime
    data: bytes


class Maker(NamedTuple):
    """What differs between the meters of the makers.

    `tick` is the shortest time between two frames, and `hourly` the time from the full hour to the hourly list, both in
    ms (the makers' interface descriptions; docs/protocol.md). `types` has the meter types for 1 phase, 3 phases TN and
    3 phases IT.
    """

    title: str
    tick: int
    hourly: int
    fast: bool
    types: tuple[bytes, bytes, bytes]
    encode: Callable[[List, Identity, Sample, datetime, ZoneInfo], bytes]


def _kamstrup(due: List, meter: Identity, sample: Sample, moment: datetime, zone: ZoneInfo) -> bytes:
    clock = kamstrup.clock(moment, zone)
    if due is List.HOURLY:
        return kamstrup.hourly(meter, sample, clock)
    return kamstrup.list1(meter, sample, clock)


def _aidon(due: List, meter: Identity, sample: Sample, moment: datetime, zone: ZoneInfo) -> bytes:
    if due is List.HOURLY:
        return aidon.list3(meter, sample, aidon.clock(moment, zone))
    return aidon.list2(meter, sample) if due is List.TEN_SECONDS else aidon.list1(sample)


def _kaifa(due: List, meter: Identity, sample: Sample, moment: datetime, zone: ZoneInfo) -> bytes:
    clock = kaifa.clock(moment, zone)
    if due is List.HOURLY:
        return kaifa.list3(meter, sample, clock)
    return kaifa.list2(meter, sample, clock) if due is List.TEN_SECONDS else kaifa.list1(sample, clock)


MAKERS: Final = {
    "kamstrup": Maker(
        "Kamstrup",
        tick=5_000,
        hourly=5_000,
        fast=False,
        types=(b"6861111BN242101040", b"6841121BN243101040", b"6841121BN243101040"),
        encode=_kamstrup,
    ),
    "aidon": Maker("Aidon", tick=2_500, hourly=10_000, fast=True, types=(b"6515", b"6534", b"6525"), encode=_aidon),
    "kaifa": Maker(
        "Kaifa",
        tick=2_000,
        hourly=10_000,
        fast=True,
        types=(b"MA105H2E", b"MA304H4", b"MA304H3E"),
        encode=_kaifa,
    ),
}


class SimulatedMeter:
    """Frames of one meter, a pure function of its arguments and the time.

    `kind` is a key of MAKERS, `phases` 1 or 3, `net` "TN" or "IT", `zone` the time zone of household and clock. On a
    3-wire IT net I2 is not measured, and MA304H3E does not measure U2 either. Raises ValueError for any other argument.
    """

    def __init__(
        self,
        kind: str,
        phases: int = 3,
        net: str = "TN",
        seed: int = 1,
        meter_id: str | None = None,
        zone: ZoneInfo = OSLO,
        *,
        solar: bool = False,
    ) -> None:
        if kind not in MAKERS or phases not in PHASES or net not in NETS:
            raise ValueError(f"no such meter: {kind}, {phases} phases, {net} net")
        self.maker = MAKERS[kind]
        self.id = meter_id or f"SIMULATED-{kind.upper()}-{seed}"
        self.type = self.maker.types[0 if phases == 1 else 1 + NETS.index(net)]
        self.zone = zone
        self._identity = Identity(self.id.encode(), self.type)
        self._household = Household(seed, phases, net, zone, solar=solar)
        self._three_wire = phases == 3 and net == "IT"

    def overloaded(self, phase: int, moment: datetime) -> SimulatedMeter:
        """The same meter with an overload of a phase (0 to 2): see `Household.overloaded`."""
        other = copy(self)
        other._household = self._household.overloaded(phase, moment)
        return other

    def frames(
        self, start: datetime, end: datetime | None = None, lists: frozenset[List] = frozenset(List)
    ) -> Iterator[Frame]:
        """The frames whose closing flag comes after `start` and not after `end` (UTC; None: without end), in order.

        So the frames of (a, b) and (b, c) are those of (a, c). Only lists in `lists` are included.
        """
        for due, tick in self._ticks(_milliseconds(start - _LONGEST), lists):
            moment = datetime.fromtimestamp(tick // 1000, UTC) + timedelta(milliseconds=tick % 1000)
            if end is not None and moment > end:
                return
            data = self._frame(due, moment)
            complete = moment + timedelta(seconds=_BYTE_SECONDS * len(data))
            if complete > start and (end is None or complete <= end):
                yield Frame(complete, data)

    def backfill(self, now: datetime) -> Iterator[Frame]:
        """The frames before `now` in order, and those after it without end: the caller stops when it wants to go live.

        They are the hourly lists since the start of the last local month, and the 10 s lists since two days before
        `now`.
        """
        detailed = now - timedelta(days=2)
        yield from self.frames(self._last_month(now), detailed, frozenset({List.HOURLY}))
        yield from self.frames(detailed, None, frozenset({List.HOURLY, List.TEN_SECONDS}))

    def _last_month(self, now: datetime) -> datetime:
        first = now.astimezone(self.zone).replace(day=1, hour=0, minute=0, second=0, microsecond=0, fold=0)
        return (first - timedelta(days=1)).replace(day=1).astimezone(UTC)

    def _ticks(self, since: int, lists: frozenset[List]) -> Iterator[tuple[List, int]]:
        maker = self.maker
        only_hourly = lists == {List.HOURLY}
        step, offset = (_HOUR, maker.hourly) if only_hourly else (maker.tick, 0)
        tick = since - (since - offset) % step
        while True:
            due = self._due(tick)
            if due in lists:
                yield due, tick
            tick += step

    def _due(self, tick: int) -> List | None:
        if tick % _HOUR == self.maker.hourly:
            return List.HOURLY
        if tick % _TEN_SECONDS == 0:
            return List.TEN_SECONDS
        return List.FAST if self.maker.fast else None

    def _frame(self, due: List, moment: datetime) -> bytes:
        hour = moment.replace(minute=0, second=0, microsecond=0) if due is List.HOURLY else None
        sample = self._household.sample(moment, registers_at=hour)
        if self._three_wire:
            one, _, three = sample.currents
            volts = sample.voltages
            if self.maker.encode is _kaifa:
                volts = (volts[0], None, volts[2])
            sample = replace(sample, currents=(one, None, three), voltages=volts)
        return self.maker.encode(due, self._identity, sample, moment, self.zone)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
