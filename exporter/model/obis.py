"""OBIS codes (IEC 62056-61) and the catalogue: code -> quantity, phase, direction, unit."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

DIRECTIONS: Final = ("import", "export")
PHASES: Final = ("L1", "L2", "L3")

CURRENT_VALUE: Final = 255
"""Group F of a value that is not a historical value."""

_TEXT: Final = re.compile(r"(\d{1,3})-(\d{1,3}):(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:[.*](\d{1,3}))?")


class ObisCode(NamedTuple):
    """The six groups of an OBIS code; `str()` leaves group F out when it is 255."""

    a: int
    b: int
    c: int
    d: int
    e: int
    f: int = CURRENT_VALUE

    def __str__(self) -> str:
        return _text(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> ObisCode:
        """Six bytes, group A first. Raises ValueError for any other length."""
        if len(data) != 6:
            raise ValueError(f"an OBIS code has 6 bytes, not {len(data)}")
        return cls(*data)

    @classmethod
    def parse(cls, text: str) -> ObisCode:
        """Read `1-0:1.7.0` or `1-0:1.7.0*255`. Raises ValueError for any other text."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not an OBIS code: {text!r} (write it like 1-0:1.7.0)")
        groups = [int(g) for g in match.groups(default="255")]
        if max(groups) > 255:
            raise ValueError(f"not an OBIS code: {text!r} (each group is 0 to 255)")
        return cls(*groups)


@lru_cache(maxsize=1024)
def _text(code: ObisCode) -> str:
    text = f"{code.a}-{code.b}:{code.c}.{code.d}.{code.e}"
    return text if code.f == CURRENT_VALUE else f"{text}*{code.f}"


class Quantity(NamedTuple):
    """What a code measures.

    `name` is the InfluxDB measurement, `unit` the SI unit ("1" for a ratio), `phase` is "L1", "L2", "L3" or "" for the
    total, `direction` is "import", "export" or "" if there is none, `title` is the name for a person.
    """

    name: str
    unit: str
    phase: str
    direction: str
    title: str

    @property
    def is_register(self) -> bool:
        """True for an energy register (group D = 8)."""
        return self.unit in _REGISTER_UNITS


_REGISTER_UNITS: Final = frozenset({"Wh", "varh", "VAh"})
_INSTANTANEOUS: Final = 7
_TIME_INTEGRAL: Final = 8
_IMPORT: Final = "import"
_EXPORT: Final = "export"

# Group C of the total; that of L1, L2, L3 is larger by 20, 40, 60 (docs/protocol.md).
_POWER: Final = {
    1: ("active", "W", _IMPORT),
    2: ("active", "W", _EXPORT),
    3: ("reactive", "var", _IMPORT),
    4: ("reactive", "var", _EXPORT),
    9: ("apparent", "VA", _IMPORT),
    10: ("apparent", "VA", _EXPORT),
}


def _catalogue() -> dict[tuple[int, int], Quantity]:
    table: dict[tuple[int, int], Quantity] = {}
    for step, phase in ((0, ""), (20, "L1"), (40, "L2"), (60, "L3")):
        suffix = f" {phase}" if phase else ""
        for c, (kind, unit, direction) in _POWER.items():
            title = f"{kind.capitalize()} %s {direction}{suffix}"
            table[c + step, _INSTANTANEOUS] = Quantity(f"{kind}_power", unit, phase, direction, title % "power")
            table[c + step, _TIME_INTEGRAL] = Quantity(f"{kind}_energy", unit + "h", phase, direction, title % "energy")
        table[13 + step, _INSTANTANEOUS] = Quantity("power_factor", "1", phase, "", f"Power factor{suffix}")
        if phase:
            table[11 + step, _INSTANTANEOUS] = Quantity("current", "A", phase, "", f"Current {phase}")
            table[12 + step, _INSTANTANEOUS] = Quantity("voltage", "V", phase, "", f"Voltage {phase}")
    table[14, _INSTANTANEOUS] = Quantity("frequency", "Hz", "", "", "Frequency")
    return table


_CATALOGUE: Final = _catalogue()


def describe(code: ObisCode) -> Quantity | None:
    """Say what a code measures; None if the catalogue does not have it.

    The catalogue has electricity (group A = 1) and present values (group F = 255) only. An energy register with a rate
    (group E above 0) is a register of the same quantity. Any other value with a group E above 0 is not known.
    """
    if code.a != 1 or code.f != CURRENT_VALUE or (code.e != 0 and code.d != _TIME_INTEGRAL):
        return None
    return _CATALOGUE.get((code.c, code.d))
