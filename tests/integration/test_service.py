"""What `run` is made of, with a real outbox: what can be said of it without waiting in real time."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from exporter.config import Settings
from exporter.outbox.queue import Outbox, OutboxError
from exporter.pipeline.identity import NAMELESS_WAIT_MS
from exporter.pipeline.link import Link, LinkState
from exporter.service.metrics import exporter_fields, faults
from exporter.service.service import Service
from exporter.service.source_worker import SourceWorker
from exporter.service.status_socket import NotRunning, StatusServer, ask, socket_path
from exporter.sources.contract import Chunk, Happened, Report, Source, SourceError, SourceEvent
from tests.e2e.made import power
from tests.e2e.truth import to_ms

PAST = datetime(2026, 3, 1, 12, 0, 0, 125_000, tzinfo=UTC)


class Given:
    """A source that gives what it was given, then ends or breaks."""

    def __init__(
        self, chunks: Sequence[Chunk], *, name: str = "given", live: bool = True, error: Exception | None = None
    ) -> None:
        self.name = name
        self.live = live
        self._chunks = chunks
        self._error = error

    def chunks(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        report(SourceEvent(Happened.OPENED, f"{self.name} is open"))
        yield from self._chunks
        if self._error is not None:
            raise self._error


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "outbox.sqlite")
    yield outbox
    outbox.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(outbox=tmp_path / "outbox.sqlite")


def reader_of(source: Source, outbox: Outbox, settings: Settings) -> SourceWorker:
    return SourceWorker(source, Link(source.name, "given:"), outbox, settings)


@pytest.fixture
def now() -> datetime:
    """What was received more than a minute ago is another matter (`SourceWorker`)."""
    return datetime.now(UTC).replace(microsecond=250_000)


def chunk(octets: bytes, received: datetime) -> Chunk:
    return Chunk(octets, received)


def powers(outbox: Outbox) -> list[str]:
    """Lines of the power that is drawn, in the order in which they are to be sent."""
    batch = outbox.take(100_000, newest=False)
    return [] if batch is None else [line for line in batch.lines if line.startswith("active_power,")]


def line(meter_id: str, watts: int, received: datetime) -> str:
    return f"active_power,direction=import,meter_id={meter_id},obis=1-0:1.7.0 value={watts}.0 {to_ms(received)}"


def after(seconds: float, worker: SourceWorker) -> None:
    """What a tick brings when a list has waited so long for a name, if any waits."""
    if worker._pipeline._waiting_since is not None:
        worker._pipeline._waiting_since -= seconds
    worker.tick()


# --- lists that name no meter -----------------------------------------------------------------------------------------


def test_lists_without_a_name_wait_sixty_seconds_and_no_more(now: datetime, outbox: Outbox, settings: Settings) -> None:
    reader = reader_of(Given([]), outbox, settings)
    reader.take(chunk(power(1), now))
    reader.take(chunk(power(2), now + timedelta(seconds=1)))
    after(NAMELESS_WAIT_MS / 1000 - 5, reader)
    assert powers(outbox) == []
    after(5, reader)
    there = [line("unknown-given", 1, now), line("unknown-given", 2, now + timedelta(seconds=1))]
    assert powers(outbox) == there
    reader.take(chunk(power(3), now + timedelta(seconds=2)))  # from now on at once
    assert powers(outbox) == [*there, line("unknown-given", 3, now + timedelta(seconds=2))]


def test_they_are_named_as_the_setting_says(now: datetime, outbox: Outbox, tmp_path: Path) -> None:
    reader = reader_of(Given([]), outbox, Settings(outbox=outbox.path, meter_id="hytta"))
    reader.take(chunk(power(1), now))
    after(60, reader)
    assert powers(outbox) == [line("hytta", 1, now)]


def test_a_name_that_comes_in_time_is_theirs(now: datetime, outbox: Outbox, settings: Settings) -> None:
    reader = reader_of(Given([]), outbox, settings)
    reader.take(chunk(power(1), now))
    reader.take(chunk(power(2, b"A"), now + timedelta(seconds=1)))
    assert powers(outbox) == [line("A", 1, now), line("A", 2, now + timedelta(seconds=1))]


def test_a_capture_is_not_waited_for_by_the_clock_on_the_wall(outbox: Outbox, settings: Settings) -> None:
    reader = reader_of(Given([], live=False), outbox, settings)
    reader.take(chunk(power(1), PAST))
    after(1000, reader)
    reader.take(chunk(power(2, b"A"), PAST + timedelta(seconds=59)))
    reader.tick()
    assert powers(outbox) == [line("A", 1, PAST), line("A", 2, PAST + timedelta(seconds=59))]


def test_the_last_name_is_kept_with_the_lines_that_it_came_with(
    now: datetime, outbox: Outbox, settings: Settings
) -> None:
    reader = reader_of(Given([]), outbox, settings)
    reader.take(chunk(power(1, b"A"), now))
    # Seen from another process at once: nothing is left to be written when this one is killed.
    seen = Outbox(outbox.path, read_only=True)
    assert (seen.get_state("last_id:given"), powers(seen)) == ("A", [line("A", 1, now)])
    seen.close()
    again = reader_of(Given([]), outbox, settings)
    again.take(chunk(power(2), now + timedelta(seconds=1)))
    assert powers(outbox)[1:] == [line("A", 2, now + timedelta(seconds=1))]


def test_nameless_lists_of_two_meters_are_counted(now: datetime, outbox: Outbox, settings: Settings) -> None:
    reader = reader_of(Given([]), outbox, settings)
    for second in range(10):
        moment = now + timedelta(seconds=second)
        reader.take(chunk(power(100 + second, b"AB"[second % 2 : second % 2 + 1]), moment))
        reader.take(chunk(power(200 + second), moment + timedelta(milliseconds=500)))
    assert reader.link.counts.left_out == 8
    assert exporter_fields([reader.link], {}, {})["readings_left_out"] == 8
    assert [one for one in powers(outbox) if "value=2" in one] == [
        line("A", 200, now + timedelta(milliseconds=500)),
        line("B", 201, now + timedelta(milliseconds=1500)),
    ]


# --- into the outbox --------------------------------------------------------------------------------------------------


def test_what_is_past_goes_in_together_and_what_is_now_at_once(
    now: datetime, outbox: Outbox, settings: Settings
) -> None:
    reader = reader_of(Given([]), outbox, settings)
    for second in range(5):
        reader.take(chunk(power(second, b"A"), PAST + timedelta(seconds=second)))
    assert powers(outbox) == []
    reader.tick()
    wanted = [line("A", second, PAST + timedelta(seconds=second)) for second in range(5)]
    assert powers(outbox) == wanted
    reader.take(chunk(power(5, b"A"), PAST + timedelta(seconds=5)))
    reader.take(chunk(power(6, b"A"), now))
    assert powers(outbox) == [*wanted, line("A", 5, PAST + timedelta(seconds=5)), line("A", 6, now)]


def test_octets_that_come_in_a_burst_keep_their_order(now: datetime, outbox: Outbox, settings: Settings) -> None:
    """A chunk that holds more than can have come over a wire since the last one."""
    reader = reader_of(Given([]), outbox, settings)
    reader.take(Chunk(power(1, b"A"), now, 10 / 2400))
    soon = now + timedelta(milliseconds=3)
    reader.take(Chunk(power(2, b"A") + power(3, b"A") + power(4, b"A"), soon, 10 / 2400))
    assert powers(outbox) == [
        line("A", watts, moment)
        for watts, moment in (
            (1, now),
            (2, now + timedelta(milliseconds=1)),
            (3, now + timedelta(milliseconds=2)),
            (4, soon),
        )
    ]


def test_octets_behind_a_closing_flag_are_taken_off_its_time(now: datetime, outbox: Outbox, settings: Settings) -> None:
    reader = reader_of(Given([]), outbox, settings)
    reader.take(Chunk(power(1, b"A") + b"\x7e\xa0\x10" * 16, now, 10 / 2400))
    assert powers(outbox) == [line("A", 1, now - timedelta(milliseconds=200))]


def test_an_outbox_that_takes_nothing_is_told_and_the_reading_goes_on(
    now: datetime, outbox: Outbox, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reader = reader_of(Given([]), outbox, settings)
    with monkeypatch.context() as broken:

        def refuse(*_: object) -> None:
            raise OutboxError("the disk is full: free some room")

        broken.setattr(outbox, "append", refuse)
        reader.take(chunk(power(1, b"A"), now))
    lost = reader.link.counts.lost_lines
    assert lost >= 1
    assert f"{lost} lines are lost, since the outbox takes none: the disk is full: free some room" in caplog.text
    reader.take(chunk(power(2, b"A"), now + timedelta(seconds=1)))
    assert powers(outbox) == [line("A", 2, now + timedelta(seconds=1))]
    assert reader.link.counts.lost_lines == lost


# --- the whole service ------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The service takes SIGTERM and SIGINT for itself: pytest gets them back."""
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    yield
    for number, handler in before:
        signal.signal(number, handler)


def run(tmp_path: Path, *sources: Source) -> tuple[int, list[str]]:
    settings = Settings(outbox=tmp_path / "outbox.sqlite", source=" ".join("given:" for _ in sources))
    code = Service(settings, sources).run()
    outbox = Outbox(settings.outbox_path)
    lines = powers(outbox)
    outbox.close()
    return code, lines


def test_a_source_that_breaks_does_not_stop_the_others(
    now: datetime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Given([chunk(power(1, b"A"), now)], name="broken", error=RuntimeError("a bug"))
    code, lines = run(tmp_path, broken, Given([chunk(power(2, b"B"), now), chunk(power(3), now)], name="well"))
    assert code == 0
    assert sorted(lines) == sorted(
        [line("A", 1, now), line("B", 2, now), line("B", 3, now + timedelta(milliseconds=1))]
    )
    assert "RuntimeError: a bug" in caplog.text


def test_when_no_source_works_it_ends_with_2_and_keeps_what_it_had(now: datetime, tmp_path: Path) -> None:
    dead = Given([], name="dead", error=SourceError("/dev is a directory"))
    code, lines = run(tmp_path, dead, Given([chunk(power(1), now)], name="broken", error=RuntimeError("a bug")))
    assert (code, lines) == (2, [line("unknown-broken", 1, now)])


def test_what_has_no_time_is_counted_aloud_when_a_file_ends(
    now: datetime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chunks = [Chunk(power(1, b"A"), None), Chunk(power(2, b"A"), None), chunk(power(3, b"A"), PAST)]
    assert run(tmp_path, Given(chunks, name="raw.bin", live=False)) == (0, [line("A", 3, PAST)])
    assert "raw.bin: of 3 readings 2 had no time, and are left out: these lists have no clock" in caplog.text
    caplog.clear()
    run(tmp_path, Given(chunks[2:], name="stamped", live=False))
    assert "had no time" not in caplog.text


def test_without_a_place_for_its_socket_it_reads_all_the_same(
    now: datetime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = socket_path(tmp_path / "outbox.sqlite")
    (place / "in the way").mkdir(parents=True)
    assert run(tmp_path, Given([chunk(power(2, b"B"), now)])) == (0, [line("B", 2, now)])
    assert f"{place} cannot be listened at (Is a directory): readings are taken and sent" in caplog.text
    assert (place / "in the way").is_dir()


def test_a_place_for_its_socket_that_comes_later_is_used(
    tmp_path: Path, service_of: Callable[..., Service], caplog: pytest.LogCaptureFixture
) -> None:
    place = socket_path(tmp_path / "outbox.sqlite")
    place.mkdir()
    service = service_of(Given([]))
    service._listen()
    place.rmdir()
    service._listen()
    with pytest.raises(NotRunning):
        ask(tmp_path / "outbox.sqlite")
    service._listen_again = 1.0
    place.mkdir()
    service._listen()
    assert caplog.text.count("cannot be listened at") == 1
    service._listen_again = 1.0
    place.rmdir()
    service._listen()
    assert ask(tmp_path / "outbox.sqlite")["outbox"]["depth_lines"] == 0
    assert service._server is not None
    service._server.close()


@pytest.fixture
def service_of(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Services one after the other on one outbox, with an InfluxDB that is never there."""
    made: list[Service] = []

    def service(*sources: Source, **given: str) -> Service:
        if made:
            made.pop()._outbox.close()
        settings = Settings(outbox=tmp_path / "outbox.sqlite", influx_url="http://127.0.0.1:9", **given)  # type: ignore[arg-type]
        made.append(Service(settings.model_copy(update={"source": " ".join("given:" for _ in sources)}), sources))
        return made[-1]

    yield service
    made.pop()._outbox.close()


def told(service: Service, measurement: str) -> list[str]:
    """What the service says of itself at this moment: the lines of a measurement, without their time."""
    before = service._outbox.take(100_000, newest=False)
    service._append(service._metrics())
    after = service._outbox.take(100_000, newest=False)
    assert after is not None
    new = after.lines[len(before.lines) if before else 0 :]
    return [one.rpartition(" ")[0] for one in new if one.startswith(f"{measurement},")]


def ages(service: Service) -> dict[str, float]:
    """Meter id -> reading_age, whole seconds."""
    lines = [one.removeprefix("reading_age,meter_id=").split(" value=") for one in told(service, "reading_age")]
    return {meter_id: float(age) // 1 for meter_id, age in lines}


def test_the_age_of_a_reading_goes_on_over_a_restart(now: datetime, service_of: Callable[..., Service]) -> None:
    """A port that is dead after the restart is missed, with its limit; one that never named its meter, too."""
    service = service_of(Given([], name="one"), Given([], name="two"))
    service.workers[0].take(chunk(power(1, b"A"), now - timedelta(seconds=40)))
    service.workers[1].take(chunk(power(2), now - timedelta(seconds=50)))
    after(60, service.workers[1])
    service = service_of(Given([], name="one"), Given([], name="two"))
    assert ages(service) == pytest.approx({"A": 40, "unknown-two": 50}, abs=5)
    service = service_of(Given([], name="moved"))
    limits = told(service, "threshold")
    assert "threshold,bound=max,meter_id=A,quantity=reading_age value=300.0" in limits
    service.workers[0].take(chunk(power(1, b"A"), now))
    assert ages(service) == {"A": 0}


@pytest.mark.parametrize("name", [b"A", b"SIMULATED-X-1"])
def test_who_is_not_missed_after_a_restart(now: datetime, service_of: Callable[..., Service], name: bytes) -> None:
    """A meter that was exchanged, a stand-in for a name that came, a simulated one, one not heard for a day."""
    service = service_of(Given([], name="one"), Given([], name="two"))
    service.workers[0].take(chunk(power(1), now))
    after(60, service.workers[0])
    service.workers[0].take(chunk(power(1, b"OLD"), now))
    service.workers[0].take(chunk(power(2, name), now))
    service.workers[1].take(chunk(power(2, b"DAYS-AGO"), now - timedelta(hours=25)))
    service.workers[1].tick()
    assert ages(service) == {name.decode(): 0, "DAYS-AGO": 0}, "it was read just now"
    service = service_of(Given([], name="other"))
    assert set(ages(service)) == {"A"} - {"A" if name != b"A" else ""}


def test_the_status_of_a_service_whose_disk_dies(now: datetime, service_of: Callable[..., Service]) -> None:
    service = service_of(Given([], name="one"))
    service.workers[0].take(chunk(power(1, b"A"), now))
    before = service.status()["outbox"]
    service._outbox.close()
    assert service.status()["outbox"].keys() == before.keys()


def test_events_of_an_exchanged_meter_and_of_lost_lines(now: datetime, service_of: Callable[..., Service]) -> None:
    service = service_of(Given([], name="one"))
    reader = service.workers[0]
    reader.take(chunk(power(1, b"A"), now))
    reader.take(chunk(power(2, b"B"), now))
    (source,) = service._source_marks
    assert [tuple(mark) for mark in source.new()] == [("meter_changed", "one: meter B in place of A")]
    reader.link.counts.lost_lines += 7
    (event,) = told(service, "event")
    assert event.startswith("event,instance=")
    assert event.endswith(',kind=dropped text="7 lines are lost, since the outbox or its disk was full"')
    assert told(service, "event") == []


# --- is it well? ------------------------------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def status(link: Link, *, age: float | None = None, influx: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"sources": [link.snapshot()], "outbox": {"oldest_age_s": age}, "influx": influx}


@pytest.mark.parametrize("what", [Happened.MISSING, Happened.SILENT, Happened.LOST, Happened.OPENED])
def test_a_source_may_be_without_a_frame_for_five_minutes(what: Happened) -> None:
    clock = Clock()
    link = Link("ttyHAN0", "/dev/ttyHAN0", clock)
    link.happened(SourceEvent(what, "no such port: /dev/ttyHAN0"))
    clock.now += 299
    assert faults(status(link)) == []
    clock.now += 2
    assert faults(status(link)) == ["no frame from ttyHAN0 for 301 s: no such port: /dev/ttyHAN0"]


def test_frames_make_it_well_again(now: datetime, outbox: Outbox, settings: Settings) -> None:
    clock = Clock()
    reader = SourceWorker(Given([]), Link("given", "given:", clock), outbox, settings)
    clock.now += 400
    assert len(faults(status(reader.link))) == 1
    reader.take(chunk(power(1, b"A"), now))
    assert faults(status(reader.link)) == []
    assert reader.link.reading_ages() == {"A": 0}
    clock.now += 300.5
    assert len(faults(status(reader.link))) == 1


def test_the_oldest_line_may_wait_ten_minutes_when_there_is_an_influxdb() -> None:
    link = Link("given", "given:", Clock())
    influx = {"state": "waiting", "words": "InfluxDB at http://x cannot be reached"}
    assert faults(status(link, age=599, influx=influx)) == []
    assert faults(status(link, age=601, influx=influx)) == [
        "the oldest unsent reading waits for 601 s: InfluxDB at http://x cannot be reached"
    ]
    assert faults(status(link, age=86_400, influx=None)) == [], "without one it is kept, as was asked for"


def test_what_does_not_pass_by_itself_is_a_fault_at_once(caplog: pytest.LogCaptureFixture) -> None:
    failed = Link("dev", "/dev", Clock())
    failed.failed("/dev is a directory")
    assert faults(status(failed)) == ["/dev is a directory"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert exporter_fields([failed], {}, {})["source_state"] == LinkState.FAILED.value
    ended = Link("file", "file:x", Clock())
    ended.ended()
    assert faults(status(ended)) == []


# --- how it is asked --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["outbox.sqlite", "o" * 240])
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a socket's path is as long as it may be")
def test_it_answers_however_deep_its_folder_is(tmp_path: Path, name: str) -> None:
    folder = tmp_path.joinpath(*["f" * 200] * 10)
    folder.mkdir(parents=True)
    outbox = folder / name
    server = StatusServer(outbox, lambda: {"well": True})
    assert ask(outbox) == {"well": True}
    assert socket_path(outbox).is_socket()
    assert socket_path(outbox).stat().st_mode & 0o777 == 0o600
    server.close()
    assert not socket_path(outbox).exists()
    with pytest.raises(NotRunning, match="no `han-exporter run` answers"):
        ask(outbox)


def test_two_outboxes_in_a_folder_are_two_services(tmp_path: Path) -> None:
    outboxes = [tmp_path / ("o" * 100 + end) for end in ("a", "b")]
    servers = [StatusServer(outbox, lambda outbox=outbox: {"of": outbox.name}) for outbox in outboxes]  # type: ignore[misc]
    assert [ask(outbox)["of"] for outbox in outboxes] == [outbox.name for outbox in outboxes]
    for server in servers:
        server.close()


def test_who_asks_and_goes_away_or_says_nothing_keeps_nobody_waiting(tmp_path: Path) -> None:
    outbox = tmp_path / "outbox.sqlite"
    server = StatusServer(outbox, lambda: {"well": "x" * 500_000})
    rude = []
    for _ in range(3):
        rude.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        rude[-1].connect(str(socket_path(outbox)))
    rude[0].close()
    rude[1].shutdown(socket.SHUT_RDWR)
    began = time.monotonic()
    assert ask(outbox, timeout=10)["well"] == "x" * 500_000
    assert time.monotonic() - began < 5
    for one in rude:
        one.close()
    server.close()
    assert not any(thread.name == "status" and thread.is_alive() for thread in _ended())


def test_a_command_is_done_and_the_status_told_meanwhile(tmp_path: Path) -> None:
    outbox = tmp_path / "outbox.sqlite"
    over = threading.Event()

    def command(what: str) -> dict[str, Any]:
        over.wait(10)
        if what == "break":
            raise RuntimeError("a bug")
        return {"done": what}

    server = StatusServer(outbox, lambda: {"well": True}, {"forget": command})
    answers: list[dict[str, Any]] = []
    name = 'O\'Hara "1" ø\n'
    asking = threading.Thread(target=lambda: answers.append(ask(outbox, 20, {"forget": name})))
    asking.start()
    assert ask(outbox) == {"well": True}
    assert answers == []
    over.set()
    asking.join(10)
    assert answers == [{"done": name}]
    for nonsense in ({"no such": "command"}, {"forget": "x", "and": "more"}, {}):
        assert ask(outbox, command=nonsense) == {"well": True}
    with pytest.raises(NotRunning):
        ask(outbox, command={"forget": "break"})
    assert ask(outbox) == {"well": True}
    server.close()


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.0\r\n\r\n", b"[" * 5000, b'{"forget": '])
def test_who_says_something_else_is_told_the_status(tmp_path: Path, said: bytes) -> None:
    """Also who says nothing and waits: an older version asks so."""
    outbox = tmp_path / "outbox.sqlite"
    server = StatusServer(outbox, lambda: {"well": True}, {"forget": lambda what: {"done": what}})
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(str(socket_path(outbox)))
        client.sendall(said)
        assert client.recv(100) == b'{"well": true}'
    server.close()


def _ended() -> list[threading.Thread]:
    for thread in threading.enumerate():
        if thread.name == "status":
            thread.join(5)
    return threading.enumerate()
