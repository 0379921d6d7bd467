"""What the owner sees while baud rate and parity are searched: log, check, marks, live view."""

from __future__ import annotations

import logging

import pytest

from exporter.live.state import Level, LiveState
from exporter.pipeline.link import Link, LinkState
from exporter.service.events import Mark, SourceMarks
from exporter.service.metrics import faults
from exporter.sources.contract import Happened, SourceEvent
from tests.support.octets import all_frames
from tests.support.pipeline import Reader
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
        assert (link.state, link.words) == (LinkState.NO_FRAMES, SEARCH.message)
        link.happened(FOUND)
        hear(link, all_frames()[0], pipeline)
    logged = [record.getMessage() for record in caplog.records]
    assert [message for message in logged if message in (SEARCH.message, FOUND.message)] == [
        SEARCH.message,
        FOUND.message,
    ]
    assert link.state is LinkState.OK
    assert FOUND.message in link.words
    assert link.snapshot()["words"] == link.words, "so that `check` shows it while this process runs"


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
    assert "noise" in link.words
    assert "parity" not in link.words


def test_a_search_is_a_fault_only_when_it_takes_long(link: Link, time: Time) -> None:
    link.happened(SEARCH)
    status = {"sources": [link.snapshot()], "outbox": {"oldest_age_s": None}, "influx": None}
    assert faults(status) == []
    time.now += 301
    (words,) = faults(status | {"sources": [link.snapshot()]})
    assert words.endswith(SEARCH.message)


def test_the_result_is_a_mark(link: Link, time: Time) -> None:
    marks = SourceMarks(link, time)
    link.happened(SEARCH)
    assert list(marks.new()) == []
    link.happened(FOUND)
    assert list(marks.new()) == [Mark("line_found", FOUND.message)]
    assert list(marks.new()) == []


def test_the_live_view_shows_it_too() -> None:
    state = LiveState("ttyUSB0")
    intake = Reader()

    def come(data: bytes, at: float) -> None:
        state.hear(len(data), at)
        for outcome in intake.feed(data):
            state.count(outcome, at)

    come(b"\x13" * 100, 1.0)
    state.happen(SEARCH)
    come(b"\x13" * 100, 2.0)
    assert state.condition(2.0).level is Level.WRONG
    assert state.condition(2.0).words == SEARCH.message
    state.happen(FOUND)
    come(all_frames()[0], 3.0)
    assert state.condition(3.0).level is Level.WELL
    assert FOUND.message in state.condition(3.0).words
    assert state.condition(3.0).kind != "receiving", "the screen leaves that out"
