"""What a meter measures at one moment: what the household gives and the encoders take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class Flows(NamedTuple):
    """Four directions of one quantity, in the order of the OBIS C groups 1 to 4.

    W and var of a power, Wh and varh of the registers (Ws and vars where that is said).
    """

    active_import: float
    active_export: float
    reactive_import: float
    reactive_export: float


PerPhase: TypeAlias = tuple[float | None, float | None, float | None]
"""Of L1, L2 and L3; None where the meter has no such phase or does not measure it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one list: W and var, A, V, Wh and varh.

    `phase_power` is the power of L1, L2, L3 (only Swedish meters send it), `registers` the energies (only the hourly
    lists carry them); None where there is none.
    """

    power: Flows
    currents: PerPhase = (None, None, None)
    voltages: PerPhase = (None, None, None)
    phase_power: tuple[Flows, Flows, Flows] | None = None
    registers: Flows | None = None


class Identity(NamedTuple):
    """Meter id and meter type, as the octets that are sent."""

    id: bytes
    type: bytes
