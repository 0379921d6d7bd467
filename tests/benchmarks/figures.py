"""Figures of a benchmark: measured, shown in a table, written as JSON, and their ratios compared with the last ones."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

FELL: Final = 0.25
"""A ratio that fell by a greater share than this is reported. The noise of a ratio is smaller."""

_NAME, _VALUE, _UNIT, _AIM = 64, 11, 12, 10
_CALIBRATION_ROUNDS: Final = 2000


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: `quick` for a CI step, `full` for the largest sizes; `folder` is for files."""

    quick: bool
    full: bool
    folder: Path

    def of(self, quick: int, usual: int, full: int | None = None) -> int:
        """The value for this effort."""
        if self.quick:
            return quick
        return full if self.full and full is not None else usual


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table. `value` None: it could not be measured, and `note` says why.

    `aim` is the least value, or with `at_most` the largest. `compared` marks a ratio of two things that were measured
    in the same run, the larger the better: CI looks whether it fell.
    """

    name: str
    value: float | None
    unit: str
    aim: float | None = None
    at_most: bool = False
    note: str = ""
    compared: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the aim is reached; None without one, or without a value."""
        if self.aim is None or self.value is None:
            return None
        return self.value <= self.aim if self.at_most else self.value >= self.aim


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of several repetitions of the same work."""

    best: float
    median: float


def together(
    *works: Callable[[], object],
    repetitions: int = 3,
    least_s: float = 0.0,
    patience_s: float = 30.0,
    clock: Callable[[], float] = time.process_time,
) -> list[Times]:
    """Do each in turn, again and again, so that a busy moment of the machine hits all of them.

    At least `repetitions` times, and until the first has taken `least_s` seconds in sum; not longer than `patience_s`
    for all together. Measures processor time by default. The best of many short times is what a busy machine disturbs
    least.
    """
    taken: list[list[float]] = [[] for _ in works]
    with own_garbage():
        while not taken[0] or (
            sum(map(sum, taken)) < patience_s and (len(taken[0]) < repetitions or sum(taken[0]) < least_s)
        ):
            for work, seconds in zip(works, taken, strict=True):
                gc.collect()
                began = clock()
                work()
                seconds.append(clock() - began)
    return [Times(min(seconds), statistics.median(seconds)) for seconds in taken]


@contextmanager
def own_garbage() -> Iterator[None]:
    """The garbage collector ignores all that exists already: it belongs to the benchmark, not to what is measured."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def calibrate() -> int:
    """A fixed piece of plain Python, of the kind that decoding is made of: its time says how fast this machine is."""
    data, form, seen, length = bytes(range(256)), struct.Struct(">IHxI"), {}, 0
    for i in range(_CALIBRATION_ROUNDS):
        a, b, c = form.unpack_from(data, i & 127)
        seen[i & 1023] = a
        length += len(f"power,id={i & 1023} value={b}.0 {c}\n{a ^ seen[i & 511 if i > 1023 else 0]}")
        length += data.find(b & 0xFF, i & 63)
    return length


def number(value: float) -> str:
    """A figure with three or four significant digits, and commas between thousands."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 4
    return f"{value:,.{digits}f}"


def header() -> str:
    """The table's first two rows."""
    row = f"{'name':<{_NAME}} {'figure':>{_VALUE}} {'unit':<{_UNIT}} {'aim':>{_AIM}} met?"
    return f"{row}\n{'-' * (len(row) + 4)}"


def row(figure: Figure) -> str:
    """A row of the table."""
    value = "-" if figure.value is None else number(figure.value)
    aim = "" if figure.aim is None else f"{'<=' if figure.at_most else '>='} {number(figure.aim)}"
    met = {None: "", True: "yes", False: "NO"}[figure.met]
    text = f"{figure.name:<{_NAME}} {value:>{_VALUE}} {figure.unit:<{_UNIT}} {aim:>{_AIM}} {met:<4}"
    return f"{text} {figure.note}".rstrip()


def written(figures: Iterable[Figure]) -> str:
    """All figures as JSON, with the machine that they were measured on."""
    machine = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    rows = [asdict(figure) | {"met": figure.met} for figure in figures]
    return json.dumps({"on": machine, "figures": rows}, indent=1) + "\n"


def compared(figures: Iterable[Figure], last: Path) -> Iterator[str]:
    """Lines that compare the ratios with those of the last time, a file made by `written`."""
    try:
        before = _ratios(json.loads(last.read_text(encoding="utf-8"))["figures"])
    except FileNotFoundError:
        yield f"{last} does not exist, so nothing was compared; --json {last} writes it"
        return
    except (ValueError, KeyError, TypeError) as error:
        yield f"{last} cannot be read ({error!r}), so nothing was compared; --json {last} writes it again"
        return
    now = {figure.name: figure.value for figure in figures if figure.compared and figure.value is not None}
    fell = [name for name in before.keys() & now.keys() if now[name] < (1 - FELL) * before[name]]
    for name in sorted(fell):
        share = now[name] / before[name] - 1
        yield f"FELL  {name}: {number(before[name])} -> {number(now[name])} ({share:+.0%})"
    if missing := sorted(before.keys() - now.keys()):
        yield f"not measured this time: {', '.join(missing)}"
    both = len(before.keys() & now.keys())
    yield f"{both} ratio{'s' * (both != 1)} compared, {len(fell)} fell by more than {FELL:.0%}"


def _ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {str(row["name"]): float(row["value"]) for row in rows if row["compared"] and row["value"] is not None}
