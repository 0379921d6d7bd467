"""What the outbox cannot take goes straight to InfluxDB, and is bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from exporter.influx.writer import Writer
from exporter.outbox import Outbox, OutboxError
from exporter.straight import Straight
from tests.unit.test_writer import DOWN, FakeInflux, line, lines, one_pass


def test_the_oldest_go_when_too_many_wait(caplog: pytest.LogCaptureFixture) -> None:
    straight = Straight(most_lines=10)
    assert straight.put(lines(0, 8), "the disk is full") == 0
    found, mark = straight.first(5)
    assert found == lines(0, 5)
    assert straight.put(lines(8, 13), "the disk is full") == 3
    straight.done(5, mark)  # three of these five had gone by themselves
    assert straight.first(100)[0] == lines(5, 13)
    assert len([record for record in caplog.records if "the disk is full" in record.getMessage()]) == 1


def test_done_takes_nothing_that_was_not_sent() -> None:
    straight = Straight(most_lines=4)
    straight.put(lines(0, 3), "full")
    found, mark = straight.first(3)
    straight.put(lines(3, 9), "full")  # all three have gone
    straight.done(len(found), mark)
    assert straight.first(9)[0] == lines(5, 9)


class Full(Outbox):
    """An outbox on a disk that takes nothing more, from when it is said to be full."""

    full = False

    def append(self, lines: Sequence[str], state: Mapping[str, str | None] | None = None) -> None:
        if self.full:
            raise OutboxError("the disk is full")
        super().append(lines, state)


def test_the_writer_sends_it_before_what_waits_and_keeps_it_while_influxdb_is_away(tmp_path: Path) -> None:
    influx, straight, outbox = FakeInflux(), Straight(), Full(tmp_path / "outbox.db")
    writer = Writer(outbox, influx, straight=straight)
    outbox.append(lines(0, 3))
    outbox.full = True
    straight.put([*lines(10, 12), line(12, "bad")], "full")
    influx.script = [DOWN]
    one_pass(writer)
    assert len(straight) == 3
    one_pass(writer)
    assert len(straight) == 0
    assert set(influx.points) == {f"power {number}" for number in (0, 1, 2, 10, 11)}
    assert influx.posts[0][:2] == tuple(lines(10, 12))
    assert outbox.rejected() == []
    assert writer.status().lines_rejected == 1
    outbox.close()


def test_what_is_in_memory_goes_to_the_disk_when_there_is_room_again(tmp_path: Path) -> None:
    influx, straight, outbox = FakeInflux(), Straight(), Full(tmp_path / "outbox.db")
    straight.put(lines(0, 3), "full")
    influx.script = [DOWN]
    one_pass(Writer(outbox, influx, straight=straight))
    assert len(straight) == 0
    assert outbox.status().depth_lines == 3
    outbox.close()
