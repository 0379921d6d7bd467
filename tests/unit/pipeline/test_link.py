"""What a source does, told apart: missing, silent, octets but no frame, frames that cannot be read, well."""

from __future__ import annotations

import logging

import pytest

from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.link import Link, LinkState
from exporter.pipeline.pipeline import NoState, Pipeline, Purpose
from exporter.service.metrics import ReadingAges, exporter_fields, faults, resident_size
from exporter.sources.contract import Chunk, Happened, SourceEvent
from tests.support.octets import all_frames, frame, frames_of
from tests.support.pipeline import Naming


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def link(time: Time) -> Link:
    return Link("ttyUSB0", "/dev/ttyUSB0", time)


def state_of(link: Link) -> LinkState:
    return link.state


def pipeline_of(link: Link) -> Pipeline:
    return Pipeline(link.name, Naming(), NoState(), HostClock(), purpose=Purpose.READINGS, link=link)


def hear(link: Link, octets: bytes, pipeline: Pipeline | None = None) -> None:
    (pipeline or pipeline_of(link)).feed((Chunk(octets, None),))


def test_events_become_states(link: Link) -> None:
    assert state_of(link) is LinkState.WAITING
    link.happened(SourceEvent(Happened.MISSING, "no such port"))
    assert (link.state, link.words) == (LinkState.MISSING, "no such port")
    link.happened(SourceEvent(Happened.OPENED, "reading"))
    assert (link.state, link.counts.reconnects) == (LinkState.WAITING, 0)
    link.happened(SourceEvent(Happened.SILENT, "no octet for 60 s"))
    assert state_of(link) is LinkState.SILENT
    link.happened(SourceEvent(Happened.OPENED, "reading"))
    assert link.counts.reconnects == 1


def test_frames_make_it_well(link: Link) -> None:
    hear(link, b"".join(all_frames()))
    assert state_of(link) is LinkState.OK
    assert (link.counts.frames, link.counts.unread) == (20, 0)


def test_octets_without_frames(link: Link) -> None:
    intake = pipeline_of(link)
    hear(link, b"\x13" * 1000, intake)
    assert state_of(link) is LinkState.WAITING
    hear(link, b"\x13" * 1000, intake)
    assert state_of(link) is LinkState.NO_FRAMES
    assert "parity" in link.words
    assert "probe" in link.words
    hear(link, frames_of("kamstrup-3phase-sweden")[0], intake)
    assert state_of(link) is LinkState.OK


def test_frames_that_cannot_be_read(link: Link) -> None:
    hear(link, frame(b"\xe6\xe7\x00\xdb\x08KAME") * 3)
    assert state_of(link) is LinkState.UNREADABLE
    assert "encrypted" in link.words
    assert link.counts.unread == 3


def test_rejects_are_counted_by_reason_and_said_once_a_minute(
    link: Link, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    good = frames_of("kamstrup-3phase-sweden")[0]
    bad = good[:100] + b"\x00" + good[101:]
    intake = pipeline_of(link)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            hear(link, bad + good, intake)
        time.now += 61
        hear(link, bad + good, intake)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert "FCS" in said[0]
    assert "(6 so far)" in said[1]
    fields = exporter_fields([link], {"outbox_depth": 7}, {"points_written": 8})
    assert fields["rejects_fcs"] == 6
    assert fields["frames"] == 6
    assert (fields["outbox_depth"], fields["points_written"]) == (7, 8)
    assert fields["source_state"] == LinkState.OK.value


def test_starting_in_the_middle_of_a_frame_is_not_said(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    good = frames_of("kamstrup-3phase-sweden")[0]
    with caplog.at_level(logging.WARNING):
        hear(link, good[40:] + b"\x7e" + good)
    assert not caplog.records


def test_ages(link: Link, time: Time) -> None:
    link.read("A")
    time.now += 12
    assert link.reading_ages() == {"A": 12}
    assert link.frame_age() == 12  # since the start, without a frame
    hear(link, all_frames()[0])
    assert link.frame_age() == 0


NOW = 1_790_000_000_000


def test_ages_go_on_over_a_restart_until_the_meter_is_heard_again(link: Link, time: Time) -> None:
    ages = ReadingAges({"A": NOW - 60_000, "B": NOW - 7_000})
    assert ages.of([link], NOW) == ages.missed(NOW) == {"A": 60, "B": 7}
    link.read("A")
    time.now += 3
    assert ages.of([link], NOW + 10_000) == {"A": 3, "B": 17}
    assert ages.missed(NOW + 10_000) == {"B": 17}


def test_ages_end_after_a_day_with_and_without_a_restart(link: Link, time: Time) -> None:
    ages = ReadingAges({"B": NOW})
    link.read("A")
    time.now += 86_400
    assert ages.of([link], NOW + 86_400_000) == {"A": 86_400, "B": 86_400}
    time.now += 1
    assert ages.of([link], NOW + 86_401_000) == {}
    link.read("A")
    assert ages.of([link], NOW + 86_401_000) == {"A": 0}


def test_a_time_still_to_come_is_no_age(link: Link) -> None:
    """This computer's clock is wrong now, or was then."""
    ages = ReadingAges({"A": NOW})
    assert ages.of([link], NOW - 60_001) == {}
    assert ages.of([link], NOW - 60_000) == {"A": 0}
    assert ages.of([link], NOW + 1000) == {"A": 1}


def test_a_meter_in_whose_place_another_speaks_is_not_missed(link: Link, time: Time) -> None:
    other = Link("ttyUSB1", "/dev/ttyUSB1", time)
    other.expect("C", named=True)
    link.expect("A", named=True)
    ages = ReadingAges({"A": NOW - 60_000, "C": NOW - 60_000})
    link.read("B")
    assert ages.of([link, other], NOW) == {"B": 0, "C": 60}
    time.now += 10
    link.read("A")
    assert ages.of([link, other], NOW) == {"A": 0, "C": 60}
    assert set(link.snapshot()["reading_age_s"]) == {"A", "B"}, "both are told to whoever asks"
    link.forget("A")
    ages.forget("C")
    assert ages.of([link, other], NOW) == {}


def test_faults(link: Link, time: Time) -> None:
    def status(age: float | None, influx: object) -> dict[str, object]:
        return {"sources": [link.snapshot()], "outbox": {"oldest_age_s": age}, "influx": influx}

    assert faults(status(None, None)) == []
    time.now += 301
    (words,) = faults(status(None, None))
    assert "no frame from ttyUSB0 for 301 s" in words
    hear(link, all_frames()[0])
    assert faults(status(601, None)) == []  # nobody waits for it without an InfluxDB
    (words,) = faults(status(601, {"state": "waiting", "words": "connection refused"}))
    assert "connection refused" in words


def test_memory_is_told() -> None:
    assert 5_000_000 < resident_size() < 2_000_000_000
