"""The judge finds what is wrong: without that, a thousand rounds with nothing wrong say nothing."""

from __future__ import annotations

import pytest

from exporter.sources.serial.port import MAX_READ
from tests.e2e.truth import HOUR, point
from tests.faults.meter import KILLED, STOPPED, UNPLUGGED, Ledger, Sent, Session
from tests.faults.verdict import EARLY_MS, LATE_MS, Verdict, judge
from tests.support.influx_server import Point

METER = "7012345678901234"
BEGAN = 1_795_385_000_000
OCTETS = 100


def sent(n: int) -> Sent:
    """The nth frame of 100 octets and 20 ms; every third has registers."""
    values = {"1-0:1.7.0": 1000.0 + n, "1-0:31.7.0": 2.5}
    if n % 3 == 0:
        values |= {"1-0:1.8.0": 10.0 * (1000 + n), "1-0:2.8.0": 7.0}
    return Sent(1000 + n, values, BEGAN + 20.0 * n, BEGAN + 20.0 * n + 19, OCTETS * (n + 1))


def points(one: Sent, time: float | None = None, register_time: float | None = None) -> set[Point]:
    """What it becomes."""
    at = int(one.done + 1 if time is None else time)
    of_registers = int(at if register_time is None else register_time)
    return {point(obis, METER, of_registers if ".8." in obis else at, value) for obis, value in one.values.items()}


FRAMES = [sent(n) for n in range(12)]
ALL = {p for one in FRAMES for p in points(one)}


def verdict(found: set[Point], how: str | None = None, handed: int | None = None, **ledger: object) -> Verdict:
    """Of one session with all frames."""
    kept = Ledger(METER, [Session(list(FRAMES), how, handed)])
    for name, value in ledger.items():
        setattr(kept, name, value)
    return judge(kept, found)


def without(*numbers: int) -> set[Point]:
    """All but some frames."""
    return ALL - {p for n in numbers for p in points(FRAMES[n])}


@pytest.mark.parametrize("how", [None, KILLED, STOPPED, UNPLUGGED])
def test_all_there_is_well(how: str | None) -> None:
    told = verdict(ALL, how, None if how is None else OCTETS * 12)
    assert not told.wrong
    assert told.counts["found"] == told.counts["sent"] == 12
    assert told.counts["points found"] == len(ALL)
    assert told.latest_ms == 1


@pytest.mark.parametrize("how", [None, KILLED, STOPPED, UNPLUGGED])
def test_a_hole_is_missing_however_it_ended(how: str | None) -> None:
    told = verdict(without(5), how, None if how is None else OCTETS * 12)
    assert told.counts["missing"] == 1
    assert told.wrong


@pytest.mark.parametrize(("how", "lost"), [(KILLED, 0), (STOPPED, 2), (UNPLUGGED, 2), (None, 2)])
def test_only_a_kill_may_cost_the_last_ones(how: str | None, lost: int) -> None:
    told = verdict(without(10, 11), how, None if how is None else OCTETS * 12)
    assert told.counts["missing"] == lost
    assert told.counts["in hand when killed"] == 2 - lost
    assert bool(told.wrong) == bool(lost)


def test_a_kill_costs_no_more_than_one_read() -> None:
    assert not verdict(without(10, 11), KILLED, FRAMES[10].end + MAX_READ - 1).wrong
    assert verdict(without(10, 11), KILLED, FRAMES[10].end + MAX_READ).counts["missing"] == 2


def test_what_the_kernel_still_had_is_counted_apart_and_must_not_be_there() -> None:
    told = verdict(without(10, 11), STOPPED, OCTETS * 11 - 1)
    assert not told.wrong
    assert told.counts["sent after SIGTERM and not handed over any more"] == 2
    assert verdict(ALL, STOPPED, OCTETS * 11 - 1).counts["strange"] == 2


def test_one_value_that_is_missing_is_found() -> None:
    (current,) = (p for p in points(FRAMES[4]) if p.measurement == "current")
    told = verdict(ALL - {current})
    assert told.counts["missing"] == 1
    assert "1-0:31.7.0" in told.wrong[0]


@pytest.mark.parametrize("later", [1, 86_400_000])
def test_a_second_time_is_found(later: int) -> None:
    assert verdict(ALL | points(FRAMES[4], FRAMES[4].done + 1 + later)).counts["doubled"] == 1


def test_what_was_not_sent_is_found() -> None:
    assert verdict(ALL | {point("1-0:1.7.0", METER, BEGAN, 5.0)}).counts["strange"] == 1
    assert verdict(ALL | {point("1-0:3.7.0", METER, BEGAN, 5.0)}).counts["strange"] == 1
    damaged = {FRAMES[3].number}
    kept = Ledger(METER, [Session(FRAMES[:3] + FRAMES[4:])], damaged=damaged)
    assert judge(kept, ALL).counts["strange"] > 0
    assert not judge(kept, without(3)).wrong


def test_the_unheard_may_be_there_but_whole() -> None:
    kept = Ledger(METER, [Session(FRAMES[:-1])], unheard={FRAMES[-1].number: FRAMES[-1]})
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
def test_a_time_at_which_it_cannot_have_come_is_wrong(time: float, wrong: bool) -> None:
    told = verdict(without(4) | points(FRAMES[4], time))
    assert told.counts["wrong time"] == wrong


def test_a_frozen_exporter_may_be_late() -> None:
    frozen_for = 60_000
    late = FRAMES[4].done + LATE_MS + frozen_for
    found = without(4) | points(FRAMES[4], late)
    kept = Ledger(METER, [Session(list(FRAMES))])
    assert not judge(kept, found, [(FRAMES[4].begun, FRAMES[4].done + frozen_for)]).wrong
    assert judge(kept, found, [(FRAMES[4].begun, FRAMES[4].done + frozen_for - 1000)]).counts["wrong time"] == 1


def test_registers_may_carry_the_full_hour_near_by_and_no_other_time() -> None:
    hour = BEGAN + HOUR - BEGAN % HOUR
    late = Sent(
        2000, dict(FRAMES[3].values) | {"1-0:1.7.0": 2000.0, "1-0:1.8.0": 20000.0}, hour + 9e3, hour + 10e3, 9999
    )
    kept = Ledger(METER, [Session([late])])
    assert not judge(kept, points(late, hour + 10_001, hour)).wrong
    assert judge(kept, points(late, hour + 10_001, hour + 1)).counts["wrong time"] == 1
    assert judge(kept, points(late, hour + 10_001, hour - HOUR)).counts["wrong time"] == 1
    assert judge(kept, points(late, hour + 10_001, hour) | points(late, hour + 10_001)).counts["doubled"] == 1
