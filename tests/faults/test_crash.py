"""The short form of the crash matrix: a seed that is always the same, and one that never is.

One round of it in the ordinary run, four in the rare group.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.__main__ import report
from tests.faults.crash import Campaign
from tests.support.influx_server import Influx

pytestmark = pytest.mark.slow
ALWAYS = 781  # has kills of both, SIGTERM, SIGSTOP, a port that comes back, a lost answer


@pytest.mark.parametrize(
    ("seed", "rounds"),
    [
        pytest.param(None, 1, id="one round"),
        pytest.param(ALWAYS, 4, id="always", marks=pytest.mark.rare),
        pytest.param(None, 4, id="random", marks=pytest.mark.rare),
    ],
)
def test_nothing_is_lost_or_doubled_whatever_happens(
    influx: Influx, tmp_path: Path, seed: int | None, rounds: int
) -> None:
    seed = random.randrange(1, 10**9, 2) if seed is None else seed  # odd: healed by a new start, which is quicker
    print(f"\nagain: tests/run faults --seed {seed} --rounds {rounds}")
    told = Campaign(tmp_path / "campaign", influx, seed).run(rounds)
    print(report(told))
    assert not told.verdict.wrong, "\n".join(told.verdict.wrong)
    assert told.verdict.counts["found"] > 25 * rounds
