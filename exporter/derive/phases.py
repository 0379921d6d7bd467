"""What a list's values say of the phases: unbalance, fuse load, power factor. Pure functions.

Which values those are is found once for all lists that hold the same (values.py, `layout_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import fsum, hypot
from operator import itemgetter
from typing import Any, Final

from exporter.model.obis import Quantity

__all__ = ["Phases", "fuse_load", "unbalance"]

_FEWEST_AMPERES: Final = 1.0
"""Below this mean the currents are a router and a clock radio, and their unbalance means nothing."""


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
    """Which of a list's values are about the phases, and what follows from them; `values` are the list's, in its order.

    `quantities` says what each value is; None is a value that is not known.
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

    def figures(self, values: Sequence[float], main_fuse_a: float) -> list[float | None]:
        """All figures, None for one that means nothing now.

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
