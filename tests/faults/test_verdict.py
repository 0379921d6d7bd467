"""The verdict finds what is wrong. Without this, a thousand rounds with nothing wrong prove nothing."""

from __future__ import annotations

import pytest

from exporter.sources.serial.port import MAX_READ
from tests.e2e.truth import HOUR, point
from tests.faults.meter import KILLED, STOPPED, UNPLUGGED, Ledger, Sent, Session
from tests.faults.verdict import EARLY_MS, LATE_MS, Verdict, judge
from tests.support.influx_server import Point

METER = "7012345678901234"
BEGAN = 1_795_385_000_000
SIZE = 100


def sent(n: int) -> Sent:
    """The nth frame, of 100 bytes and 20 ms; every third has registers."""
    values = {"1-0:1.7.0": 1000.0 + n, "1-0:31.7.0": 2.5}
    if n % 3 == 0:
        values |= {"1-0:1.8.0": 10.0 * (1000 + n), "1-0:2.8.0": 7.0}
    return Sent(1000 + n, values, BEGAN + 20.0 * n, BEGAN + 20.0 * n + 19, SIZE * (n + 1))


def points(one: Sent, time: float | None = None, register_time: float | None = None) -> set[Point]:
    """Its points."""
    at = int(one.done + 1 if time is None else time)
    of_registers = int(at if register_time is None else register_time)
    return {point(obis, METER, of_registers if ".8." in obis else at, value) for obis, value in one.values.items()}


FRAMES = [sent(n) for n in range(12)]
ALL = {p for one in FRAMES for p in points(one)}


def verdict(found: set[Point], how: str | None = None, handed: int | None = None, **ledger: object) -> Verdict:
    """The verdict on one session with all frames."""
    kept = Ledger(METER, [Session(list(FRAMES), how, handed)])
    for name, value in ledger.items():
        setattr(kept, name, value)
    return judge(kept, found)


def without(*numbers: int) -> set[Point]:
    """The points of all other frames."""
    return ALL - {p for n in numbers for p in points(FRAMES[n])}


@pytest.mark.parametrize("how", [None, KILLED, STOPPED, UNPLUGGED])
def test_nothing_is_wrong_if_all_is_found(how: str | None) -> None:
    result = verdict(ALL, how, None if how is None else SIZE * 12)
    assert not result.wrong
    assert result.counts["found"] == result.counts["sent"] == 12
    assert result.counts["points found"] == len(ALL)
    assert result.latest_ms == 1


@pytest.mark.parametrize("how", [None, KILLED, STOPPED, UNPLUGGED])
def test_a_frame_in_the_middle_is_missing_however_the_session_ended(how: str | None) -> None:
    result = verdict(without(5), how, None if how is None else SIZE * 12)
    assert result.counts["missing"] == 1
    assert result.wrong


@pytest.mark.parametrize(("how", "lost"), [(KILLED, 0), (STOPPED, 2), (UNPLUGGED, 2), (None, 2)])
def test_only_a_kill_may_lose_the_last_frames(how: str | None, lost: int) -> None:
    result = verdict(without(10, 11), how, None if how is None else SIZE * 12)
    assert result.counts["missing"] == lost
    assert result.counts["read and not kept when killed"] == 2 - lost
    assert bool(result.wrong) == bool(lost)


def test_a_kill_loses_at_most_one_read() -> None:
    assert not verdict(without(10, 11), KILLED, FRAMES[10].end + MAX_READ - 1).wrong
    assert verdict(without(10, 11), KILLED, FRAMES[10].end + MAX_READ).counts["missing"] == 2


def test_frames_that_the_kernel_still_had_are_counted_and_must_not_be_found() -> None:
    result = verdict(without(10, 11), STOPPED, SIZE * 11 - 1)
    assert not result.wrong
    assert result.counts["sent after SIGTERM and not read any more"] == 2
    assert verdict(ALL, STOPPED, SIZE * 11 - 1).counts["unknown"] == 2


def test_one_missing_value_is_reported() -> None:
    (current,) = (p for p in points(FRAMES[4]) if p.measurement == "current")
    result = verdict(ALL - {current})
    assert result.counts["missing"] == 1
    assert "1-0:31.7.0" in result.wrong[0]


@pytest.mark.parametrize("later", [1, 86_400_000])
def test_a_second_time_is_reported(later: int) -> None:
    assert verdict(ALL | points(FRAMES[4], FRAMES[4].done + 1 + later)).counts["doubled"] == 1


def test_points_that_were_not_sent_are_reported() -> None:
    assert verdict(ALL | {point("1-0:1.7.0", METER, BEGAN, 5.0)}).counts["unknown"] == 1
    assert verdict(ALL | {point("1-0:3.7.0", METER, BEGAN, 5.0)}).counts["unknown"] == 1
    damaged = {FRAMES[3].number}
    kept = Ledger(METER, [Session(FRAMES[:3] + FRAMES[4:])], damaged=damaged)
    assert judge(kept, ALL).counts["unknown"] > 0
    assert not judge(kept, without(3)).wrong


def test_unread_frames_may_be_found_but_only_whole() -> None:
    kept = Ledger(METER, [Session(FRAMES[:-1])], unread={FRAMES[-1].number: FRAMES[-1]})
    assert not judge(kept, ALL).wrong
    assert not judge(kept, without(11)).wrong
    half = without(11) | {p for p in points(FRAMES[11]) if p.measurement == "active_power"}
    assert judge(kept, half).counts["missing"] == 1


@pytest.mark.parametrize(
    ("time", "wrong"),
    [
        (FRAMES[4].begun - EARLY_MS, False),
        (FRAMES[4].begun - EARLY_MS - 1, True),
        (FRAMES[4].done + LATE_MS, False),
        (FRAMES[4].done + LATE_MS + 1, True),
    ],
)
def test_an_impossible_time_is_wrong(time: float, wrong: bool) -> None:
    result = verdict(without(4) | points(FRAMES[4], time))
    assert result.counts["wrong time"] == wrong


def test_a_frozen_exporter_may_be_late() -> None:
    frozen_for = 60_000
    late = FRAMES[4].done + LATE_MS + frozen_for
    found = without(4) | points(FRAMES[4], late)
    kept = Ledger(METER, [Session(list(FRAMES))])
    assert not judge(kept, found, [(FRAMES[4].begun, FRAMES[4].done + frozen_for)]).wrong
    assert judge(kept, found, [(FRAMES[4].begun, FRAMES[4].done + frozen_for - 1000)]).counts["wrong time"] == 1


def test_registers_may_have_the_time_of_the_full_hour_and_no_other() -> None:
    hour = BEGAN + HOUR - BEGAN % HOUR
    late = Sent(
        2000, dict(FRAMES[3].values) | {"1-0:1.7.0": 2000.0, "1-0:1.8.0": 20000.0}, hour + 9e3, hour + 10e3, 9999
    )
    kept = Ledger(METER, [Session([late])])
    assert not judge(kept, points(late, hour + 10_001, hour)).wrong
    assert judge(kept, points(late, hour + 10_001, hour + 1)).counts["wrong time"] == 1
    assert judge(kept, points(late, hour + 10_001, hour - HOUR)).counts["wrong time"] == 1
    assert judge(kept, points(late, hour + 10_001, hour) | points(late, hour + 10_001)).counts["doubled"] == 1
