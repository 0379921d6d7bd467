"""The plan of a campaign: which faults come in which round, when, for how long. A function of the seed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from tests.faults.frames import MAKERS
from tests.faults.proxy import FAULTS

KILL: Final = "kill -9 exporter"
STOP: Final = "SIGTERM exporter"
FREEZE: Final = "SIGSTOP exporter"
KILL_INFLUX: Final = "kill -9 influxd"
REPLUG: Final = "port reopened under another number"
PARITY: Final = "wrong parity"
HALVES: Final = "half frames"
NOISE: Final = "100 kB of noise"
QUIET: Final = "pause"
PROXY: Final = "proxy: "

_WEIGHTS: Final = (
    {KILL: 3.0, STOP: 2.0, FREEZE: 2.0, KILL_INFLUX: 1.2, REPLUG: 2.0, PARITY: 1.0, HALVES: 1.2, NOISE: 1.0, QUIET: 0.8}
) | {PROXY + fault: 0.35 for fault in FAULTS}
_AT_ONCE: Final = (1, 1, 1, 1, 2, 2, 2, 3, 3, 4)


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault: seconds after the round's beginning, seconds that it lasts, which meter, and a number for the rest.

    `heard` tells that it waits until the meter's port is read.
    """

    kind: str
    at: float
    lasts: float
    meter: int
    dice: int
    heard: bool


def plan(seed: int, rounds: int) -> list[list[Strike]]:
    """So many rounds of one to four faults, each of another kind."""
    chance = random.Random(seed)
    return [_round(chance) for _ in range(rounds)]


def _round(chance: random.Random) -> list[Strike]:
    kinds: list[str] = []
    for _ in range(chance.choice(_AT_ONCE)):
        left = {kind: weight for kind, weight in _WEIGHTS.items() if kind not in kinds}
        kinds += chance.choices(list(left), list(left.values()))
    return [_strike(kind, chance) for kind in kinds]


def _strike(kind: str, chance: random.Random) -> Strike:
    lasts = chance.choice((0.0, chance.uniform(0, 0.3), chance.uniform(0.2, 1.2)))
    if kind.startswith(PROXY) or kind in (PARITY, QUIET):
        lasts = chance.uniform(0.2, 1.5)
    if kind == f"{PROXY}hang" and chance.random() < 0.1:
        lasts = 10.5  # longer than the exporter waits for an answer
    heard = kind in (PARITY, HALVES, NOISE, QUIET) or chance.random() < 0.5
    meter, dice = chance.randrange(len(MAKERS)), chance.randrange(1 << 32)
    return Strike(kind, chance.uniform(0, 0.5), lasts, meter, dice, heard)
