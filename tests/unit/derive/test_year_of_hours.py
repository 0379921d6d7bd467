"""A year of hourly lists, compared with the household that they come from: every hour is exact, none is made up.

The frames go through the real Pipeline. Each time that the exporter runs is a process of its own, which knows only what
was kept. The hours that must be final follow from the set of lists that were read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest

from exporter.pipeline.host_clock import HostClock
from tests.support.examples import RARE
from tests.support.years import (
    HOUR,
    HOUR_MS,
    LAG,
    MAKERS,
    OSLO,
    START,
    YEAR,
    Exporter,
    Meter,
    Sent,
    expected_hours,
    local_capacity,
    ms,
    run_through,
    up_times,
)

MINUTE = timedelta(minutes=1)
SPRING = datetime(2025, 3, 30, 1, tzinfo=UTC)
AUTUMN = datetime(2025, 10, 26, 1, tzinfo=UTC)


def hours(count: int = YEAR) -> list[datetime]:
    return [START + number * HOUR for number in range(count)]


# Days on either side of each change of the clocks.
DAYS = 15 if RARE else 6
pytestmark = pytest.mark.longer


def around_the_changes(days: int = DAYS) -> list[datetime]:
    return [hour for hour in hours() if min(abs(hour - SPRING), abs(hour - AUTUMN)) < days * 24 * HOUR]


ALWAYS = [(START - HOUR, START + 2 * YEAR * HOUR)]
"""Running all the year."""


def assert_hours(exporter: Exporter, meter: Meter, known: Iterable[int]) -> int:
    """The final hours are exactly those between the registers of `known` hours, and the sums agree with them."""
    known = set(known)
    wanted = expected_hours(meter, known)
    found = exporter.written.finals()
    assert found.keys() - wanted.keys() == set(), "hours were made up"
    assert wanted.keys() - found.keys() == set(), "hours are missing"
    assert found == wanted
    exported = exporter.written.finals("export")
    assert exported == {hour: float(meter.energy(hour)[1]) for hour in wanted}
    assert_spans(meter, found)
    assert_sums(exporter, found)
    return len(found)


def assert_spans(meter: Meter, finals: dict[int, float]) -> None:
    """The sum of hours without a gap is the difference of the registers."""
    first, total = None, 0.0
    for hour in sorted(finals):
        first = hour if first is None else first
        total += finals[hour]
        if hour + HOUR_MS not in finals:
            assert total == meter.registers(hour + HOUR_MS)[0] - meter.registers(first)[0]
            first, total = None, 0.0


def assert_sums(exporter: Exporter, finals: dict[int, float]) -> None:
    """Days, months and the capacity charge are those of the final hours."""
    for measurement, form in (("day_energy", "%Y-%m-%d"), ("month_energy", "%Y-%m")):
        sums: dict[str, float] = {}
        for hour, wh in finals.items():
            name = datetime.fromtimestamp(hour / 1000, OSLO).strftime(form)
            sums[name] = sums.get(name, 0.0) + wh
        written = exporter.written.values(measurement, "direction=import")
        assert {datetime.fromtimestamp(at / 1000, OSLO).strftime(form): wh for at, wh in written.items()} == sums
    means = exporter.written.values("capacity", "kind=mean")
    wanted = {month: mean for month, (_, mean) in local_capacity(finals).items()}
    found = {
        (at.year, at.month): wh for at, wh in ((datetime.fromtimestamp(t / 1000, OSLO), w) for t, w in means.items())
    }
    assert found == pytest.approx(wanted)


def assert_registers(exporter: Exporter, meter: Meter, known: Iterable[int]) -> None:
    """The register of every known hour has the time of that full hour."""
    found = exporter.written.values("active_energy", "direction=import")
    assert {hour: found[hour] for hour in known} == {hour: meter.registers(hour)[0] for hour in known}


def labels(lists: Iterable[Sent]) -> set[int]:
    return {one.hour for one in lists if one.hour is not None}


# The clock is right, or wrong by less than five minutes


@pytest.mark.parametrize(
    ("maker", "whole"),
    [
        ("kamstrup", False),
        ("aidon", False),
        ("kaifa", False),
        pytest.param("kamstrup", True, marks=pytest.mark.rare),
        pytest.param("kaifa", True, marks=pytest.mark.rare),
    ],
)
def test_no_hour_is_missing_if_every_list_is_read(maker: str, whole: bool) -> None:
    """A whole year, or six weeks around each change of the clocks; Kaifa has the sun. A year of Aidon comes below."""
    meter = Meter(maker, solar=maker == "kaifa")
    exporter = Exporter()
    wanted = hours() if whole else around_the_changes(21)
    lists = [meter.hourly(hour) for hour in wanted]
    run_through(exporter, lists, ALWAYS, Random(1))
    count = YEAR - 1 if whole else 2 * (2 * 21 * 24 - 1) - 2
    assert assert_hours(exporter, meter, labels(lists)) == count
    assert_registers(exporter, meter, labels(lists))
    nights = exporter.written.values("day_energy", "direction=import")
    (short,) = (at for at in nights if at <= ms(SPRING) < at + 23 * HOUR_MS)
    (long,) = (at for at in nights if at <= ms(AUTUMN) < at + 25 * HOUR_MS)
    assert min(at for at in nights if at > short) - short == 23 * HOUR_MS
    assert min(at for at in nights if at > long) - long == 25 * HOUR_MS


@pytest.mark.parametrize(
    ("maker", "minutes", "days"),
    [("kamstrup", 3, 23), ("kaifa", -3, 23), pytest.param("kamstrup", 3, 365, marks=pytest.mark.rare)],
)
def test_an_exporter_with_pauses_and_a_clock_that_is_wrong_by_three_minutes(
    maker: str, minutes: int, days: int
) -> None:
    """For three months around the changes, and for a year."""
    meter = Meter(maker, off=minutes * MINUTE, seed=9)
    exporter, random = Exporter(), Random(f"{maker} {minutes}")
    lists = [meter.hourly(hour) for hour in around_the_changes(days)]
    read = run_through(exporter, lists, up_times(random), random)
    assert 0.6 * len(lists) < len(read) < len(lists), "the exporter has pauses"
    assert 0.9 * len(read) < assert_hours(exporter, meter, labels(read)) < len(read)
    assert_registers(exporter, meter, labels(read))


def with_repeats(meter: Meter, random: Random, days: int) -> list[Sent]:
    """Aidon: sometimes the list of the hour before is sent again: instead of the right one, before it, or after it."""
    lists: list[Sent] = []
    for before, hour in pairwise([START - HOUR, *hours(24 * days)]):
        right = meter.hourly(hour)
        again = replace(meter.hourly(before), hour=None)
        chance = 0.0 if not lists else random.random()  # the first list of all is a repeat
        if chance < 0.02:
            lists += [
                replace(again, received=right.received),
                replace(right, received=right.received + 3 * MINUTE / 60),
            ]
        elif chance < 0.04:
            lists += [right, replace(again, received=right.received + 3 * MINUTE / 60)]
        elif chance < 0.06 and lists[-1].hour is not None:
            lists.append(replace(again, received=right.received))
        else:
            lists.append(right)
    return lists


@pytest.mark.parametrize("days", [100, pytest.param(365, marks=pytest.mark.rare)])
def test_aidon_repeats_a_list(days: int) -> None:
    meter = Meter("aidon", seed=3)
    exporter, random = Exporter(), Random(5)
    lists = with_repeats(meter, random, days)
    spans = up_times(random)
    assert lists[0].hour is None
    # Some restarts shortly before a repeat, as if the owner updated at half past.
    cuts = [one.received - HOUR / 2 for one in lists if one.hour is None][::3]
    spans = [
        part for start, end in spans for part in pairwise([start, *(cut for cut in cuts if start < cut < end), end])
    ]
    read = run_through(exporter, lists, spans, random)
    assert read[0].hour is None
    assert sum(one.hour is None for one in read) > 0.8 * days
    assert assert_hours(exporter, meter, labels(read)) > 15 * days
    assert_registers(exporter, meter, labels(read))


# The clock is wrong, or shows another time


YEAR_2000 = datetime(2000, 1, 1, tzinfo=UTC) - START


def test_a_clock_in_the_year_2000_that_runs() -> None:
    """Its hours begin 100 s before the true ones: registers within five minutes of a full hour belong to it.

    Its night with an hour twice is that of the year 2000.
    """
    meter = Meter("kaifa", off=YEAR_2000 + timedelta(seconds=100), seed=2)
    exporter, random = Exporter(), Random(11)
    lists = [meter.hourly(hour) for hour in around_the_changes(30)]
    read = run_through(exporter, lists, up_times(random), random)
    assert assert_hours(exporter, meter, labels(read)) > 2000


@pytest.mark.parametrize(("minutes", "known"), [(-4, True), (20, False), (-6, False)])
def test_a_clock_in_the_year_2000_whose_hours_begin_at_other_times(minutes: int, known: bool) -> None:
    meter = Meter("kamstrup", off=YEAR_2000 + minutes * MINUTE, seed=2)
    exporter = Exporter()
    lists = [meter.hourly(hour) for hour in around_the_changes()]
    run_through(exporter, lists, ALWAYS, Random(1))
    assert_hours(exporter, meter, labels(lists) if known else ())
    if not known:
        found = exporter.written.values("active_energy", "direction=import")
        assert found.keys() == {int(one.received.timestamp() * 1000) for one in lists}, "as received"


def between(start: datetime, end: datetime) -> set[int]:
    return {ms(hour) for hour in hours() if start <= hour < end}


END = START + YEAR * HOUR
WRONG_BY_AN_HOUR: dict[tuple[str, int], set[int]] = {
    # It always shows UTC: one list is needed to learn that.
    ("kamstrup", -1): between(START + HOUR, END),
    # Taken as civil time, it is right in summer. In winter, no rule fits.
    ("kamstrup", 1): between(SPRING, AUTUMN),
    # UTC in winter, standard time in summer. It changes one hour late; in autumn it shows an hour twice.
    ("kaifa", -1): between(START + HOUR, END) - {ms(SPRING + HOUR), ms(AUTUMN + HOUR), ms(AUTUMN + 2 * HOUR)},
    # Right only once, in the hour that civil time has twice.
    ("kaifa", 1): {ms(AUTUMN - HOUR)},
}


@pytest.mark.parametrize(("maker", "off"), WRONG_BY_AN_HOUR)
def test_a_clock_that_is_wrong_by_an_hour(maker: str, off: int) -> None:
    """A slow clock fits another rule; a fast one does so only in summer. If no rule fits, no hour is made up."""
    meter = Meter(maker, off=off * HOUR, seed=6)
    exporter = Exporter()
    lists = [meter.hourly(hour) for hour in [*hours(100), *around_the_changes()]]
    run_through(exporter, lists, ALWAYS, Random(1))
    known = WRONG_BY_AN_HOUR[maker, off] & labels(lists)
    assert_hours(exporter, meter, known)
    found = exporter.written.values("active_energy", "direction=import")
    assert {one for one in found if one % HOUR_MS == 0} == known, "every other register is as received"


def test_a_meter_that_changes_how_it_shows_time() -> None:
    """Standard time, from May civil time, from September UTC: each change costs the first list after it."""
    may, september = datetime(2025, 5, 3, 14, tzinfo=UTC), datetime(2025, 9, 9, 9, tzinfo=UTC)
    meters = [Meter("kamstrup", shows=shows, seed=8) for shows in ("standard", "civil", "utc")]
    wanted = [hour for hour in hours() if min(abs(hour - may), abs(hour - september), abs(hour - AUTUMN)) < 120 * HOUR]
    lists = [meters[(hour >= may) + (hour >= september)].hourly(hour) for hour in wanted]
    exporter, random = Exporter(), Random(4)
    spans = [(START - HOUR, may + HOUR / 2), (may + HOUR / 2, START + 2 * YEAR * HOUR)]  # a restart while it is learnt
    run_through(exporter, lists, spans, random)
    known = labels(lists) - {ms(may), ms(september)}
    assert assert_hours(exporter, meters[0], known) == 3 * (2 * 120 - 1 - 1) - 2 * 2


def test_a_meter_that_shows_another_time_than_its_maker_usually_does() -> None:
    """Kamstrup in civil time, Kaifa in standard time: right in winter; one list is needed to learn it in spring.

    (The list of 01:00 UTC in standard time shows 02:00, which civil time skips: it has the same meaning in both.)
    """
    for maker, shows, lost in (("kamstrup", "civil", SPRING), ("kaifa", "standard", SPRING + HOUR)):
        meter = Meter(maker, shows=shows, seed=8)
        lists = [meter.hourly(hour) for hour in around_the_changes()]
        exporter = Exporter()
        run_through(exporter, lists, ALWAYS, Random(1))
        assert_hours(exporter, meter, labels(lists) - {ms(lost)})


# Sweden: registers every ten seconds


def swedish_lists(meter: Meter, start: datetime, end: datetime, random: Random) -> list[Sent]:
    """Of the lists of every 10 s, those of the first half minute of an hour, and one more in it."""
    lists = []
    for hour in hours():
        if not start - HOUR < hour < end + HOUR:
            continue
        for second in (0, 10, 20, 10 * random.randrange(3, 360)):
            at = hour + timedelta(seconds=second)
            lists.append(
                Sent(at + timedelta(seconds=LAG["swedish"]), meter.frame(at, at), None if second else ms(hour))
            )
    return [one for one in lists if start < one.received <= end]


@pytest.mark.parametrize("days", [90, pytest.param(365, marks=pytest.mark.rare)])
def test_an_hour_of_a_swedish_meter_begins_with_the_first_list_in_it(days: int) -> None:
    """If the exporter starts within the first minute of an hour, or the first list is lost, there is no hour."""
    meter = Meter("swedish", seed=7)
    exporter, random = Exporter(), Random(3)
    spans, now = [], START + 5 * timedelta(seconds=3)
    while now < START + 24 * days * HOUR:
        up = timedelta(hours=random.randrange(3, 60), seconds=random.choice([5, 14, 1000]))
        spans.append((now, now + up))
        now += up + timedelta(hours=random.randrange(0, 300), seconds=random.choice([0, 10, 20]))
    spans += [(change - 30 * HOUR, change + 30 * HOUR) for change in (SPRING, AUTUMN)]
    read: list[Sent] = []
    for start, end in sorted(spans):
        lists = swedish_lists(meter, max(start, read[-1].received if read else start), end, random)
        lists = [one for one in lists if random.random() > 0.03]
        read += run_through(exporter, lists, [(start, end)], random)
    assert assert_hours(exporter, meter, labels(read)) > 2.4 * days


# The same lists from files


@pytest.mark.parametrize("maker", MAKERS)
def test_the_same_lists_as_time_stamped_hex_and_as_raw_bytes(maker: str) -> None:
    """Without time stamps, the meter's clock gives the time, also in the night with an hour twice."""
    meter = Meter(maker, seed=5)
    lists = [meter.hourly(hour) for hour in around_the_changes()]
    stamped, raw = Exporter(), Exporter()
    raw.clock = HostClock(lambda: START + 2 * YEAR * HOUR, lambda: 0.0)
    raw.start()
    for one in lists:
        stamped.read(one.frame, one.received)
        raw.read(one.frame, None)
    stamped.stop()
    raw.stop()
    assert assert_hours(stamped, meter, labels(lists)) == len(lists) - 2 == 2 * (2 * 24 * DAYS - 1) - 2
    assert raw.written.finals() == stamped.written.finals()
    assert_hours(raw, meter, labels(lists))
