"""One list's values as the derivations see them, whichever way they were read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from exporter.derive.phases import Phases
from exporter.model.obis import ObisCode, describe
from exporter.model.reading import Placed

__all__ = ["Codes", "Layout", "Values", "layout_of"]

Codes: TypeAlias = tuple[tuple[ObisCode, str], ...]
"""Codes and units of a list's values, in their order."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the values of a list are, by their places in it; the same for all lists that hold the same codes.

    `powers` and `registers` are the places of the total active power (W) and the total active energy register (Wh), by
    direction.
    """

    phases: Phases
    powers: Mapping[str, int]
    registers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Values:
    """A list's values (SI, in the order of its layout), with its meter and times as in `Placed`."""

    meter_id: str
    time: int
    register_time: int
    is_hour: bool
    clock_offset: float | None
    layout: Layout
    values: Sequence[float]

    @classmethod
    def of(cls, placed: Placed) -> Values | None:
        """The values of a placed reading; None where nothing gave it a time."""
        if placed.time is None or placed.register_time is None:
            return None
        measurements = placed.reading.measurements
        return cls(
            placed.meter_id,
            placed.time,
            placed.register_time,
            placed.is_hour,
            placed.clock_offset,
            layout_of(tuple([(one.obis, one.unit) for one in measurements])),
            [one.value for one in measurements],
        )

    def power(self, direction: str) -> float | None:
        """Total active power of a direction, W; None where it was not sent."""
        place = self.layout.powers.get(direction)
        return None if place is None else self.values[place]

    def register(self, direction: str) -> float | None:
        """Total active energy register of a direction, Wh; None where it was not sent."""
        place = self.layout.registers.get(direction)
        return None if place is None else self.values[place]


@lru_cache(maxsize=256)
def layout_of(codes: Codes) -> Layout:
    """The layout of lists with these values."""
    known = [(describe(obis), unit) for obis, unit in codes]
    quantities = [quantity if quantity and quantity.unit == unit else None for quantity, unit in known]
    powers: dict[str, int] = {}
    registers: dict[str, int] = {}
    for place, (quantity, (obis, _)) in enumerate(zip(quantities, codes, strict=True)):
        if quantity is None or quantity.phase or obis.e:
            continue
        if quantity.name == "active_power":
            powers[quantity.direction] = place
        elif quantity.name == "active_energy":
            registers[quantity.direction] = place
    return Layout(Phases(quantities), powers, registers)
