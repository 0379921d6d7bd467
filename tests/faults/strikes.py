"""The plan of a campaign: the faults of each round, their times and lengths. It depends only on the seed."""

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
    """A fault: seconds after the start of the round, seconds that it lasts, its meter, and a random number.

    `when_read`: it waits until the meter's port is read.
    """

    kind: str
    at: float
    lasts: float
    meter: int
    number: int
    when_read: bool


def plan(seed: int, rounds: int) -> list[list[Strike]]:
    """Rounds of one to four faults of different kinds."""
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
    when_read = kind in (PARITY, HALVES, NOISE, QUIET) or chance.random() < 0.5
    meter, number = chance.randrange(len(MAKERS)), chance.randrange(1 << 32)
    return Strike(kind, chance.uniform(0, 0.5), lasts, meter, number, when_read)
