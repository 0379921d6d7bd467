"""Reading -> line protocol. The schema (design.md, "InfluxDB schema") lives here and nowhere else.

Measurement = quantity; tags meter_id, obis, phase, direction; one float field `value`; precision ms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

from exporter.derive.derived import Capacity, EnergySum, Phases, Threshold, capacity_step
from exporter.model.calendar import weekday_and_hour
from exporter.model.obis import ObisCode, describe
from exporter.model.reading import Measurement, Placed, Zone

OTHER: Final = "other"
"""Measurement of values whose code the catalogue does not know, or whose unit is not the catalogue's."""

SIMULATED: Final = "SIMULATED-"
"""How the id of a simulated meter begins."""

_TAG_ESCAPES: Final = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})
_FIELD_ESCAPES: Final = str.maketrans({'"': '\\"', "\\": "\\\\"})


def lines(placed: Placed) -> Iterator[str]:
    """The lines of the values that the meter sent, without a time stamp where nothing told the time."""
    for measurement in placed.reading.measurements:
        key, is_register = _series(placed.meter_id, measurement.obis, measurement.unit)
        time = placed.register_time if is_register else placed.time
        yield f"{key} value={measurement.value!r}" if time is None else f"{key} value={measurement.value!r} {time}"


def templates(measurements: Iterable[Measurement], meter_id: str) -> Iterator[tuple[str, str]]:
    """What `lines` puts around a meter's id and value: before the id, and between the two.

    `meter_id` is one that stands nowhere else in a line. The id between is as `escaped` gives it.
    """
    return (_template(_series(meter_id, one.obis, one.unit)[0], meter_id) for one in measurements)


def figure_templates(phases: Phases, meter_id: str) -> Iterator[tuple[str, str]]:
    """The same of `phase_lines`, figure by figure."""
    return (_template(series, meter_id) for series in figure_series(phases, meter_id))


def clock_offset_template(meter_id: str) -> tuple[str, str]:
    """The same of `clock_offset_line`."""
    return _template(_derived_series("meter_clock_offset", (("meter_id", meter_id),)), meter_id)


def _template(series: str, meter_id: str) -> tuple[str, str]:
    before, _, behind = series.partition(meter_id)
    return before, f"{behind} value="


def escaped(meter_id: str) -> str:
    """A meter's id as it stands in a line."""
    return meter_id.translate(_TAG_ESCAPES)


def meter_line(meter_id: str, timezone: str, day: int) -> str:
    """That a meter was heard on a local day, whose start is `day`, and in which time zone its days are counted.

    Tag `real` or `simulated` holds the id once more, so that a list of meters can have the real ones first.
    """
    kind = "simulated" if meter_id.startswith(SIMULATED) else "real"
    zone = timezone.translate(_FIELD_ESCAPES)
    return f'meter,{_tag("meter_id", meter_id)},{_tag(kind, meter_id)} value=1.0,timezone="{zone}" {day}'


def meter_tag(meter_id: str) -> str:
    """What stands in every line of a meter, and hardly in any other."""
    return f",{_tag('meter_id', meter_id)}"


def is_of(meter_id: str) -> Callable[[str], bool]:
    """Tells whether a line is of this meter: by its tag, not by what a text in it says."""
    # Measurement and tags end with the first blank that has no backslash before it.
    series = re.compile(rf"(?:[^\\ ]|\\.)*?{re.escape(meter_tag(meter_id))}(?=[ ,])")
    return lambda line: series.match(line) is not None


def clock_offset_lines(placed: Placed) -> Iterator[str]:
    """How far the meter's clock is from ours, s, for each list that has a clock and was timed by us."""
    if placed.clock_offset is not None and placed.time is not None:
        yield clock_offset_line(placed.meter_id, placed.clock_offset, placed.time)


def clock_offset_line(meter_id: str, offset: float, ms: int) -> str:
    """How far a meter's clock is from ours, s."""
    return f"meter_clock_offset,{_tag('meter_id', meter_id)} value={offset!r} {ms}"


def reading_age_line(meter_id: str, age_s: float, ms: int) -> str:
    """Age of a meter's last reading, s."""
    return f"reading_age,{_tag('meter_id', meter_id)} value={age_s!r} {ms}"


def exporter_line(instance: str, fields: Mapping[str, int | float], ms: int) -> str:
    """The exporter's own counters; every field a float, so that no later version changes a field's type."""
    text = ",".join(f"{name}={float(value)!r}" for name, value in sorted(fields.items()))
    return f"exporter,{_tag('instance', instance)} {text} {ms}"


def event_line(instance: str, kind: str, text: str, ms: int) -> str:
    """Something an owner may want to see as a mark on a graph."""
    return f'event,{_tag("instance", instance)},{_tag("kind", kind)} text="{_one_line(text)}" {ms}'


@lru_cache(maxsize=4096)
def _series(meter_id: str, obis: ObisCode, unit: str) -> tuple[str, bool]:
    quantity = describe(obis)
    if quantity is None or quantity.unit != unit:
        tags = [_tag("meter_id", meter_id), _tag("obis", str(obis))] + ([_tag("unit", unit)] if unit else [])
        return ",".join([OTHER, *tags]), False
    tags = [_tag("direction", quantity.direction)] if quantity.direction else []
    tags += [_tag("meter_id", meter_id), _tag("obis", str(obis))]
    tags += [_tag("phase", quantity.phase)] if quantity.phase else []
    return ",".join([quantity.name, *tags]), quantity.is_register


def _tag(name: str, value: str) -> str:
    return f"{name}={value.translate(_TAG_ESCAPES)}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).translate(_FIELD_ESCAPES)


# Derived points: meter_id and no obis (derived.py says how each figure is worked out)

REPLACED_MEASUREMENTS: Final = frozenset({"hour_energy", "day_energy", "month_energy", "capacity", "capacity_step"})
"""Measurements whose points are written again with newer values: the newest must be the last to arrive.

A final hour is one too: a capture that is imported later can have a register that was heard better.
"""
_HOUR_MS: Final = 3_600_000
ABOVE_STEPS: Final = -1.0
"""Value of capacity_step above the last step: the bound is infinite, and what stood there must be overwritten."""


def is_replaced(line: str) -> bool:
    """Whether a line is a version of a point that others follow: such a point is stamped at an hour's start."""
    if line.partition(",")[0] not in REPLACED_MEASUREMENTS:
        return False
    stamp = line.rpartition(" ")[2]
    return stamp.isdecimal() and int(stamp) % _HOUR_MS == 0


def figure_lines(placed: Placed, main_fuse_a: float) -> Iterator[str]:
    """What a reading tells of the phases: unbalance, fuse load, power factor. Nothing where nothing told the time."""
    if placed.time is not None:
        measurements = placed.reading.measurements
        phases = Phases.of(tuple((one.obis, one.unit) for one in measurements))
        values = [one.value for one in measurements]
        yield from phase_lines(phases, values, placed.meter_id, main_fuse_a, placed.time)


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
    return tuple(_derived_series(measurement, (("meter_id", meter_id), tag)) for measurement, tag in tags)


def running_hour_line(meter_id: str, direction: str, kind: str, wh: float, ms: int) -> str:
    """Energy of the running hour, Wh; `kind` is so_far or projected, `ms` is now."""
    tags = ("direction", direction), ("kind", kind), ("meter_id", meter_id)
    return _derived("hour_energy", ms, wh, *tags)


def final_hour_line(meter_id: str, direction: str, wh: float, hour: int, zone: Zone) -> str:
    """Energy of an hour between two registers, Wh; `hour` is its start."""
    weekday, of_day = weekday_and_hour(hour, zone)
    tags = ("direction", direction), ("hour", f"{of_day:02}"), ("kind", "final"), ("meter_id", meter_id)
    return _derived("hour_energy", hour, wh, *tags, ("weekday", str(weekday)))


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
        yield _derived("capacity", found.month, peak.wh, *tags, hour=peak.hour)
    yield _derived("capacity", found.month, found.mean, ("kind", "mean"), ("meter_id", meter_id))
    step = capacity_step(found.mean, steps_w)
    yield _derived("capacity_step", found.month, ABOVE_STEPS if step is None else step, ("meter_id", meter_id))


def projected_capacity_line(meter_id: str, wh: float, ms: int) -> str:
    """The mean of the peaks, Wh, that the running hour would make; `ms` is now."""
    return _derived("capacity", ms, wh, ("kind", "projected"), ("meter_id", meter_id))


def threshold_line(threshold: Threshold, ms: int, meter_id: str = "") -> str:
    """A limit; without a meter it is the exporter's own."""
    tags = ("bound", threshold.bound), ("meter_id", meter_id), ("quantity", threshold.quantity)
    return _derived("threshold", ms, threshold.value, *tags)


def _sum_line(measurement: str, meter_id: str, direction: str, total: EnergySum, ms: int) -> str:
    return _derived(measurement, ms, total.wh, ("direction", direction), ("meter_id", meter_id), hours=total.hours)


def _derived(measurement: str, ms: int, value: float, *tags: tuple[str, str], **more: float) -> str:
    """A line whose fields are floats, every one, so that no later version changes a field's type."""
    fields = "".join(f",{name}={float(number)!r}" for name, number in more.items())
    return f"{_derived_series(measurement, tags)} value={float(value)!r}{fields} {ms}"


@lru_cache(maxsize=4096)
def _derived_series(measurement: str, tags: tuple[tuple[str, str], ...]) -> str:
    return ",".join([measurement, *(_tag(name, value) for name, value in tags if value)])
