"""What takes a minute of real time: simulated meters on real ports, outages, waiting (scenarios in minute.py)."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.harness import words
from tests.e2e.minute import SECONDS, Minute, Result
from tests.e2e.truth import assert_same, of_exporter, of_meters, point, points_of_lists, times_of
from tests.support.patience import quiet_seconds

pytestmark = pytest.mark.slow


def result_of(minute: Minute, name: str) -> Result:
    result = minute.result(name)
    assert isinstance(result, Result)
    return result


def test_all_points_of_three_meters_arrive_once_with_the_right_tags_units_and_times(minute: Minute) -> None:
    steady = result_of(minute, "steady")
    assert [len(sent.frames) >= count for sent, count in zip(steady.sent, (6, 22, 28), strict=True)] == [True] * 3
    wanted = set()
    late = []
    for sent in steady.sent:
        wanted |= points_of_lists(steady.points, sent.meter_id, sent.frames)
        for time, begun, done in zip(times_of(steady.points, sent.meter_id), sent.begun, sent.done, strict=True):
            assert begun < time
            late.append(time - done)
    assert quiet_seconds(max(late) / 1000) < 2
    registers = [p for p in wanted if p.measurement in ("active_energy", "reactive_energy")]
    assert len(registers) >= 4 * len(steady.sent[0].frames)
    assert_same(of_meters(steady.points), wanted)
    print(f"\nreceived after the last byte was written: {max(late)} ms at most, {sorted(late)[len(late) // 2]} median")
    print(f"SIGTERM to end: {steady.stopped_in:.2f} s")


def test_the_own_points_of_the_exporter_in_that_minute(minute: Minute) -> None:
    steady = result_of(minute, "steady")
    own = of_exporter(steady.points)
    assert {p.measurement for p in own} == {"exporter", "event", "reading_age"}
    counts = [dict(p.fields) for p in sorted(own, key=lambda p: p.time) if p.measurement == "exporter"]
    last = counts[-1]
    assert last["frames"] == last["readings"] == sum(len(sent.frames) for sent in steady.sent)
    assert (
        last["rejects_noise"] + last["rejects_hcs"] + last["rejects_broken_off"] >= 3
    )  # each port was opened in the middle of a frame
    assert last["rejects_unread"] == last["rejects_fcs"] == last["lines_lost"] == last["lines_rejected"] == 0
    assert last["points_written"] > 0.9 * len(of_meters(steady.points))
    assert last["source_state"] == 1
    assert 20e6 < last["memory"] < 80e6
    assert len(counts) >= SECONDS / 10
    ages = [p for p in own if p.measurement == "reading_age"]
    assert {dict(p.tags)["meter_id"] for p in ages} == {sent.meter_id for sent in steady.sent}
    assert all(0 <= quiet_seconds(value) < 15 for p in ages for _, value in p.fields)
    events = sorted((p for p in own if p.measurement == "event"), key=lambda p: p.time)
    assert [dict(p.tags) for p in events] == [{"instance": steady.instance, "kind": kind} for kind in ("start", "stop")]
    assert steady.stopped_in < 5
    assert "nothing is left unsent" in words(steady.log)
    assert not [line for line in steady.log if " WARNING " in line and "no frame in" not in line]


def test_nothing_is_lost_while_influxdb_is_stopped_and_killed(minute: Minute) -> None:
    outage = result_of(minute, "outage")
    wanted = set()
    for sent in outage.sent:
        assert sum(map(len, sent.frames)) > 0.95 * SECONDS * 240
        wanted |= points_of_lists(outage.points, sent.meter_id, sent.frames)
        times = times_of(outage.points, sent.meter_id)
        assert all(begun < time for time, begun in zip(times, sent.begun, strict=True))
        late = max(time - done for time, done in zip(times, sent.done, strict=True))
        assert quiet_seconds(late / 1000) < 2
    assert_same(of_meters(outage.points), wanted)
    log = words(outage.log)
    assert "connection refused" in log
    assert len([line for line in outage.log if " INFO InfluxDB " in line and "again" in line]) >= 2
    assert "nothing is left unsent" in log
    print(f"\n{len(wanted)} points; SIGTERM to end: {outage.stopped_in:.2f} s")


def test_lists_without_an_id_wait_a_minute_for_one(minute: Minute) -> None:
    nameless = result_of(minute, "nameless")
    (sent,) = nameless.sent
    times = sorted(p.time for p in nameless.points if p.measurement == "active_power")
    assert_same(
        of_meters(nameless.points),
        {
            *(point("1-0:1.7.0", sent.meter_id, time, 1000.0 + n) for n, time in enumerate(times[:3])),
            point("1-0:1.7.0", "NAMED-AT-LAST", times[3], 2000.0),
        },
    )
    *done, there = sent.done
    late = max(time - at for time, at in zip(times, done, strict=False))
    assert quiet_seconds(late / 1000) < 2, "their time is when they were received"
    assert there - done[0] > 59_000
    assert quiet_seconds((there - done[0]) / 1000 - 60) < 10


def test_import_gives_up_after_a_minute_without_influxdb(minute: Minute) -> None:
    done = minute.result("patience")
    assert isinstance(done, subprocess.CompletedProcess)
    assert done.returncode == 2
    assert "connection refused" in done.stderr
    assert done.stderr.count("again") >= 2, "it tries again, and says that the file can be imported again"
