"""The simulated meter as a source: `sim:kamstrup?phases=3&net=TN&seed=1&speed=1&backfill=1&overload=L2`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

from exporter.model.obis import PHASES
from exporter.simulator.meter import MAKERS, NETS, OSLO, SimulatedMeter
from exporter.sources.contract import Chunk, Happened, Report, SourceError, SourceEvent

DEFAULT_MAKER: Final = "kamstrup"

_STEP: Final = timedelta(seconds=60)  # a clock that is this far from the next frame was set, or the computer slept
_MAX_SPEED: Final = 100_000
_MAX_SEED: Final = (1 << 32) - 1
_ALLOWED: Final = {
    "phases": "1 or 3",
    "net": " or ".join(NETS),
    "seed": f"a whole number from 0 to {_MAX_SEED}",
    "speed": f"a number above 0, up to {_MAX_SPEED}",
    "backfill": "0 or 1",
    "solar": "0 or 1",
    "overload": "L1, L2 or L3",
}


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Pace:
    """The clock (UTC), a monotonic clock in seconds, and how to wait; a test uses its own.

    `wait` returns True if `stop` was set before the seconds were over.
    """

    clock: Callable[[], datetime] = _now
    monotonic: Callable[[], float] = time.monotonic
    wait: Callable[[threading.Event, float], bool] = threading.Event.wait


class SimSource:
    """A simulated meter at the pace of the clock.

    With `speed` N, `received` begins now and runs N times as fast as the clock. With `backfill` the past comes first,
    without waiting: the hourly lists of this local month and the last, and the 10 s lists of two days. The source ends
    at `until`.

    With `overload` (a phase, 0 to 2) the house takes about 70 A more on that phase for the first five live minutes,
    once for each source object: alerts can be tried with it. The registers include it while the process runs. After a
    restart they do not, since they depend only on seed and time.
    """

    live = True

    def __init__(
        self,
        name: str,
        meter: SimulatedMeter,
        *,
        speed: float = 1,
        backfill: bool = False,
        overload: int | None = None,
        until: datetime | None = None,
        pace: Pace | None = None,
    ) -> None:
        self.name, self.meter, self.speed, self.backfill = name, meter, speed, backfill
        self._overload = overload
        self._overload_begun = False
        self._until = until
        self._pace = pace or Pace()
        self._began = self._pace.clock(), self._pace.monotonic()

    @classmethod
    def from_url(
        cls, url: str, zone: ZoneInfo = OSLO, *, until: datetime | None = None, pace: Pace | None = None
    ) -> SimSource:
        """Read `sim:` or `sim:MAKER`, and the parameters of `_ALLOWED` after a `?`.

        `zone` is the time zone of the household and of the meter's clock. Raises SourceError that names what is wrong
        and what is allowed.
        """
        maker, options = _parse(url)
        meter = SimulatedMeter(
            maker,
            phases=int(_choice(options, "phases", ("3", "1"))),
            net=_choice(options, "net", NETS),
            seed=_seed(options),
            zone=zone,
            solar=_choice(options, "solar", ("0", "1")) == "1",
        )
        backfill = _choice(options, "backfill", ("0", "1")) == "1"
        overload = _overload(options)
        return cls(maker, meter, speed=_speed(options), backfill=backfill, overload=overload, until=until, pace=pace)

    def chunks(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        """Yield one frame per chunk until `stop` is set; `received` is when its closing flag comes."""
        self._began = self._pace.clock(), self._pace.monotonic()
        since = self._now()
        report(SourceEvent(Happened.OPENED, self._description()))
        for moment, data in self.meter.backfill(since) if self.backfill else ():
            # Frames that became due during the backfill are part of it, so there is no gap before the present.
            if stop.is_set() or moment > self._now() or self._ended(moment):
                break
            since = moment
            yield Chunk(data, moment)
        if self._overload is not None and not self._overload_begun:
            self._overload_begun = True
            self.meter = self.meter.overloaded(self._overload, self._now())
        while not stop.is_set() and (yield from self._paced(since, stop)):
            since = self._now()

    def _paced(self, since: datetime, stop: threading.Event) -> Generator[Chunk, None, bool]:
        """Yield the frames after `since`, each when it is due.

        Returns True if the clock was set meanwhile: the frames after its new time are to follow.
        """
        for moment, data in self.meter.frames(since, self._until):
            delay = moment - self._now()
            if self.speed == 1 and abs(delay) > _STEP:
                return True
            if self._pace.wait(stop, max(delay.total_seconds() / self.speed, 0)):
                return False
            yield Chunk(data, moment)
        return False

    def _ended(self, moment: datetime) -> bool:
        return self._until is not None and moment > self._until

    def _now(self) -> datetime:
        """Simulated time: at speed 1 the time of the clock, also after it was set."""
        if self.speed == 1:
            return self._pace.clock()
        clock, monotonic = self._began
        return clock + timedelta(seconds=(self._pace.monotonic() - monotonic) * self.speed)

    def _description(self) -> str:
        text = f"simulated {self.meter.maker.title} meter {self.meter.id}"
        if self.speed != 1:
            text += f", {self.speed:g} times as fast as the clock"
        if self._overload is not None:
            text += f", with an overload of {PHASES[self._overload]} in its first five minutes"
        return text


def _parse(url: str) -> tuple[str, Mapping[str, str]]:
    scheme, colon, rest = url.partition(":")
    if scheme.lower() != "sim" or not colon:
        raise SourceError(f"{url!r} is not a simulated meter: write sim:{DEFAULT_MAKER}")
    path, _, query = rest.partition("?")
    maker = path.lower() or DEFAULT_MAKER
    if maker not in MAKERS:
        raise SourceError(f"there is no simulated meter {path!r}: write sim:{_listed(MAKERS, 'or sim:', ', sim:')}")
    pairs = parse_qsl(query, keep_blank_values=True)
    for name, _ in pairs:
        if name not in _ALLOWED:
            raise SourceError(f"sim: has no parameter {name!r}: it has {_listed(_ALLOWED, 'and ')}")
    options = dict(pairs)
    if len(options) < len(pairs):
        raise SourceError(f"{url!r} has a parameter twice: write each once")
    return maker, options


def _listed(names: Iterable[str], before_last: str, between: str = ", ") -> str:
    *most, last = names
    return f"{between.join(most)} {before_last}{last}"


def _wrong(name: str, value: str) -> SourceError:
    return SourceError(f"sim: {name}={value} is not possible: {name} is {_ALLOWED[name]}")


def _choice(options: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    """The value of the parameter in capital letters; the first of `allowed` if it was not given."""
    value = options.get(name, allowed[0])
    if value.upper() not in allowed:
        raise _wrong(name, value)
    return value.upper()


def _overload(options: Mapping[str, str]) -> int | None:
    """The number of the phase, 0 to 2; None without an overload."""
    value = options.get("overload")
    if value is None:
        return None
    if value.upper() not in PHASES:
        raise _wrong("overload", value)
    phase = PHASES.index(value.upper())
    if phase and options.get("phases") == "1":
        raise SourceError(f"sim: overload={value} is not possible with phases=1: that meter has only L1")
    return phase


def _speed(options: Mapping[str, str]) -> float:
    value = options.get("speed", "1")
    try:
        speed = float(value)
    except ValueError:
        raise _wrong("speed", value) from None
    if not 0 < speed <= _MAX_SPEED:  # also refuses NaN
        raise _wrong("speed", value)
    return speed


def _seed(options: Mapping[str, str]) -> int:
    value = options.get("seed", "1")
    if not (value.isascii() and value.isdigit() and int(value[:20]) <= _MAX_SEED):
        raise _wrong("seed", value)
    return int(value)
