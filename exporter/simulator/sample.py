"""What a meter measures at one moment: the output of the household and the input of the encoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class Flows(NamedTuple):
    """Four directions of one quantity, in the order of the OBIS C groups 1 to 4.

    Powers are in W and var, registers in Wh and varh (or in Ws and vars where a docstring says so).
    """

    active_import: float
    active_export: float
    reactive_import: float
    reactive_export: float


PerPhase: TypeAlias = tuple[float | None, float | None, float | None]
"""The value of L1, L2 and L3; None if the meter does not have the phase or does not measure it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The values of one list: W and var, A, V, Wh and varh.

    `phase_power` is the power of L1, L2, L3 (only Swedish meters send it), `registers` are the energies (only hourly
    lists have them); both are None if they are not sent.
    """

    power: Flows
    currents: PerPhase = (None, None, None)
    voltages: PerPhase = (None, None, None)
    phase_power: tuple[Flows, Flows, Flows] | None = None
    registers: Flows | None = None


class Identity(NamedTuple):
    """Meter id and meter type as they are sent."""

    id: bytes
    type: bytes
