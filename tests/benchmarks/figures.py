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
"""The share of a ratio that must be gone before it is told: what is left of noise after dividing is less."""

_NAME, _VALUE, _UNIT, _AIM = 64, 11, 12, 10
_CALIBRATION_ROUNDS: Final = 2000


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: `quick` for a CI step, `full` for the largest sizes; `folder` is where files may stand."""

    quick: bool
    full: bool
    folder: Path

    def of(self, quick: int, usual: int, full: int | None = None) -> int:
        """The one of the three that is asked for."""
        if self.quick:
            return quick
        return full if self.full and full is not None else usual


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table. `value` None: it could not be measured, and `note` says why.

    `aim` is what must be reached, `at_most` that it must not be passed. `compared` marks a ratio of two things that
    were measured in the same run, the larger the better: CI looks whether it fell.
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
    """Do each in turn, again and again: what is compared must have had the same share of a machine's good moments.

    So often and until the first has had `least_s` seconds, but not on and on when all have had `patience_s`. Processor
    time unless told otherwise. The best of many short ones is what a busy machine disturbs least.
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
    """The garbage collector leaves alone what was there before: it is the benchmark's, and no cost of what it does."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def calibrate() -> int:
    """A fixed piece of plain Python that does what decoding does: by how long it takes, how fast this machine is."""
    octets, form, seen, length = bytes(range(256)), struct.Struct(">IHxI"), {}, 0
    for i in range(_CALIBRATION_ROUNDS):
        a, b, c = form.unpack_from(octets, i & 127)
        seen[i & 1023] = a
        length += len(f"power,id={i & 1023} value={b}.0 {c}\n{a ^ seen[i & 511 if i > 1023 else 0]}")
        length += octets.find(b & 0xFF, i & 63)
    return length


def number(value: float) -> str:
    """A figure with three or four digits that matter, thousands apart."""
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
    """All figures as JSON, with what they were measured on."""
    machine = {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    rows = [asdict(figure) | {"met": figure.met} for figure in figures]
    return json.dumps({"on": machine, "figures": rows}, indent=1) + "\n"


def compared(figures: Iterable[Figure], last: Path) -> Iterator[str]:
    """What is to be said of the ratios against those of the last time, which `written` wrote."""
    try:
        before = _ratios(json.loads(last.read_text(encoding="utf-8"))["figures"])
    except FileNotFoundError:
        yield f"{last}: not there, so nothing was compared; --json {last} writes it"
        return
    except (ValueError, KeyError, TypeError) as error:
        yield f"{last} cannot be compared with ({error!r}); --json {last} writes it anew"
        return
    now = {figure.name: figure.value for figure in figures if figure.compared and figure.value is not None}
    fell = [name for name in before.keys() & now.keys() if now[name] < (1 - FELL) * before[name]]
    for name in sorted(fell):
        share = now[name] / before[name] - 1
        yield f"FELL  {name}: {number(before[name])} -> {number(now[name])} ({share:+.0%})"
    if missing := sorted(before.keys() - now.keys()):
        yield f"not measured this time: {', '.join(missing)}"
    yield f"{len(before.keys() & now.keys())} ratios compared, {len(fell)} fell by more than {FELL:.0%}"


def _ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {str(row["name"]): float(row["value"]) for row in rows if row["compared"] and row["value"] is not None}
