"""Phase balance, fuse load, power factor, limits, sums and the capacity charge: pure functions of readings and hours.

No clock and no file is asked here. Times are whole milliseconds since 1970 in UTC; an hour is named by its start and
belongs to the local day and month in which it starts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from math import fsum, hypot
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from exporter.model.calendar import HOUR_MS, day_start, month_start, next_month
from exporter.model.obis import ObisCode, Quantity, describe
from exporter.model.reading import Zone

if TYPE_CHECKING:
    from exporter.config import Limits

__all__ = [
    "Capacity",
    "EnergySum",
    "Peak",
    "Phases",
    "Threshold",
    "capacity",
    "capacity_step",
    "day_sums",
    "exporter_thresholds",
    "fuse_load",
    "month_sums",
    "projected",
    "thresholds",
    "unbalance",
    "with_running",
]

_FEWEST_AMPERES: Final = 1.0
"""Below this mean the currents are a router and a clock radio, and their unbalance means nothing."""
_MOST_UNKNOWN_MS: Final = 5 * 60_000
"""With more of the hour than this unknown, a projection would be a guess."""
_PEAK_DAYS: Final = 3


# Phases


def unbalance(values: Iterable[float]) -> float | None:
    """Largest deviation from the mean over the mean, in % (NEMA MG 1, and IEC by custom).

    0 to 200 for three phases, 0 to 100 for two. None for fewer than two values, or where their mean is 0.
    """
    given = list(values)
    return _unbalance(given, fsum(given))


def _unbalance(given: Sequence[float], total: float) -> float | None:
    count = len(given)
    if count < 2:
        return None
    mean = total / count
    if mean == 0:
        return None
    above, below = max(given) - mean, mean - min(given)
    return 100 * (above if above > below else below) / abs(mean)


def fuse_load(amperes: float, main_fuse_a: float) -> float:
    """How much of the main fuse a current takes, %. A fuse trips per phase: the worst counts."""
    return 100 * abs(amperes) / main_fuse_a


class Phases:
    """Which of a list's values tell of the phases, and what they tell; `values` are the list's, in its order.

    Made once for all lists that hold the same: `of` a list's codes and units.
    """

    def __init__(self, quantities: Sequence[Quantity | None]) -> None:
        currents: dict[str, int] = {}
        voltages: list[int] = []
        powers: dict[str, dict[str, list[tuple[int, float]]]] = {"active_power": {}, "reactive_power": {}}
        sent = set()
        for place, quantity in enumerate(quantities):
            if quantity is None:
                continue
            if quantity.name == "current":
                currents[quantity.phase] = place
            elif quantity.name == "voltage":
                voltages.append(place)
            elif quantity.name == "power_factor":
                sent.add(quantity.phase)
            elif quantity.name in powers:
                sign = -1.0 if quantity.direction == "export" else 1.0
                powers[quantity.name].setdefault(quantity.phase, []).append((place, sign))
        active, reactive = powers.values()
        self.currents_of = _picker(tuple(currents.values()))
        """Of a list's values, or of its numbers as sent, the phases' currents."""
        self.voltages_of = _picker(tuple(voltages))
        """The same of voltages."""
        self.loaded = tuple(currents)
        """The phases of what `currents_of` gives, in its order."""
        self.has_current_unbalance, self.has_voltage_unbalance = len(currents) > 1, len(voltages) > 1
        self.factored = tuple(sorted(active.keys() & reactive.keys() - sent))
        """The phases ("" for the total) of `power_factors`, in its order."""
        self._nets = [(active[phase], reactive[phase]) for phase in self.factored]

    @staticmethod
    def of(codes: tuple[tuple[ObisCode, str], ...]) -> Phases:
        """Codes and units of a list's values."""
        return _phases(codes)

    def figures(self, values: Sequence[float], main_fuse_a: float) -> list[float | None]:
        """All that they tell, None for what means nothing now.

        In order: `current_unbalance` and the voltages' `unbalance`, where they have them; `fuse_load` of each phase;
        `power_factors`.
        """
        found: list[float | None] = []
        if self.has_current_unbalance:
            found.append(self.current_unbalance(values))
        if self.has_voltage_unbalance:
            found.append(unbalance(self.voltages_of(values)))
        found += [fuse_load(amperes, main_fuse_a) for amperes in self.currents_of(values)]
        return found + self.power_factors(values)

    def current_unbalance(self, values: Sequence[float]) -> float | None:
        """Unbalance of the measured phases' currents, %; None for fewer than two, or with a mean below 1 A.

        A phase that the meter does not measure (L2 on a 3-wire IT net) is left out, never worked out from the others.
        """
        currents = [*map(abs, self.currents_of(values))]
        total = fsum(currents)
        return None if total < _FEWEST_AMPERES * len(currents) else _unbalance(currents, total)

    def power_factors(self, values: Sequence[float]) -> list[float | None]:
        """|P| / sqrt(P^2 + Q^2), of import less export, of each phase: 0 to 1.

        Only where both P and Q are sent and the power factor itself is not; None where both are 0. P is never made up
        from voltage times current, which would be S.
        """
        factors: list[float | None] = []
        for active, reactive in self._nets:
            real = imaginary = 0.0
            for place, sign in active:
                real += values[place] * sign
            for place, sign in reactive:
                imaginary += values[place] * sign
            apparent = hypot(real, imaginary)
            factors.append(abs(real) / apparent if apparent > 0 else None)
        return factors


def _picker(places: tuple[int, ...]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """`itemgetter`, and a tuple for no place and for one, too."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple(values[place] for place in places)


@lru_cache(maxsize=256)
def _phases(codes: tuple[tuple[ObisCode, str], ...]) -> Phases:
    known = [(describe(obis), unit) for obis, unit in codes]
    return Phases([quantity if quantity and quantity.unit == unit else None for quantity, unit in known])


# Limits


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit that alerts and threshold lines read: `quantity` is a measurement, `bound` is min, max, warn or from."""

    quantity: str
    bound: str
    value: float


def thresholds(limits: Limits) -> tuple[Threshold, ...]:
    """One meter's limits. `current` is `fuse_load` in A, for the lines in a graph."""
    return (
        Threshold("fuse_load", "max", 100.0),
        Threshold("fuse_load", "warn", limits.fuse_warn_pct),
        Threshold("current", "max", limits.main_fuse_a),
        Threshold("current", "warn", limits.main_fuse_a * limits.fuse_warn_pct / 100),
        Threshold("active_power", "max", limits.limit_power_w),
        Threshold("hour_energy", "max", limits.limit_hour_wh),
        Threshold("phase_unbalance", "max", limits.limit_unbalance_pct),
        Threshold("phase_unbalance", "from", limits.unbalance_from_pct),
        Threshold("voltage", "min", limits.voltage_min),
        Threshold("voltage", "max", limits.voltage_max),
        Threshold("reading_age", "max", limits.limit_silence_s),
    )


def exporter_thresholds(limit_backlog_s: float) -> tuple[Threshold, ...]:
    """The exporter's own limits, which belong to no meter."""
    return (Threshold("backlog_age", "max", limit_backlog_s),)


# Hours


@dataclass(frozen=True, slots=True)
class EnergySum:
    """Energy of a day or a month: `wh` is the sum of `hours` final hours."""

    wh: float
    hours: int


def day_sums(finals: Mapping[int, float], zone: Zone) -> dict[int, EnergySum]:
    """Final hours (start -> Wh) -> sum of each local day that has any: its start -> sum, rising."""
    return _sums(finals, lambda hour: day_start(hour, zone))


def month_sums(finals: Mapping[int, float], zone: Zone) -> dict[int, EnergySum]:
    """Final hours (start -> Wh) -> sum of each local month that has any: its start -> sum, rising."""
    return _sums(finals, lambda hour: month_start(hour, zone))


def _sums(finals: Mapping[int, float], start: Callable[[int], int]) -> dict[int, EnergySum]:
    sums = {}
    for begun, hours in groupby(sorted(finals), start):
        energies = [finals[hour] for hour in hours]
        sums[begun] = EnergySum(fsum(energies), len(energies))
    return sums


def projected(so_far_wh: float, power_w: float, ms_left: int, unknown_ms: int = 0) -> float | None:
    """What the running hour comes to if the power stays, Wh; `so_far_wh` itself when no time is left.

    None when more than 5 minutes of the hour so far are unknown.
    """
    if unknown_ms > _MOST_UNKNOWN_MS:
        return None
    return so_far_wh + power_w * max(ms_left, 0) / HOUR_MS


# The capacity charge


@dataclass(frozen=True, slots=True)
class Peak:
    """A day's highest hour: its start in ms, and its import in Wh."""

    hour: int
    wh: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """A local month's capacity charge: the one to three highest days' peaks, highest first, and their mean in Wh."""

    month: int
    peaks: tuple[Peak, ...]
    mean: float


def capacity(finals: Mapping[int, float], month: int, zone: Zone) -> Capacity | None:
    """The peaks of the local month that `month` lies in, from final hours of import (start -> Wh); None without any.

    Norway's rule since July 2022: each local day's highest hour, the three highest of those, their mean. Of equal
    hours, and of equal days, the earlier counts. With fewer than three days it is the mean of these.
    """
    start, end = month_start(month, zone), next_month(month, zone)
    highest: dict[int, Peak] = {}
    for hour in sorted(hour for hour in finals if start <= hour < end):
        day = day_start(hour, zone)
        if day not in highest or finals[hour] > highest[day].wh:
            highest[day] = Peak(hour, finals[hour])
    if not highest:
        return None
    peaks = tuple(sorted(highest.values(), key=lambda peak: (-peak.wh, peak.hour))[:_PEAK_DAYS])
    return Capacity(start, peaks, fsum(peak.wh for peak in peaks) / len(peaks))


def with_running(finals: Mapping[int, float], hour: int, projected_wh: float, zone: Zone) -> float:
    """The mean, Wh, that `capacity` of this month would give if the running hour came to `projected_wh`.

    An hour that is final already stands as it is.
    """
    found = capacity({hour: projected_wh, **finals}, hour, zone)
    assert found is not None, "the running hour is in its own month"
    return found.mean


def capacity_step(mean_wh: float, steps_w: Sequence[float]) -> float | None:
    """Upper bound, W, of the step that a mean hour falls into; None above the last. `steps_w` are the bounds, rising.

    A mean of exactly 5000 Wh is in 5-10 kW, not in 2-5: of 80 Norwegian tariffs that the project fri-nettleie
    collected, 71 count the lower bound in (written 2-5 or 2-4.99; in NVE's list a step ends at 74.99), 8, most of them
    of small companies, do not (2.01-5).
    """
    place = bisect_right(steps_w, mean_wh)
    return steps_w[place] if place < len(steps_w) else None
