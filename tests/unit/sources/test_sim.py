"""`sim:` as a source: its URL, its pace, backfill and restart."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest

from exporter.meters import interpret
from exporter.model.obis import describe
from exporter.protocol.apdu import decode
from exporter.protocol.hdlc import Deframer, Frame
from exporter.sources.contract import Chunk, Happened, SourceError, SourceEvent
from exporter.sources.sim import Pace, SimSource

NOW = datetime(2026, 11, 22, 16, 59, 55, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Time:
    """A clock that moves only when the source waits, or when a test sets it."""

    def __init__(self, now: datetime = NOW) -> None:
        self.now, self.elapsed, self.waited = now, 0.0, 0
        self.stop_at: float | None = None

    def pace(self) -> Pace:
        return Pace(clock=lambda: self.now, monotonic=lambda: self.elapsed, wait=self._wait)

    def _wait(self, stop: threading.Event, seconds: float) -> bool:
        assert seconds >= 0
        self.waited += seconds > 0
        self.elapsed += seconds
        self.now += timedelta(seconds=seconds)
        if self.stop_at is not None and self.elapsed >= self.stop_at:
            stop.set()
        return stop.is_set()


def ignore(_: SourceEvent) -> None:
    pass


def chunks(url: str, seconds: float = 60, time: Time | None = None) -> list[Chunk]:
    time = time or Time()
    source = SimSource.from_url(url, until=time.now + timedelta(seconds=seconds), pace=time.pace())
    return list(source.chunks(threading.Event(), ignore))


def received(found: list[Chunk]) -> list[datetime]:
    return [chunk.received for chunk in found if chunk.received is not None]


@pytest.mark.parametrize(
    ("url", "name", "meter_id", "meter_type"),
    [
        ("sim:", "kamstrup", "SIMULATED-KAMSTRUP-1", b"6841121BN243101040"),
        ("sim:?phases=1", "kamstrup", "SIMULATED-KAMSTRUP-1", b"6861111BN242101040"),
        ("sim:kamstrup", "kamstrup", "SIMULATED-KAMSTRUP-1", b"6841121BN243101040"),
        ("SIM:Kamstrup", "kamstrup", "SIMULATED-KAMSTRUP-1", b"6841121BN243101040"),
        ("sim:aidon?phases=3&net=it&seed=42", "aidon", "SIMULATED-AIDON-42", b"6525"),
        ("sim:kaifa?net=IT", "kaifa", "SIMULATED-KAIFA-1", b"MA304H3E"),
        ("sim:kaifa?seed=0&speed=60&backfill=1&solar=1", "kaifa", "SIMULATED-KAIFA-0", b"MA304H4"),
    ],
)
def test_urls(url: str, name: str, meter_id: str, meter_type: bytes) -> None:
    source = SimSource.from_url(url)
    assert (source.name, source.live, source.meter.id, source.meter.type) == (name, True, meter_id, meter_type)
    assert source.speed == (60 if "speed" in url else 1)
    assert source.backfill is ("backfill" in url)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("sim:iskra", "sim:kamstrup, sim:aidon or sim:kaifa"),
        ("sim:kaifa?phase=3", "phases, net, seed, speed, backfill, solar and overload"),
        ("sim:kaifa?phases=2", "1 or 3"),
        ("sim:kaifa?net=TT", "TN or IT"),
        ("sim:kaifa?seed=-1", "0 to 4294967295"),
        ("sim:kaifa?seed=4294967296", "seed is a whole number"),
        ("sim:kaifa?seed=", "seed is a whole number"),
        ("sim:kaifa?speed=0", "above 0, up to 100000"),
        ("sim:kaifa?speed=nan", "speed is a number"),
        ("sim:kaifa?speed=fast", "speed is a number"),
        ("sim:kaifa?backfill=yes", "backfill is 0 or 1"),
        ("sim:kaifa?solar=2", "solar is 0 or 1"),
        ("sim:kaifa?overload=L4", "L1, L2 or L3"),
        ("sim:kaifa?overload=", "overload is L1, L2 or L3"),
        ("sim:kaifa?overload=L2&phases=1", "phases=1"),
        ("sim:kaifa?seed=1&seed=2", "twice"),
        ("simulated", "sim:kamstrup"),
    ],
)
def test_wrong_urls_raise_with_what_is_allowed(url: str, part: str) -> None:
    with pytest.raises(SourceError) as error:
        SimSource.from_url(url)
    assert part in str(error.value)


def test_frames_come_when_they_are_due() -> None:
    time = Time()
    source = SimSource.from_url("sim:kamstrup", pace=time.pace())
    seen = []
    for chunk in islice(source.chunks(threading.Event(), ignore), 12):
        assert chunk.received is not None
        assert abs(time.now - chunk.received) < timedelta(milliseconds=1)
        seen.append(chunk)
        (frame,) = Deframer().feed(chunk.data)
        assert isinstance(frame, Frame)
    gaps = [round((b - a).total_seconds()) for a, b in pairwise(received(seen))]
    assert gaps == [5, 5, *[10] * 9]  # xx:00:00, the hourly list at xx:00:05, xx:00:10, ...


def test_a_faster_meter_has_its_own_time() -> None:
    time = Time()
    found = chunks("sim:aidon?speed=100", 600, time)
    assert time.elapsed == pytest.approx(6, abs=0.2)
    assert found == chunks("sim:aidon", 600)
    assert received(found)[-1] - NOW > timedelta(seconds=597)


@pytest.mark.usefixtures("own_households")
def test_restart_gives_the_same_frames() -> None:
    first = chunks("sim:kaifa?seed=5", 120)
    later = chunks("sim:kaifa?seed=5", 60, Time(NOW + 60 * SECOND))
    assert later == [chunk for chunk in first if chunk.received and chunk.received > NOW + 60 * SECOND]
    assert chunks("sim:kaifa?seed=6", 120) != first


def test_backfill_comes_first_without_waiting_and_without_a_gap() -> None:
    time = Time()
    found = chunks("sim:aidon?backfill=1", 30, time)
    times = received(found)
    assert times == sorted(set(times))
    assert times[0] < datetime(2026, 10, 1, 0, 1, tzinfo=ZoneInfo("Europe/Oslo"))
    past = [at for at in times if at <= NOW]
    assert len(past) > 17_000
    assert time.waited == len(times) - len(past)  # it waits only for the present
    live = chunks("sim:aidon", 30)
    assert found[-len(live) :] == live
    assert NOW - past[-1] < 10 * SECOND


@pytest.mark.usefixtures("own_households")
def test_backfill_agrees_with_what_was_live() -> None:
    live = chunks("sim:kamstrup", 600)
    backfill = chunks("sim:kamstrup?backfill=1", 0, Time(NOW + timedelta(hours=1)))
    assert set(live) <= set(backfill)


def test_frames_that_become_due_during_a_slow_backfill_are_not_lost() -> None:
    time = Time()
    source = SimSource.from_url("sim:kamstrup?backfill=1", until=NOW + timedelta(minutes=10), pace=time.pace())
    times = []
    for n, chunk in enumerate(source.chunks(threading.Event(), ignore)):
        if n == 5_000:
            time.now += timedelta(minutes=5)  # the reader of the chunks is slow
        assert chunk.received is not None
        times.append(chunk.received)
    live = received(chunks("sim:kamstrup", 600))
    assert times[-len(live) :] == live


def test_stop_ends_the_wait() -> None:
    time, stop = Time(), threading.Event()
    time.stop_at = 25.0
    source = SimSource.from_url("sim:kamstrup", pace=time.pace())
    assert len(list(source.chunks(stop, ignore))) == 3
    assert list(source.chunks(stop, ignore)) == []
    backfilling = SimSource.from_url("sim:kamstrup?backfill=1", pace=time.pace())
    assert list(backfilling.chunks(stop, ignore)) == []


@pytest.mark.parametrize("jump", [timedelta(days=400), -timedelta(days=400), timedelta(minutes=2)])
def test_a_clock_that_was_set_is_followed(jump: timedelta) -> None:
    time = Time()
    source = SimSource.from_url("sim:kamstrup", pace=time.pace())
    found = source.chunks(threading.Event(), ignore)
    next(found)
    time.now += jump
    after = next(found).received
    assert after is not None
    assert timedelta() < after - (NOW + jump) < 20 * SECOND


def currents(found: list[Chunk]) -> dict[str, list[tuple[float, float]]]:
    """Phase -> seconds since NOW and A, of each list that has currents."""
    measured_currents: dict[str, list[tuple[float, float]]] = {"L1": [], "L2": [], "L3": []}
    for chunk in found:
        assert chunk.received is not None
        (frame,) = Deframer().feed(chunk.data)
        assert isinstance(frame, Frame)
        for measured in interpret(decode(frame.content)).measurements:
            quantity = describe(measured.obis)
            if quantity is not None and quantity.name == "current":
                measured_currents[quantity.phase].append(((chunk.received - NOW).total_seconds(), measured.value))
    return measured_currents


def is_over(seconds: float) -> bool:
    """NOW is 5 s before a slot of 10 s, with which the overload begins."""
    return 5 < seconds < 305


@pytest.mark.parametrize("maker", ["kamstrup", "aidon", "kaifa"])
@pytest.mark.parametrize(
    ("options", "over"),
    [("overload=L2", "L2"), ("overload=l1&phases=1", "L1"), ("net=IT&overload=L1", "L1"), ("net=IT&overload=L2", "L3")],
)
def test_an_overload_begins_with_the_first_live_frame_and_ends(maker: str, options: str, over: str) -> None:
    for url in (f"sim:{maker}?{options}", f"sim:{maker}?speed=60&{options}"):
        for phase, measured in currents(chunks(url, 600)).items():
            for seconds, ampere in measured:
                assert (ampere > 63) == (phase == over and is_over(seconds)), (phase, seconds)
            assert measured or phase != over


@pytest.mark.rare
def test_an_overload_begins_after_the_backfill_and_comes_once() -> None:
    time = Time()
    url = "sim:kamstrup?backfill=1&overload=L3"
    source = SimSource.from_url(url, until=NOW + timedelta(minutes=20), pace=time.pace())
    slow = timedelta(seconds=30)
    found = []
    for n, chunk in enumerate(source.chunks(threading.Event(), ignore)):
        if n == 5_000:
            time.now += slow
        found.append(chunk)
    past = [chunk for chunk in found[:-200] if chunk.received and chunk.received < NOW]
    assert len(past) > 17_000
    assert max(ampere for _, ampere in currents(past[::10])["L3"]) < 63, "an overload lasts longer than ten lists"
    over = [seconds for seconds, ampere in currents(found[len(past) :])["L3"] if ampere > 63]
    assert (min(over), max(over)) == pytest.approx((36, 326), abs=1)
    time.now = NOW
    again = currents(list(source.chunks(threading.Event(), ignore))[len(past) :])["L3"]
    assert [seconds for seconds, ampere in again if ampere > 63] == over, "not a second time"


def test_the_report_says_what_is_simulated() -> None:
    events: list[SourceEvent] = []
    source = SimSource.from_url("sim:kaifa?speed=60", until=NOW, pace=Time().pace())
    assert list(source.chunks(threading.Event(), events.append)) == []
    assert [event.what for event in events] == [Happened.OPENED]
    assert "SIMULATED-KAIFA-1" in events[0].message and "60 times" in events[0].message
    events.clear()
    source = SimSource.from_url("sim:?overload=l2", until=NOW, pace=Time().pace())
    assert list(source.chunks(threading.Event(), events.append)) == []
    assert "SIMULATED-KAMSTRUP-1" in events[0].message and "L2" in events[0].message
