"""What is marked on a graph: sources lost and back, meters exchanged, lines that do not get through. Few of each."""

from __future__ import annotations

import pytest

from exporter.pipeline.link import Link
from exporter.service.events import LineMarks, Mark, SourceMarks
from exporter.sources.contract import Happened, SourceEvent
from tests.support.octets import all_frames
from tests.unit.pipeline.test_link import Time, hear

LOST = Mark("reconnect", "ttyUSB0 is lost: /dev/ttyUSB0 is gone: unplugged?")


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def link(time: Time) -> Link:
    return Link("ttyUSB0", "/dev/ttyUSB0", time)


def well(link: Link) -> None:
    hear(link, all_frames()[0])


def gone(link: Link) -> None:
    link.happened(SourceEvent(Happened.LOST, "/dev/ttyUSB0 is gone: unplugged?"))


def test_a_source_that_is_lost_and_back(link: Link, time: Time) -> None:
    marks = SourceMarks(link, time)
    link.happened(SourceEvent(Happened.OPENED, "open"))
    assert list(marks.new()) == []
    well(link)
    assert list(marks.new()) == []
    gone(link)
    assert list(marks.new()) == [LOST]
    assert list(marks.new()) == []
    time.now += 700
    link.happened(SourceEvent(Happened.OPENED, "open"))
    assert list(marks.new()) == [], "open, and nothing heard yet"
    well(link)
    assert list(marks.new()) == [Mark("reconnect", "ttyUSB0 is back after 12 min")]
    assert list(marks.new()) == []


@pytest.mark.parametrize("what", [Happened.MISSING, Happened.SILENT])
def test_a_source_that_was_never_well_is_not_lost(link: Link, time: Time, what: Happened) -> None:
    marks = SourceMarks(link, time)
    link.happened(SourceEvent(what, "no"))
    assert list(marks.new()) == []
    well(link)
    assert list(marks.new()) == []
    link.happened(SourceEvent(what, "no octet came"))
    assert list(marks.new()) == [Mark("reconnect", "ttyUSB0 is lost: no octet came")]


def test_a_port_that_comes_and_goes_is_marked_every_five_minutes(link: Link, time: Time) -> None:
    marks = SourceMarks(link, time)
    found = []
    for second in range(1200):
        time.now += 1
        (gone if second % 10 == 9 else well)(link)
        found += [(second, mark) for mark in marks.new()]
    assert [second for second, mark in found if mark == LOST] == [9, 309, 609, 909]
    assert len(found) == 8, "each time it is said that it is back, too"


def test_what_stays_lost_after_coming_and_going_is_said_in_the_end(link: Link, time: Time) -> None:
    marks = SourceMarks(link, time)
    for act in (well, gone, well):
        act(link)
        list(marks.new())
        time.now += 1
    gone(link)
    assert list(marks.new()) == []
    time.now += 300
    assert list(marks.new()) == [LOST]


def test_a_source_that_spoke_between_two_looks_was_well(link: Link, time: Time) -> None:
    marks = SourceMarks(link, time)
    well(link)
    link.read("A")
    gone(link)
    assert list(marks.new()) == [LOST]
    time.now += 5
    well(link)
    link.read("A")
    gone(link)
    assert list(marks.new()) == [Mark("reconnect", "ttyUSB0 is back after 5 s")]
    assert list(marks.new()) == []


def changed(marks: SourceMarks) -> list[str]:
    return [mark.text for mark in marks.new() if mark.kind == "meter_changed"]


def test_another_meter_on_the_source(link: Link, time: Time) -> None:
    marks = SourceMarks(link, time)
    link.expect("unknown-ttyUSB0", named=False)
    link.read("unknown-ttyUSB0", named=False)
    link.read("A")
    assert changed(marks) == [], "the first that names itself takes nobody's place"
    link.read("A", named=False)
    link.read("B")
    assert changed(marks) == ["ttyUSB0: meter B in place of A"]
    for _ in range(20):
        time.now += 10
        link.read("A")
        link.read("B")
    assert changed(marks) == [], "two that speak in turn"
    time.now += 601
    link.read("A")
    assert changed(marks) == ["ttyUSB0: meter A in place of B"]


def test_a_meter_that_was_exchanged_while_nobody_listened(link: Link, time: Time) -> None:
    marks = SourceMarks(link, time)
    link.expect("A", named=True)
    link.read("B")
    assert changed(marks) == ["ttyUSB0: meter B in place of A"]


def test_lines_that_do_not_get_through(time: Time) -> None:
    marks = LineMarks(100, time)
    asked = []

    def why() -> str:
        asked.append(time.now)
        return "field type conflict"

    assert list(marks.new(rejected=0, why=why, lost=100)) == []
    told = list(marks.new(rejected=3, why=why, lost=1100))
    assert told == [
        Mark("rejected", "InfluxDB rejected 3 lines, which are put aside; the last one: field type conflict"),
        Mark("dropped", "1000 lines are lost, since the outbox or its disk was full"),
    ]
    for _ in range(359):  # it goes on for an hour
        time.now += 10
        assert list(marks.new(rejected=5, why=why, lost=2000)) == []
    time.now += 10
    (rejected, dropped) = marks.new(rejected=5, why=why, lost=2000)
    assert rejected.text.startswith("InfluxDB rejected 2 lines")
    assert dropped.text.startswith("900 lines")
    assert len(asked) == 2, "the words are looked up only to be told"
