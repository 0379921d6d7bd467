"""The states of a source: missing, silent, bytes without a frame, frames that cannot be decoded; counts and ages."""

from __future__ import annotations

import logging

import pytest

from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.link import NO_BYTES, READING, Level, Link, LinkState
from exporter.pipeline.pipeline import NoState, Pipeline, Purpose
from exporter.service.metrics import ReadingAges, exporter_fields, faults, resident_size
from exporter.sources.contract import Chunk, Happened, SourceEvent
from tests.support.octets import all_frames, frame, frames_of
from tests.support.pipeline import Naming

GOOD = frames_of("kamstrup-3phase-sweden")[0]
DAMAGED = GOOD[:100] + b"\x00" + GOOD[101:]
ENCRYPTED = frame(b"\xe6\xe7\x00\xdb\x08KAME")
NOISE = b"\x13" * 100


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


def hear(link: Link, data: bytes, pipeline: Pipeline | None = None) -> None:
    (pipeline or pipeline_of(link)).feed((Chunk(data, None),))


# --- states -----------------------------------------------------------------------------------------------------------


def test_events_become_states(link: Link) -> None:
    assert state_of(link) is LinkState.WAITING
    link.happened(SourceEvent(Happened.MISSING, "no such port"))
    assert (link.state, link.message) == (LinkState.MISSING, "no such port")
    link.happened(SourceEvent(Happened.OPENED, "reading"))
    assert (link.state, link.counts.reconnects) == (LinkState.WAITING, 0)
    link.happened(SourceEvent(Happened.SILENT, "no byte for 60 s"))
    assert state_of(link) is LinkState.SILENT
    link.happened(SourceEvent(Happened.OPENED, "reading"))
    assert link.counts.reconnects == 1


def test_every_state_has_a_level_and_a_label_of_its_own() -> None:
    assert {state for state in LinkState if state.level is Level.WELL} == {LinkState.OK, LinkState.ENDED}
    assert {state for state in LinkState if state.level is Level.WAITING} == {LinkState.WAITING}
    assert {state for state in LinkState if not state.can_pass} == {LinkState.UNREADABLE, LinkState.FAILED}
    assert len({state.label for state in LinkState}) == len(LinkState)


def test_frames_make_it_ok(link: Link) -> None:
    hear(link, b"".join(all_frames()))
    assert state_of(link) is LinkState.OK
    assert (link.counts.messages, link.counts.undecoded) == (20, 0)


def test_bytes_without_frames(link: Link) -> None:
    pipeline = pipeline_of(link)
    hear(link, NOISE * 10, pipeline)
    assert state_of(link) is LinkState.WAITING
    hear(link, NOISE * 10, pipeline)
    assert state_of(link) is LinkState.NO_FRAMES
    assert "parity" in link.message
    assert "han-exporter probe /dev/ttyUSB0" in link.message
    hear(link, GOOD, pipeline)
    assert state_of(link) is LinkState.OK


def test_frames_that_cannot_be_decoded(link: Link) -> None:
    hear(link, ENCRYPTED * 3)
    assert state_of(link) is LinkState.UNREADABLE
    assert "encrypted" in link.message
    assert link.counts.undecoded == 3


def test_a_source_without_a_frame_ends_with_a_warning(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    hear(link, DAMAGED + b"\x7e")
    link.ended()
    assert caplog.records[-1].levelno == logging.WARNING
    assert state_of(link) is LinkState.ENDED
    assert "capture" in link.message


# --- what is logged ---------------------------------------------------------------------------------------------------


def test_rejects_are_counted_by_reason_and_logged_once_a_minute(
    link: Link, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = pipeline_of(link)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            hear(link, DAMAGED + GOOD, pipeline)
        time.now += 61
        hear(link, DAMAGED + GOOD, pipeline)
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) == 2
    assert "FCS" in logged[0]
    assert "(6 so far)" in logged[1]
    fields = exporter_fields([link], {"outbox_depth": 7}, {"points_written": 8})
    assert fields["rejects_fcs"] == 6
    assert fields["frames"] == 6
    assert (fields["outbox_depth"], fields["points_written"]) == (7, 8)
    assert fields["source_state"] == LinkState.OK.value


def test_the_rest_of_a_frame_at_the_start_and_fill_are_normal(link: Link, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        hear(link, GOOD[40:] + b"\x7e\x7e\x7e" + GOOD)
    assert not caplog.records
    assert (link.counts.rejected, link.last_reject) == (0, "")
    assert link.rejects.total() > 0


def test_noise_between_frames_is_a_reject(link: Link) -> None:
    hear(link, GOOD + NOISE + GOOD)
    assert link.counts.rejected == 1
    assert link.last_reject


def test_a_change_is_logged_once_and_a_quiet_link_logs_nothing(
    link: Link, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    quiet = Link("quiet", "quiet", time, quiet=True)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            for one in (link, quiet):
                hear(one, NOISE * 20)
        for one in (link, quiet):
            hear(one, GOOD)
            hear(one, GOOD)
            one.happened(SourceEvent(Happened.LOST, f"{one.name} is gone"))
    messages = [record.getMessage() for record in caplog.records]
    assert all(link.name in message for message in messages)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]
    assert (quiet.state, quiet.counts) == (link.state, link.counts)


# --- what shows only with time ----------------------------------------------------------------------------------------


def test_before_the_first_byte_it_says_what_it_is_waiting_for(link: Link, time: Time) -> None:
    time.now += 300
    condition = link.condition()
    assert (condition.level, condition.kind) == (Level.WAITING, NO_BYTES)
    assert "10 s" in condition.message


def test_bytes_without_a_frame_are_wrong_only_after_a_while(link: Link, time: Time) -> None:
    hear(link, NOISE)
    assert link.condition(time.now + 14).level is Level.WAITING
    condition = link.condition(time.now + 16)
    assert condition.level is Level.WRONG
    assert "han-exporter probe" in condition.message
    assert "100 bytes" in condition.message
    assert link.condition(patience=0) == condition, "for a caller that does not wait any longer"


def test_one_frame_that_cannot_be_decoded_is_wrong_if_there_is_no_other(link: Link) -> None:
    pipeline = pipeline_of(link)
    hear(link, ENCRYPTED, pipeline)
    assert link.condition().level is Level.WRONG
    assert "encrypted" in link.condition().message
    hear(link, GOOD + ENCRYPTED, pipeline)
    assert link.condition().level is Level.WELL


def test_a_message_of_the_source_counts_until_it_is_open_again(link: Link, time: Time) -> None:
    hear(link, GOOD)
    link.happened(SourceEvent(Happened.LOST, "/dev/ttyUSB0 is gone: unplugged?"))
    assert (link.condition().level, link.condition().message) == (Level.WRONG, "/dev/ttyUSB0 is gone: unplugged?")
    time.now += 100
    link.happened(SourceEvent(Happened.OPENED, "/dev/ttyUSB0: bytes come again"))
    assert (link.condition().level, link.condition().message) == (Level.WAITING, "/dev/ttyUSB0: bytes come again")
    hear(link, GOOD)
    assert (link.condition().level, link.condition().kind) == (Level.WELL, READING)


def test_silence_and_a_lack_of_frames_are_noticed(link: Link, time: Time) -> None:
    pipeline, began = pipeline_of(link), time.now
    hear(link, GOOD, pipeline)
    assert link.condition(began + 25).level is Level.WELL
    silent = link.condition(began + 31)
    assert silent.level is Level.WRONG
    assert "31 s" in silent.message
    assert link.condition(began + 40).kind == silent.kind
    assert link.condition(began + 40).message != silent.message
    time.now += 35
    hear(link, DAMAGED, pipeline)
    late = link.condition()
    assert late.level is Level.WRONG
    assert late.kind != silent.kind
    assert "35 s" in late.message
    assert link.last_reject in late.message


def test_a_source_that_was_opened_again_gets_new_time(link: Link, time: Time) -> None:
    hear(link, GOOD)
    time.now += 1000
    link.happened(SourceEvent(Happened.OPENED, "open"))
    assert link.condition(time.now + 29).level is Level.WAITING
    assert link.condition(time.now + 31).level is Level.WRONG


def test_the_end_is_good_if_there_was_a_frame(link: Link, time: Time) -> None:
    hear(link, GOOD)
    link.ended()
    assert link.condition(time.now + 1000).level is Level.WELL
    empty = Link("x.hex", "file:x.hex", time)
    hear(empty, DAMAGED * 2)
    empty.ended()
    condition = empty.condition(time.now + 1000)
    assert condition.level is Level.WRONG
    assert "x.hex" in condition.message
    assert empty.last_reject
    assert empty.last_reject in condition.message


# --- ages and meters --------------------------------------------------------------------------------------------------


def test_ages(link: Link, time: Time) -> None:
    link.read("A")
    time.now += 12
    assert link.reading_ages() == {"A": 12}
    assert link.message_age() == 12  # since the start, without a frame
    hear(link, all_frames()[0])
    assert link.message_age() == 0


NOW = 1_790_000_000_000


def test_an_age_continues_after_a_restart_until_the_meter_sends_again(link: Link, time: Time) -> None:
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


def test_a_time_in_the_future_is_no_age(link: Link) -> None:
    """The clock of this computer is wrong now, or was wrong then."""
    ages = ReadingAges({"A": NOW})
    assert ages.of([link], NOW - 60_001) == {}
    assert ages.of([link], NOW - 60_000) == {"A": 0}
    assert ages.of([link], NOW + 1000) == {"A": 1}


def test_a_meter_that_was_replaced_is_not_missed(link: Link, time: Time) -> None:
    other = Link("ttyUSB1", "/dev/ttyUSB1", time)
    other.expect("C", named=True)
    link.expect("A", named=True)
    ages = ReadingAges({"A": NOW - 60_000, "C": NOW - 60_000})
    link.read("B")
    assert ages.of([link, other], NOW) == {"B": 0, "C": 60}
    time.now += 10
    link.read("A")
    assert ages.of([link, other], NOW) == {"A": 0, "C": 60}
    assert set(link.snapshot()["reading_age_s"]) == {"A", "B"}, "the status has both"
    link.forget("A")
    ages.forget("C")
    assert ages.of([link, other], NOW) == {}


def test_faults(link: Link, time: Time) -> None:
    def status(age: float | None, influx: object) -> dict[str, object]:
        return {"sources": [link.snapshot()], "outbox": {"oldest_age_s": age}, "influx": influx}

    assert faults(status(None, None)) == []
    time.now += 301
    (fault,) = faults(status(None, None))
    assert "ttyUSB0" in fault
    assert "301 s" in fault
    hear(link, all_frames()[0])
    assert faults(status(601, None)) == []  # without an InfluxDB they have to wait
    (fault,) = faults(status(601, {"state": "waiting", "words": "connection refused"}))
    assert "connection refused" in fault


def test_the_status_keeps_its_keys(link: Link) -> None:
    """Scripts read it, and `check` of another version."""
    hear(link, GOOD + ENCRYPTED)
    assert {"name", "source", "state", "words", "reconnects", "rejects", "reading_age_s"} <= link.snapshot().keys()
    numbers = {key: link.snapshot()[key] for key in ("octets", "frames", "readings", "unread", "frame_age_s")}
    size = len(GOOD + ENCRYPTED)
    assert numbers == {"octets": size, "frames": 2, "readings": 0, "unread": 1, "frame_age_s": 0}


def test_the_memory_of_this_process_is_known() -> None:
    assert 5_000_000 < resident_size() < 2_000_000_000
