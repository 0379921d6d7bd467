"""What a reading says of the phases."""

from __future__ import annotations

from exporter.derive import phases as room
from exporter.derive.phases import Phases
from exporter.derive.values import layout_of
from exporter.model.reading import Reading


def current_unbalance(reading: Reading) -> float | None:
    """%, None where it means nothing."""
    return _phases(reading).current_unbalance(_values(reading))


def voltage_unbalance(reading: Reading) -> float | None:
    """%, None where it means nothing."""
    return room.unbalance(_phases(reading).voltages_of(_values(reading)))


def fuse_load(reading: Reading, main_fuse_a: float) -> dict[str, float]:
    """Phase -> %."""
    phases, values = _phases(reading), _values(reading)
    loads = [room.fuse_load(amperes, main_fuse_a) for amperes in phases.currents_of(values)]
    return dict(zip(phases.loaded, loads, strict=True))


def power_factors(reading: Reading) -> dict[str, float]:
    """Phase ("" for the total) -> 0 to 1."""
    phases = _phases(reading)
    found = zip(phases.factored, phases.power_factors(_values(reading)), strict=True)
    return {phase: factor for phase, factor in found if factor is not None}


def _phases(reading: Reading) -> Phases:
    return layout_of(tuple((one.obis, one.unit) for one in reading.measurements)).phases


def _values(reading: Reading) -> list[float]:
    return [one.value for one in reading.measurements]
