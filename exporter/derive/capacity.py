"""The capacity charge: the highest hours of a month, and the step that their mean falls into. Pure functions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Final

from exporter.model.calendar import day_start, month_start, next_month
from exporter.model.reading import Zone

__all__ = ["Capacity", "Peak", "capacity", "capacity_step", "with_running"]

_PEAK_DAYS: Final = 3


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

    An hour that is final already keeps its value.
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
