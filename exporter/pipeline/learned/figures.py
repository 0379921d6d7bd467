"""The texts of the figures of the phases, remembered where the same numbers come again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import getitem
from typing import Final

from exporter.derive.phases import Phases, fuse_load, unbalance
from exporter.pipeline.learned.memory import Spend, Values

__all__ = ["Figures"]

_VOLTAGES: Final = 1 << 13
"""Sets of voltages that are remembered: a net's hardly differ from one list to the next."""
_FUSES: Final = 16


class Figures:
    """Of a shape's numbers as sent, by where they stand, the texts of `Phases.figures`."""

    __slots__ = ("_loads", "_phases", "_spend", "_unbalances", "_values")

    def __init__(self, phases: Phases, values: Sequence[Values], spend: Spend) -> None:
        self._phases, self._values, self._spend = phases, values, spend
        self._unbalances = _Unbalances(phases.voltages_of(values)) if phases.has_voltage_unbalance else None
        self._loads: dict[float, tuple[_Loads, ...]] = {}

    def texts(self, numbers: tuple[int, ...], values: Sequence[float], main_fuse_a: float) -> list[str] | None:
        """The texts, from a frame's numbers and their values; None where a figure means nothing, and has no line."""
        phases = self._phases
        texts = []
        if phases.has_current_unbalance:
            percent = phases.current_unbalance(values)
            if percent is None:
                return None
            texts.append(repr(percent))
        if self._unbalances is not None:
            text = self._unbalances[phases.voltages_of(numbers)]
            if not text:
                return None
            texts.append(text)
        loads = self._loads.get(main_fuse_a)
        if loads is None:
            loads = self._new_loads(main_fuse_a)
        texts += map(getitem, loads, phases.currents_of(numbers))
        for factor in phases.power_factors(values):
            if factor is None:
                return None
            texts.append(repr(factor))
        return texts

    def forget(self) -> None:
        """Empty what is remembered of numbers."""
        self._loads.clear()
        if self._unbalances is not None:
            self._unbalances.clear()

    def _new_loads(self, main_fuse_a: float) -> tuple[_Loads, ...]:
        if len(self._loads) >= _FUSES:
            self._loads.clear()
        currents: tuple[Values, ...] = self._phases.currents_of(self._values)
        loads = self._loads[main_fuse_a] = tuple(_Loads(one, main_fuse_a, self._spend) for one in currents)
        return loads


class _Loads(dict[int, str]):
    """A current as sent -> the text of what it takes of the main fuse."""

    def __init__(self, values: Values, main_fuse_a: float, spend: Callable[[], None]) -> None:
        super().__init__()
        self._values, self._fuse, self._spend = values, main_fuse_a, spend

    def __missing__(self, number: int) -> str:
        self._spend()
        text = self[number] = repr(fuse_load(self._values[number], self._fuse))
        return text


class _Unbalances(dict[tuple[int, ...], str]):
    """Voltages as sent -> the text of their unbalance, empty where it means nothing."""

    def __init__(self, values: Sequence[Values]) -> None:
        super().__init__()
        self._values = values

    def __missing__(self, numbers: tuple[int, ...]) -> str:
        if len(self) >= _VOLTAGES:
            self.clear()
        percent = unbalance(map(getitem, self._values, numbers))
        text = self[numbers] = "" if percent is None else repr(percent)
        return text
