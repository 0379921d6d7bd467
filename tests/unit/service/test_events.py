"""Events: sources that are lost and back, meters that are exchanged, lines that are lost or rejected. Few of each."""

from __future__ import annotations

import pytest

from exporter.pipeline.link import Link
from exporter.service.events import EventsOfLines, EventsOfSource
from exporter.sources.contract import Happened, SourceEvent
from tests.support.octets import all_frames
from tests.unit.pipeline.test_link import Time, hear

GONE = "/dev/ttyUSB0 is gone: unplugged?"


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def link(time: Time) -> Link:
    return Link("ttyUSB0", "/dev/ttyUSB0", time)


def works(link: Link) -> None:
    hear(link, all_frames()[0])


def lose(link: Link) -> None:
    link.happened(SourceEvent(Happened.LOST, GONE))


def reconnects(events: EventsOfSource) -> list[str]:
    """`lost` or `back` for each new event, all of which are about the connection."""
    found = []
    for event in events.new():
        assert event.kind == "reconnect"
        assert "ttyUSB0" in event.text
        found.append("back" if " back " in event.text else "lost")
        assert found[-1] == "back" or "lost" in event.text
    return found


def test_a_source_that_is_lost_and_back(link: Link, time: Time) -> None:
    events = EventsOfSource(link, time)
    link.happened(SourceEvent(Happened.OPENED, "open"))
    assert reconnects(events) == []
    works(link)
    assert reconnects(events) == []
    lose(link)
    (event,) = events.new()
    assert event.kind == "reconnect"
    assert "lost" in event.text
    assert GONE in event.text
    assert reconnects(events) == []
    time.now += 700
    link.happened(SourceEvent(Happened.OPENED, "open"))
    assert reconnects(events) == [], "open, but nothing was received"
    works(link)
    (event,) = events.new()
    assert event.kind == "reconnect"
    assert "back" in event.text
    assert "12 min" in event.text
    assert reconnects(events) == []


@pytest.mark.parametrize("what", [Happened.MISSING, Happened.SILENT])
def test_a_source_that_never_worked_is_not_lost(link: Link, time: Time, what: Happened) -> None:
    events = EventsOfSource(link, time)
    link.happened(SourceEvent(what, "no"))
    assert reconnects(events) == []
    works(link)
    assert reconnects(events) == []
    link.happened(SourceEvent(what, "no byte came"))
    (event,) = events.new()
    assert event.kind == "reconnect"
    assert "no byte came" in event.text


def test_a_port_that_comes_and_goes_is_reported_every_five_minutes(link: Link, time: Time) -> None:
    events = EventsOfSource(link, time)
    found = []
    for second in range(1200):
        time.now += 1
        (lose if second % 10 == 9 else works)(link)
        found += [(second, event) for event in reconnects(events)]
    assert [second for second, event in found if event == "lost"] == [9, 309, 609, 909]
    assert len(found) == 8, "each time there is an event when it is back, too"


def test_a_source_that_stays_lost_after_coming_and_going_is_reported(link: Link, time: Time) -> None:
    events = EventsOfSource(link, time)
    for act in (works, lose, works):
        act(link)
        reconnects(events)
        time.now += 1
    lose(link)
    assert reconnects(events) == []
    time.now += 300
    assert reconnects(events) == ["lost"]


def test_a_source_that_worked_between_two_calls_was_back(link: Link, time: Time) -> None:
    events = EventsOfSource(link, time)
    works(link)
    link.read("A")
    lose(link)
    assert reconnects(events) == ["lost"]
    time.now += 5
    works(link)
    link.read("A")
    lose(link)
    (event,) = events.new()
    assert "back" in event.text
    assert "5 s" in event.text
    assert reconnects(events) == []


def changed(events: EventsOfSource) -> list[tuple[str, ...]]:
    """The meters named in each new event about an exchange, the new one first."""
    texts = [event.text for event in events.new() if event.kind == "meter_changed"]
    assert all("ttyUSB0" in text for text in texts)
    return [tuple(word for word in text.split() if word in ("A", "B")) for text in texts]


def test_another_meter_on_the_source(link: Link, time: Time) -> None:
    events = EventsOfSource(link, time)
    link.expect("unknown-ttyUSB0", named=False)
    link.read("unknown-ttyUSB0", named=False)
    link.read("A")
    assert changed(events) == [], "the first meter with an id replaces no other"
    link.read("A", named=False)
    link.read("B")
    assert changed(events) == [("B", "A")]
    for _ in range(20):
        time.now += 10
        link.read("A")
        link.read("B")
    assert changed(events) == [], "two meters that send in turn"
    time.now += 601
    link.read("A")
    assert changed(events) == [("A", "B")]


def test_a_meter_that_was_exchanged_while_nothing_was_running(link: Link, time: Time) -> None:
    events = EventsOfSource(link, time)
    link.expect("A", named=True)
    link.read("B")
    assert changed(events) == [("B", "A")]


def test_lines_that_do_not_reach_influxdb(time: Time) -> None:
    events = EventsOfLines(100, time)
    asked = []

    def reason() -> str:
        asked.append(time.now)
        return "field type conflict"

    assert list(events.new(rejected=0, reason=reason, lost=100)) == []
    rejected, dropped = events.new(rejected=3, reason=reason, lost=1100)
    assert (rejected.kind, dropped.kind) == ("rejected", "dropped")
    assert "3 lines" in rejected.text
    assert "field type conflict" in rejected.text
    assert "1 000 lines" in dropped.text
    for _ in range(359):  # for an hour
        time.now += 10
        assert list(events.new(rejected=4, reason=reason, lost=2000)) == []
    time.now += 10
    rejected, dropped = events.new(rejected=4, reason=reason, lost=2000)
    assert "1 line," in rejected.text
    assert "900 lines" in dropped.text
    assert len(asked) == 2, "the reason is looked up only for an event"
