"""Energy of local days and months: sums of final hours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from math import fsum

from exporter.model.calendar import day_start, month_start
from exporter.model.reading import Zone

__all__ = ["EnergySum", "day_sums", "month_sums"]


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
