"""Points as the schema has them (docs/schema.md): the values that a meter sent, and what is derived from them.

Measurement = quantity; tags meter_id, obis, phase, direction; one float field `value`; precision ms. Derived points
have a meter_id and no obis; the modules beside this one say how each figure is calculated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from exporter.derive.capacity import Capacity, capacity_step
from exporter.derive.limits import Threshold
from exporter.derive.phases import Phases
from exporter.derive.sums import EnergySum
from exporter.model.calendar import weekday_and_hour
from exporter.model.point import line, measured_series, series, tag, text_field
from exporter.model.reading import Measurement, Placed, Zone

SIMULATED: Final = "SIMULATED-"
"""How the id of a simulated meter begins."""


def lines(placed: Placed) -> Iterator[str]:
    """The lines of the values that the meter sent, without a time stamp where no time is known."""
    for measurement in placed.reading.measurements:
        key, is_register = measured_series(placed.meter_id, measurement.obis, measurement.unit)
        time = placed.register_time if is_register else placed.time
        yield f"{key} value={measurement.value!r}" if time is None else f"{key} value={measurement.value!r} {time}"


def templates(measurements: Iterable[Measurement], meter_id: str) -> Iterator[tuple[str, str]]:
    """What `lines` puts around a meter's id and value: before the id, and between the two.

    `meter_id` must be a text that occurs nowhere else in a line. The id between is as `escaped` gives it.
    """
    return (_template(measured_series(meter_id, one.obis, one.unit)[0], meter_id) for one in measurements)


def figure_templates(phases: Phases, meter_id: str) -> Iterator[tuple[str, str]]:
    """The same of `phase_lines`, figure by figure."""
    return (_template(series, meter_id) for series in figure_series(phases, meter_id))


def clock_offset_template(meter_id: str) -> tuple[str, str]:
    """The same of `clock_offset_line`."""
    return _template(series("meter_clock_offset", (("meter_id", meter_id),)), meter_id)


def _template(series: str, meter_id: str) -> tuple[str, str]:
    before, _, after = series.partition(meter_id)
    return before, f"{after} value="


def meter_line(meter_id: str, timezone: str, day: int) -> str:
    """That a meter sent something on a local day that starts at `day` (ms), and the time zone of its days.

    Tag `real` or `simulated` holds the id once more, so that a list of meters can have the real ones first.
    """
    kind = "simulated" if meter_id.startswith(SIMULATED) else "real"
    return f"meter,{tag('meter_id', meter_id)},{tag(kind, meter_id)} value=1.0,timezone={text_field(timezone)} {day}"


def clock_offset_line(meter_id: str, offset: float, ms: int) -> str:
    """How far a meter's clock is from ours, s."""
    return f"meter_clock_offset,{tag('meter_id', meter_id)} value={offset!r} {ms}"


ABOVE_STEPS: Final = -1.0
"""Value of capacity_step above the last step: the bound is infinite, and what stood there must be overwritten."""


def phase_lines(phases: Phases, values: Sequence[float], meter_id: str, main_fuse_a: float, ms: int) -> list[str]:
    """The same of a list's values."""
    figures = zip(figure_series(phases, meter_id), phases.figures(values, main_fuse_a), strict=True)
    return [f"{series} value={figure!r} {ms}" for series, figure in figures if figure is not None]


@lru_cache(maxsize=4096)
def figure_series(phases: Phases, meter_id: str) -> tuple[str, ...]:
    """The series of `Phases.figures`, in its order."""
    unbalances = ("current", phases.has_current_unbalance), ("voltage", phases.has_voltage_unbalance)
    tags = [("phase_unbalance", ("quantity", quantity)) for quantity, has_it in unbalances if has_it]
    tags += [("fuse_load", ("phase", phase)) for phase in phases.loaded]
    tags += [("power_factor", ("phase", phase)) for phase in phases.factored]
    return tuple(series(measurement, (("meter_id", meter_id), tag)) for measurement, tag in tags)


def running_hour_line(meter_id: str, direction: str, kind: str, wh: float, ms: int) -> str:
    """Energy of the running hour, Wh; `kind` is so_far or projected, `ms` is now."""
    tags = ("direction", direction), ("kind", kind), ("meter_id", meter_id)
    return line("hour_energy", ms, wh, *tags)


def final_hour_line(meter_id: str, direction: str, wh: float, hour: int, zone: Zone) -> str:
    """Energy of an hour between two registers, Wh; `hour` is its start."""
    weekday, of_day = weekday_and_hour(hour, zone)
    tags = ("direction", direction), ("hour", f"{of_day:02}"), ("kind", "final"), ("meter_id", meter_id)
    return line("hour_energy", hour, wh, *tags, ("weekday", str(weekday)))


def day_energy_line(meter_id: str, direction: str, total: EnergySum, day: int) -> str:
    """Energy of a local day, Wh, and of how many hours it is the sum; `day` is its start."""
    return _sum_line("day_energy", meter_id, direction, total, day)


def month_energy_line(meter_id: str, direction: str, total: EnergySum, month: int) -> str:
    """Energy of a local month, Wh, and of how many hours it is the sum; `month` is its start."""
    return _sum_line("month_energy", meter_id, direction, total, month)


def capacity_lines(meter_id: str, found: Capacity, steps_w: Sequence[float]) -> Iterator[str]:
    """A local month's peaks and their mean, Wh, and the step that this falls into, W; all at the month's start."""
    for place, peak in enumerate(found.peaks, 1):
        tags = ("kind", f"peak{place}"), ("meter_id", meter_id)
        yield line("capacity", found.month, peak.wh, *tags, hour=peak.hour)
    yield line("capacity", found.month, found.mean, ("kind", "mean"), ("meter_id", meter_id))
    step = capacity_step(found.mean, steps_w)
    yield line("capacity_step", found.month, ABOVE_STEPS if step is None else step, ("meter_id", meter_id))


def projected_capacity_line(meter_id: str, wh: float, ms: int) -> str:
    """The mean of the peaks, Wh, that the running hour would make; `ms` is now."""
    return line("capacity", ms, wh, ("kind", "projected"), ("meter_id", meter_id))


def threshold_line(threshold: Threshold, ms: int, meter_id: str = "") -> str:
    """A limit; without a meter it is the exporter's own."""
    tags = ("bound", threshold.bound), ("meter_id", meter_id), ("quantity", threshold.quantity)
    return line("threshold", ms, threshold.value, *tags)


def _sum_line(measurement: str, meter_id: str, direction: str, total: EnergySum, ms: int) -> str:
    return line(measurement, ms, total.wh, ("direction", direction), ("meter_id", meter_id), hours=total.hours)
