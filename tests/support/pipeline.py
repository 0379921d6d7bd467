"""Parts of the pipeline as tests use them: bytes to readings, readings to placed readings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from exporter.meters import OSLO
from exporter.model.calendar import EPOCH, from_ms, to_ms
from exporter.model.reading import Placed, Reading, Zone
from exporter.pipeline import placing
from exporter.pipeline.arrival import Arrival, arrival_of
from exporter.pipeline.decoder import Outcome
from exporter.pipeline.host_clock import HostClock, HostTime
from exporter.pipeline.pipeline import NoState, Pipeline, Purpose
from exporter.sources.contract import Chunk


@dataclass(frozen=True)
class Naming:
    """The few settings that reading needs."""

    zone: Zone = OSLO
    meter_id: str | None = None


@dataclass
class Memory:
    """A state in a dictionary."""

    kept: dict[str, str] = field(default_factory=dict)

    def get_state(self, key: str) -> str | None:
        return self.kept.get(key)

    def states(self, prefix: str) -> Mapping[str, str]:
        return {key: text for key, text in self.kept.items() if key.startswith(prefix)}


class Reader:
    """Bytes -> outcomes, by the product's pipeline."""

    def __init__(self, zone: Zone = OSLO) -> None:
        self._pipeline = Pipeline("test", Naming(zone), NoState(), HostClock(), purpose=Purpose.READINGS)

    @property
    def size(self) -> int:
        return self._pipeline.counts.size

    def feed(self, data: bytes, received: datetime | None = None, byte_seconds: float = 0.0) -> list[Outcome]:
        return self._pipeline.feed((Chunk(data, received, byte_seconds),)).outcomes

    def end(self) -> list[Outcome]:
        return self._pipeline.interrupted().outcomes


class Placer:
    """Readings -> placed readings, by the product's Placer."""

    def __init__(
        self,
        stream: str,
        *,
        zone: Zone = OSLO,
        fallback: str | None = None,
        state: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.placer = placing.Placer(stream, fallback=fallback, state=state, now=now)
        self._zone = zone
        self.new_state = self.placer.new_state
        self.forget = self.placer.forget

    @property
    def left_out(self) -> int:
        return self.placer.left_out

    @property
    def expected(self) -> tuple[str, bool]:
        return self.placer.expected

    @property
    def waits(self) -> bool:
        return self.placer.waits

    def place(self, reading: Reading) -> list[Placed]:
        return _placed(self.placer.place(arrival_of(reading, self._zone)))

    def give_up(self, *, all_heard: bool = True) -> list[Placed]:
        return _placed(self.placer.give_up(all_heard=all_heard))

    def clock_of(self, reading: Reading) -> datetime | None:
        ms = self.placer.clock_of(arrival_of(reading, self._zone))
        return None if ms is None else from_ms(ms)


class Corrected:
    """Readings with `received` as HostTime corrects it."""

    def __init__(self, *, kernel: Callable[[], bool | None], monotonic: Callable[[], float]) -> None:
        self._host = HostTime(HostClock(monotonic=monotonic, synchronised=kernel))

    @property
    def trusted(self) -> bool:
        return self._host.trusted

    def correct(self, reading: Reading, clock: datetime | None) -> Reading:
        one = arrival_of(reading, OSLO)
        self._host.correct(one, None if clock is None else to_ms(clock))
        moment = None if one.received is None else EPOCH + timedelta(microseconds=one.received)
        return replace(reading, received=moment)


def _placed(arrivals: Iterable[Arrival]) -> list[Placed]:
    found = []
    for one in arrivals:
        assert isinstance(one.content, Reading)
        found.append(Placed(one.content, one.meter_id, one.time, one.register_time, one.is_hour, one.clock_offset))
    return found
