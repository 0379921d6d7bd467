"""Lines that the outbox cannot take are sent from memory, which is bounded."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from exporter.model import point
from exporter.model.point import replaced_key
from exporter.outbox.memory_queue import MemoryQueue, OrderedOutbox
from exporter.outbox.queue import Outbox, OutboxError
from exporter.sinks.writer import Writer
from tests.support.patience import HANG_S
from tests.support.rows import rows
from tests.unit.sinks.test_writer import DOWN, FakeInflux, line, lines, one_pass


def texts(found: list[tuple[str, str]]) -> list[str]:
    return [text for text, _ in found]


def test_the_oldest_are_dropped_when_too_many_wait(caplog: pytest.LogCaptureFixture) -> None:
    memory = MemoryQueue(most_lines=10)
    assert memory.put(rows(lines(0, 8)), "the disk is full") == 0
    found, mark = memory.first(5)
    assert texts(found) == lines(0, 5)
    assert memory.put(rows(lines(8, 13)), "the disk is full") == 3
    memory.done(5, mark)  # three of these five were dropped meanwhile
    assert texts(memory.first(100)[0]) == lines(5, 13)
    assert len([record for record in caplog.records if "the disk is full" in record.getMessage()]) == 1


def test_done_removes_nothing_that_was_not_sent() -> None:
    memory = MemoryQueue(most_lines=4)
    memory.put(rows(lines(0, 3)), "full")
    found, mark = memory.first(3)
    memory.put(rows(lines(3, 9)), "full")  # all three were dropped
    memory.done(len(found), mark)
    assert texts(memory.first(9)[0]) == lines(5, 9)


class Full(Outbox):
    """An outbox on a disk that takes nothing while `full` is set."""

    full = False

    def append(self, rows: Iterable[tuple[bytes, str]], state: Mapping[str, str | None] | None = None) -> None:
        if self.full:
            raise OutboxError("the disk is full")
        super().append(rows, state)


def test_the_writer_sends_memory_first_and_keeps_it_while_influxdb_does_not_answer(tmp_path: Path) -> None:
    influx, memory, outbox = FakeInflux(), MemoryQueue(), Full(tmp_path / "outbox.db")
    writer = Writer(outbox, influx, memory=memory)
    outbox.append(rows(lines(0, 3)))
    outbox.full = True
    memory.put(rows([*lines(10, 12), line(12, "bad")]), "full")
    influx.script = [DOWN]
    one_pass(writer)
    assert len(memory) == 3
    one_pass(writer)
    assert len(memory) == 0
    assert set(influx.points) == {f"power {number}" for number in (0, 1, 2, 10, 11)}
    assert influx.posts[0][:2] == tuple(lines(10, 12))
    assert outbox.refused() == []
    assert writer.status().lines_rejected == 1
    outbox.close()


def test_memory_goes_into_the_outbox_when_there_is_room_again(tmp_path: Path) -> None:
    influx, memory, outbox = FakeInflux(), MemoryQueue(), Full(tmp_path / "outbox.db")
    memory.put(rows(lines(0, 3)), "full")
    influx.script = [DOWN]
    one_pass(Writer(outbox, influx, memory=memory))
    assert len(memory) == 0
    assert outbox.status().depth_lines == 3
    outbox.close()


# Points that are written again with newer values


class FullAndOrdered(OrderedOutbox):
    """The outbox of a service, on a disk that takes nothing while `full` is set, deletes nothing while `stuck` is."""

    full = stuck = False

    def __init__(self, path: Path, memory: MemoryQueue) -> None:
        super().__init__(path, memory, max_bytes=1 << 30)

    def append(self, rows: Iterable[tuple[bytes, str]], state: Mapping[str, str | None] | None = None) -> None:
        if self.full:
            raise OutboxError("the disk is full")
        super().append(rows, state)

    def delete(self, *arguments: Any, **more: Any) -> None:
        if self.stuck:
            raise OutboxError("the disk is read-only")
        super().delete(*arguments, **more)


def day(wh: int, name: str = "A") -> str:
    return f"day_energy,meter_id={name} value={wh} 3600000"


def stored(influx: FakeInflux, name: str = "A") -> str | None:
    return influx.points.get(f"day_energy,meter_id={name} 3600000")


def writer_of(outbox: Outbox, influx: FakeInflux, memory: MemoryQueue, **more: Any) -> Writer:
    return Writer(outbox, influx, memory=memory, **more)


def test_an_older_sum_in_the_outbox_does_not_replace_one_that_was_sent_from_memory(tmp_path: Path) -> None:
    influx, memory = FakeInflux(), MemoryQueue()
    outbox = FullAndOrdered(tmp_path / "outbox.db", memory)
    writer = writer_of(outbox, influx, memory)
    outbox.append(rows([day(1), day(7, "B"), *lines(0, 3)]))
    outbox.full = True
    memory.put(rows([day(2)]), "full")
    one_pass(writer)
    assert (stored(influx), stored(influx, "B")) == ("value=2", "value=7")
    assert len(influx.points) == 5
    outbox.full = False
    outbox.append(rows([day(3)]))
    one_pass(writer)
    assert stored(influx) == "value=3"
    assert outbox.status().depth_lines == memory.overtaken == 0
    outbox.close()


def test_memory_goes_into_the_outbox_before_newer_lines(tmp_path: Path) -> None:
    memory = MemoryQueue()
    outbox = FullAndOrdered(tmp_path / "outbox.db", memory)
    outbox.append(rows([day(1)]))
    memory.put(rows([day(2), *lines(0, 2500)]), "full")
    _, mark = memory.first(1)
    memory.done(1, mark)  # it was sent
    memory.put(rows([day(3)]), "full")
    outbox.append(rows([day(4)]))
    batch = outbox.take(9999, newest=False)
    assert batch is not None
    assert batch.lines == (day(1), day(2), *lines(0, 2500), day(3), day(4))
    assert len(memory) == memory.overtaken == 0
    outbox.close()


def test_a_sum_that_was_refused_replaces_no_other(tmp_path: Path) -> None:
    memory = MemoryQueue()
    memory.put(rows([day(2), day(5, "B")]), "full")
    found, mark = memory.first(2)
    memory.done(2, mark, refused=[0])
    assert texts(found) == [day(2), day(5, "B")]
    assert memory.newest(day(1), replaced_key(day(1))) == day(1)
    assert memory.newest(day(1, "B"), replaced_key(day(1, "B"))) == day(5, "B")
    assert memory.newest(line(1), "") == line(1)
    memory.drop(point.is_of("B"))
    assert memory.newest(day(1, "B"), replaced_key(day(1, "B"))) == day(1, "B")


@pytest.mark.parametrize("seed", range(40))
def test_whatever_fails_the_newest_value_is_stored_in_the_end(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    influx, memory = FakeInflux(), MemoryQueue()
    outbox = FullAndOrdered(tmp_path / "outbox.db", memory)
    writer = writer_of(outbox, influx, memory, batch_lines=3, pause=lambda _: 0.0)
    last: dict[str, str] = {}
    for value in range(60):
        if chance.random() < 0.2:
            outbox.full = chance.random() < 0.5
            outbox.stuck = outbox.full and chance.random() < 0.5
        name = chance.choice("AB")
        try:
            outbox.append(rows([line(value), day(value, name)]))
        except OutboxError as problem:
            memory.put(rows([line(value), day(value, name)]), str(problem))
        last[name] = f"value={value}"
        if chance.random() < 0.4:
            influx.script = [DOWN] if chance.random() < 0.3 else []
            one_pass(writer)
    outbox.full = outbox.stuck = False
    influx.script = []
    one_pass(writer)
    assert {name: stored(influx, name) for name in last} == last
    assert len(influx.points) == 60 + len(last)
    assert outbox.status().depth_lines == len(memory) == 0
    outbox.close()


# An outbox from which nothing can be deleted


def test_what_cannot_be_removed_is_sent_and_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.sinks.writer.IDLE_SECONDS", 0.01)
    caplog.set_level(logging.INFO)
    influx, memory = FakeInflux(), MemoryQueue()
    outbox = FullAndOrdered(tmp_path / "outbox.db", memory)
    outbox.append(rows(lines(0, 3)))
    outbox.full = outbox.stuck = True
    stop = threading.Event()
    asked: list[int] = []

    def pause(failures: int) -> float:
        asked.append(failures)
        memory.put(rows([line(100 + failures)]), "read-only")
        if failures == 8:
            stop.set()
        return 0.0

    writer = writer_of(outbox, influx, memory, pause=pause)
    writer.run(stop)
    assert asked == [*range(1, 9), 9], "lines sent from memory do not reset the pauses"
    assert influx.posts[0] == tuple(lines(0, 3))
    assert all(post[0] == line(100 + number) for number, post in enumerate(influx.posts[1:], 1))
    assert caplog.text.count("cannot be removed") == 1
    assert "takes lines again" not in caplog.text
    assert "the disk is read-only" in writer.status().last_error
    outbox.full = outbox.stuck = False
    posts = len(influx.posts)
    one_pass(writer)
    assert outbox.status().depth_lines == 0
    assert all(lines(0, 3)[0] not in post for post in influx.posts[posts:])
    assert caplog.text.count("can be used again") == 1
    outbox.close()


def test_lines_in_memory_do_not_wait_for_the_outbox(tmp_path: Path) -> None:
    influx, memory = FakeInflux(), MemoryQueue()
    outbox = FullAndOrdered(tmp_path / "outbox.db", memory)
    outbox.append(rows(lines(0, 3)))
    outbox.full = outbox.stuck = True
    writer = writer_of(outbox, influx, memory, pause=lambda _: 3600.0)
    there, stop = threading.Event(), threading.Event()
    influx.on_post = lambda: there.set() if len(influx.posts) > 1 else None
    thread = threading.Thread(target=writer.run, args=(stop,))
    thread.start()
    memory.put(rows([line(10)]), "read-only")
    outbox.wake()
    assert there.wait(HANG_S)
    stop.set()
    outbox.wake()
    thread.join(HANG_S)
    assert "power 10" in influx.points
    outbox.close()


def test_a_meter_is_forgotten_in_what_could_not_be_removed(tmp_path: Path) -> None:
    influx, memory = FakeInflux(), MemoryQueue()
    outbox = FullAndOrdered(tmp_path / "outbox.db", memory)
    outbox.append(rows([line(0)]))
    outbox.append(rows([day(1, "A"), day(1, "B")]))
    outbox.stuck = True
    writer = writer_of(outbox, influx, memory, batch_lines=2)
    one_pass(writer)  # sent out of order: the sums are kept, to be sent once more
    assert writer.discard(point.is_of("A"))
    outbox.stuck = False
    influx.posts.clear()
    one_pass(writer)
    assert day(1, "B") in {sent for post in influx.posts for sent in post}
    assert day(1, "A") not in {sent for post in influx.posts for sent in post}
    outbox.close()
