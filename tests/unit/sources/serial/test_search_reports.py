"""What the owner sees while baud rate and parity are searched: log, check, events, live view."""

from __future__ import annotations

import logging

import pytest

from exporter.live.state import LiveState
from exporter.pipeline.link import READING, Level, Link, LinkState
from exporter.service.events import Event, EventsOfSource
from exporter.service.metrics import faults
from exporter.sources.contract import Happened, SourceEvent
from tests.support.octets import all_frames
from tests.unit.pipeline.test_link import Time, hear, pipeline_of

SEARCH = SourceEvent(Happened.NO_FRAMES, "bytes come from ttyUSB0, but no valid frame; other settings are tried")
FOUND = SourceEvent(Happened.FOUND, "ttyUSB0 gives valid frames with 2400 8E1: write HAN_SOURCE=…")


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def link(time: Time) -> Link:
    return Link("ttyUSB0", "/dev/ttyUSB0", time)


def test_a_search_and_its_result_are_logged_once_each(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = pipeline_of(link)
    with caplog.at_level(logging.INFO):
        link.happened(SEARCH)
        for _ in range(20):
            hear(link, b"\x13" * 100, pipeline)
        assert (link.state, link.message) == (LinkState.NO_FRAMES, SEARCH.message)
        link.happened(FOUND)
        hear(link, all_frames()[0], pipeline)
    logged = [record.getMessage() for record in caplog.records]
    assert [message for message in logged if message in (SEARCH.message, FOUND.message)] == [
        SEARCH.message,
        FOUND.message,
    ]
    assert link.state is LinkState.OK
    assert FOUND.message in link.message
    assert link.snapshot()["words"] == link.message, "so that `check` shows it while this process runs"


def test_a_search_is_logged_although_the_state_was_known(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    pipeline = pipeline_of(link)
    with caplog.at_level(logging.WARNING):
        for _ in range(20):
            hear(link, b"\x13" * 100, pipeline)
        assert link.state is LinkState.NO_FRAMES
        link.happened(SEARCH)
        link.happened(SourceEvent(Happened.NO_FRAMES, "everything was tried"))
    assert [record.getMessage() for record in caplog.records][-2:] == [SEARCH.message, "everything was tried"]


def test_noise_after_frames_is_not_reported_as_wrong_parity(link: Link) -> None:
    hear(link, all_frames()[0])
    hear(link, b"\x13" * 2000)
    assert link.state is LinkState.NO_FRAMES
    assert "noise" in link.message
    assert "parity" not in link.message


def test_a_search_is_a_fault_only_when_it_takes_long(link: Link, time: Time) -> None:
    link.happened(SEARCH)
    status = {"sources": [link.snapshot()], "outbox": {"oldest_age_s": None}, "influx": None}
    assert faults(status) == []
    time.now += 301
    (fault,) = faults(status | {"sources": [link.snapshot()]})
    assert fault.endswith(SEARCH.message)


def test_the_result_is_an_event(link: Link, time: Time) -> None:
    events = EventsOfSource(link, time)
    link.happened(SEARCH)
    assert list(events.new()) == []
    link.happened(FOUND)
    assert list(events.new()) == [Event("line_found", FOUND.message)]
    assert list(events.new()) == []


def test_the_live_view_shows_it_too() -> None:
    link = Link("ttyUSB0", "/dev/ttyUSB0", Time(), quiet=True)
    state, pipeline = LiveState(link), pipeline_of(link)
    hear(link, b"\x13" * 100, pipeline)
    link.happened(SEARCH)
    hear(link, b"\x13" * 100, pipeline)
    assert state.condition(1002.0).level is Level.WRONG
    assert state.condition(1002.0).message == SEARCH.message
    link.happened(FOUND)
    assert state.condition(1100.0).level is Level.WELL
    hear(link, all_frames()[0], pipeline)
    assert state.condition(1003.0).level is Level.WELL
    assert FOUND.message in state.condition(1003.0).message
    assert state.condition(1003.0).kind != READING, "a condition of this kind is not shown"
