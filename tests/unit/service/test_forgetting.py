"""Everything of a meter is removed, and nothing of any other: lines, state, and what a running service remembers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter.derive import points
from exporter.derive.limits import Threshold
from exporter.model import point
from exporter.model.state_keys import meter_of, meters_of, state_of
from exporter.outbox.memory_queue import MemoryQueue
from exporter.outbox.queue import Outbox, OutboxError
from exporter.service import own_points
from exporter.service.forgetting import Forgotten, forget
from exporter.sinks.contract import Verdict, WriteResult
from exporter.sinks.writer import Writer
from tests.support.examples import RARE
from tests.support.patience import HANG_S
from tests.support.rows import rows
from tests.support.years import HOUR, HOUR_MS, METER, Exporter, Meter, expected_hours, ms
from tests.unit.sinks.test_writer import TAKEN, FakeInflux, one_pass

NOON = datetime(2025, 10, 25, 12, tzinfo=UTC)
OTHER = "6970631400000000"
HOURS = 40 if RARE else 27
ODD = ["A", "A B", "A,B=C", "O'Hara", 'say "A"', "A,meter_id=B", "ø%5C", "A:import", "A:import:2026-01"]


# Lines


def lines_of(meter_id: str) -> list[str]:
    return [
        points.threshold_line(Threshold("voltage", "max", 253), 1, meter_id),
        points.meter_line(meter_id, "Europe/Oslo", 1),
        own_points.reading_age_line(meter_id, 7.0, 1),
        points.final_hour_line(meter_id, "import", 1500, 0, Exporter().settings.zone),
    ]


@pytest.mark.parametrize("meter_id", ODD)
def test_a_line_belongs_to_one_meter(meter_id: str) -> None:
    mine = point.is_of(meter_id)
    for other in ODD:
        for line in lines_of(other):
            assert mine(line) is (other == meter_id), line
            assert (point.meter_tag(meter_id) in line) or other != meter_id
    assert not mine(own_points.event_line("house", "start", f"x,meter_id={meter_id} ,meter_id={meter_id},", 1))
    assert not mine(own_points.exporter_line(f"a,meter_id={meter_id}", {"frames": 1}, 1))
    assert not mine(points.threshold_line(Threshold("backlog_age", "max", 600), 1))


# The state


@pytest.mark.parametrize("meter_id", ODD)
def test_an_entry_of_the_state_belongs_to_one_meter(meter_id: str) -> None:
    state: dict[str, str] = {}
    for one in ODD:
        state |= {f"last_id:port {one}": one, f"clock:{one}": "[]", f"line:{one}": "2400 8N1"}
        state |= {f"{kind}:{one}:import:2026-01": "{}" for kind in ("registers", "imported")}
        state |= {f"running:{direction}:{one}": "[]" for direction in ("import", "export")}
    mine = set(state_of(state, meter_id))
    assert mine == {
        f"last_id:port {meter_id}",
        f"clock:{meter_id}",
        f"registers:{meter_id}:import:2026-01",
        f"imported:{meter_id}:import:2026-01",
        f"running:import:{meter_id}",
        f"running:export:{meter_id}",
    }
    assert meters_of(state) == set(ODD)


def test_every_entry_is_recognised_as_that_of_its_meter() -> None:
    """A new kind of entry must be added to state_keys, too."""
    exporter = Exporter()
    for number in range(5):
        one = Meter("kaifa").hourly(NOON + number * HOUR)
        exporter.read(one.frame, one.received, keep=True)
    assert len(exporter.state) >= 5
    assert {meter_of(key, value) for key, value in exporter.state.items()} == {METER}


# The outbox


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "outbox.sqlite")
    yield outbox
    outbox.close()


def waiting(outbox: Outbox) -> list[str]:
    batch = outbox.take(1_000_000, newest=False)
    return [] if batch is None else list(batch.lines)


def ages(meter_id: str, start: int, end: int) -> list[str]:
    return [own_points.reading_age_line(meter_id, 1.0, number) for number in range(start, end)]


def test_lines_are_removed_from_rows_with_other_lines(outbox: Outbox) -> None:
    left = []
    for number in range(200):  # more rows than one transaction reads
        mixed = ages("A", 3 * number, 3 * number + 2) + ages("AB", number, number + 1)
        outbox.append(rows([mixed, mixed[:2], mixed[2:]][number % 3]))
        left += mixed[2:] if number % 3 != 1 else []
    before = outbox.status().depth_lines
    found = forget(outbox, "A")
    assert found == Forgotten(lines=before - len(left), rejected=0, entries=0)
    assert waiting(outbox) == left
    assert outbox.status().depth_lines == len(left)
    assert forget(outbox, "A") == Forgotten(0, 0, 0)


def test_refused_lines_and_the_state_are_removed_too(outbox: Outbox) -> None:
    outbox.append(rows([*ages("A", 0, 2), *ages("B", 0, 2)]), {"clock:A": "[]", "last_id:x": "A", "clock:B": "[]"})
    batch = outbox.take(10, newest=True)
    assert batch is not None
    outbox.delete(batch, refused=dict.fromkeys(range(4), "bad"))
    assert forget(outbox, "A") == Forgotten(lines=0, rejected=2, entries=2)
    assert [one.line for one in outbox.refused()] == ages("B", 0, 2)[::-1]
    assert outbox.status().rejected_lines == 2
    assert outbox.states("") == {"clock:B": "[]"}


def test_many_lines_are_removed_quickly(outbox: Outbox) -> None:
    outbox.append(rows(ages("B", 0, 200_000)))
    outbox.append(rows(ages("A", 0, 50_000)))
    assert forget(outbox, "A").lines == 50_000
    assert outbox.status().depth_lines == 200_000


# The writer


def test_a_batch_that_is_being_sent_brings_nothing_back(outbox: Outbox) -> None:
    """Lines that it keeps to send them again are removed after it, and its last line is no longer the witness."""
    influx = FakeInflux()
    hours = [points.final_hour_line(one, "import", 1.0, 0, Exporter().settings.zone) for one in ("A", "B")]
    outbox.append(rows(ages("B", 0, 1)))
    outbox.append(rows([*hours, *ages("A", 0, 1)]))
    writer = Writer(outbox, influx, batch_lines=1)
    found = []
    posted = threading.Event()

    def forget_now() -> None:
        posted.wait(HANG_S)
        found.append((forget(outbox, "A", sender=writer), len(influx.posts)))

    forgetting = threading.Thread(target=forget_now)
    forgetting.start()

    def on_post() -> None:
        if not posted.is_set():
            posted.set()
            while sum(",meter_id=A" in one for one in waiting(outbox)):  # it has looked, and waits for this post
                pass

    influx.on_post = on_post
    one_pass(writer)
    forgetting.join(HANG_S)
    ((removed, posts),) = found
    assert (removed.lines, removed.settled) == (2, True)
    assert waiting(outbox) == []
    assert not any(",meter_id=A" in line for post in influx.posts[posts:] for line in post)
    assert writer._witness is None or ",meter_id=B" in writer._witness


def test_waiting_for_a_batch_ends(outbox: Outbox) -> None:
    influx, stuck, over = FakeInflux(), threading.Event(), threading.Event()

    def on_post() -> None:
        stuck.set()
        over.wait(HANG_S)

    influx.on_post = on_post
    writer = Writer(outbox, influx)
    outbox.append(rows(ages("A", 0, 1)))
    sending = threading.Thread(target=one_pass, args=(writer,))
    sending.start()
    assert stuck.wait(HANG_S)
    assert writer.discard(point.is_of("A"), patience_s=0.01) is False
    over.set()
    sending.join(HANG_S)
    assert writer.discard(point.is_of("A"), patience_s=0.01) is True


def test_lines_in_memory_are_removed_too(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutboxError("the disk is full")

    monkeypatch.setattr(outbox, "append", full)
    influx, memory = FakeInflux(), MemoryQueue()
    memory.put(rows([*ages("A", 0, 2), *ages("B", 0, 2)]), "the disk is full")
    writer = Writer(outbox, influx, memory=memory)
    influx.script = [WriteResult(Verdict.RETRY, "away")]
    one_pass(writer)
    assert writer.discard(point.is_of("A"))
    influx.posts.clear()
    influx.script = [TAKEN]
    one_pass(writer)
    assert influx.posts == [tuple(ages("B", 0, 2))]


# What a running service remembers


def forgetting(exporter: Exporter, meter_id: str) -> None:
    exporter.pipeline.forget(meter_id)
    for key in state_of(exporter.state, meter_id):
        del exporter.state[key]
    mine = point.is_of(meter_id)
    exporter.written.points = {one: of for one, of in exporter.written.points.items() if not mine(f"{one[0]} ")}


@pytest.mark.longer
@pytest.mark.parametrize("maker", ["kamstrup", "aidon", "kaifa"])
@pytest.mark.parametrize("at", [3, 20, 24])
def test_no_month_is_made_again_from_memory(maker: str, at: int) -> None:
    """Afterwards a meter begins like a new one, and nothing changes for the other one on the source."""
    meter, other = Meter(maker), Meter(maker, seed=2, meter_id=OTHER)
    both = [one.hourly(NOON + number * HOUR, lag) for number in range(HOURS) for one, lag in ((meter, 12), (other, 40))]
    exporter, anew = Exporter(), Exporter()
    for number, one in enumerate(both):
        if number == 2 * at:
            forgetting(exporter, METER)
        exporter.read(one.frame, one.received, keep=True)
        if number >= 2 * at or number % 2:
            anew.read(one.frame, one.received, keep=True)
        list(exporter.pipeline.now(ms(one.received)))
    exporter.stop()
    anew.stop()
    known = [ms(NOON) + number * HOUR_MS for number in range(HOURS)]
    assert exporter.written.finals() == expected_hours(meter, known[at:])
    assert exporter.written.finals(meter_id=OTHER) == expected_hours(other, known)
    assert exporter.written.points == anew.written.points
    assert exporter.state.keys() == anew.state.keys()


def test_a_forgotten_meter_that_is_silent_has_no_points() -> None:
    exporter = Exporter()
    for one in (Meter("kamstrup"), Meter("kamstrup", meter_id=OTHER)):
        sent = one.hourly(NOON)
        exporter.read(sent.frame, sent.received, keep=True)
    mentioned: Callable[[], set[str]] = lambda: {  # noqa: E731
        one for one in (METER, OTHER) for line in exporter.pipeline.now(ms(NOON) + 20_000) if point.is_of(one)(line)
    }
    assert mentioned() == {METER, OTHER}
    forgetting(exporter, METER)
    assert mentioned() <= {OTHER}
    assert all(meter_of(key, text) != METER for key, text in exporter.pipeline.feed(()).state.items())
