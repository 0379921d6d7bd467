"""The newest version of a point is the last to arrive, whatever is sent first."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hypothesis import example, given
from hypothesis import strategies as st

from exporter.outbox.queue import Outbox
from exporter.sinks.contract import Verdict, WriteResult
from exporter.sinks.influx.client import Client
from exporter.sinks.writer import Writer
from tests.support.examples import examples
from tests.support.rows import rows

BATCH = 10
SENT = -1


class Server:
    """Keeps the last version of each point."""

    address = "here"

    def __init__(self) -> None:
        self.points: dict[str, str] = {}

    def write(self, lines: Sequence[str], *, timeout: float | None = None) -> WriteResult:
        for line in lines:
            series, _, rest = line.partition(" value=")
            self.points[f"{series} {rest.partition(' ')[2]}"] = rest
        return WriteResult(Verdict.TAKEN)


def sums(version: int, day: int) -> str:
    return f"day_energy,meter_id=m value={version}.0 {1_700_172_000_000 + day * 86_400_000}"


# How many lines are appended, or that a batch is sent.
steps = st.lists(st.one_of(st.integers(1, 4), st.just(SENT)), max_size=60)


@examples(200)
@example([*[1] * 12, SENT, SENT, 1])  # what was sent first is in the middle of the next newest batch
@given(steps)
def test_the_newest_sum_is_the_last_to_arrive(plan: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outbox, server = Outbox(Path(folder) / "outbox", max_bytes=1 << 24), Server()
        client = cast("Client", server)
        writer = Writer(outbox, client, batch_lines=BATCH)
        newest: dict[int, int] = {}
        for number, step in enumerate(plan):
            if step == SENT:
                writer._send_some(lambda: float("inf"))
                continue
            day = number % 2
            newest[day] = number
            plain = [f"p,meter_id=m value=1.0 {number * 1000 + n}" for n in range(step)]
            outbox.append(rows([*plain, sums(number, day)]))
        while writer._send_some(lambda: float("inf")) is not None:
            pass
        outbox.close()
        stood = {key: rest for key, rest in server.points.items() if key.startswith("day_energy")}
        assert sorted(stood.values()) == sorted(sums(v, d).partition("value=")[2] for d, v in newest.items())
