"""The short form of the crash matrix: one seed that is always the same, and a random one.

One round in the ordinary run, four in the rare group.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.__main__ import report
from tests.faults.crash import Campaign
from tests.support.influx_server import Influx

pytestmark = pytest.mark.slow
ALWAYS = 781  # kills of both, SIGTERM, SIGSTOP, a port that is unplugged and plugged, a lost answer


@pytest.mark.parametrize(
    ("seed", "rounds"),
    [
        pytest.param(None, 1, id="one round"),
        pytest.param(ALWAYS, 4, id="always", marks=pytest.mark.rare),
        pytest.param(None, 4, id="random", marks=pytest.mark.rare),
    ],
)
def test_crashes_lose_and_double_nothing(influx: Influx, tmp_path: Path, seed: int | None, rounds: int) -> None:
    seed = random.randrange(1, 10**9, 2) if seed is None else seed  # odd: it recovers by a new start, which is faster
    print(f"\nagain: tests/run faults --seed {seed} --rounds {rounds}")
    result = Campaign(tmp_path / "campaign", influx, seed).run(rounds)
    print(report(result))
    assert not result.verdict.wrong, "\n".join(result.verdict.wrong)
    assert result.verdict.counts["found"] > 25 * rounds
