"""The parts of `run` with a real outbox: everything that needs no waiting in real time."""

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
from tests.support.patience import HANG_S, quiet_seconds

PAST = datetime(2026, 3, 1, 12, 0, 0, 125_000, tzinfo=UTC)


class Given:
    """A source with these chunks. After them it ends, or raises."""

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


def worker_of(source: Source, outbox: Outbox, settings: Settings) -> SourceWorker:
    return SourceWorker(source, Link(source.name, "given:"), outbox, settings)


@pytest.fixture
def now() -> datetime:
    """Chunks that were received more than a minute ago are gathered."""
    return datetime.now(UTC).replace(microsecond=250_000)


def chunk(data: bytes, received: datetime) -> Chunk:
    return Chunk(data, received)


def powers(outbox: Outbox) -> list[str]:
    """The lines of imported power, in the order in which they will be sent."""
    batch = outbox.take(100_000, newest=False)
    return [] if batch is None else [line for line in batch.lines if line.startswith("active_power,")]


def line(meter_id: str, watts: int, received: datetime) -> str:
    return f"active_power,direction=import,meter_id={meter_id},obis=1-0:1.7.0 value={watts}.0 {to_ms(received)}"


def after(seconds: float, worker: SourceWorker) -> None:
    """Tick as if so many seconds had passed for lists that wait for a meter id."""
    if worker._pipeline._waiting_since is not None:
        worker._pipeline._waiting_since -= seconds
    worker.tick()


# --- lists without a meter id -----------------------------------------------------------------------------------------


def test_lists_without_an_id_wait_sixty_seconds(now: datetime, outbox: Outbox, settings: Settings) -> None:
    worker = worker_of(Given([]), outbox, settings)
    worker.take(chunk(power(1), now))
    worker.take(chunk(power(2), now + timedelta(seconds=1)))
    after(NAMELESS_WAIT_MS / 1000 - 5, worker)
    assert powers(outbox) == []
    after(5, worker)
    there = [line("unknown-given", 1, now), line("unknown-given", 2, now + timedelta(seconds=1))]
    assert powers(outbox) == there
    worker.take(chunk(power(3), now + timedelta(seconds=2)))  # the next ones do not wait
    assert powers(outbox) == [*there, line("unknown-given", 3, now + timedelta(seconds=2))]


def test_they_get_the_id_of_the_settings(now: datetime, outbox: Outbox, tmp_path: Path) -> None:
    worker = worker_of(Given([]), outbox, Settings(outbox=outbox.path, meter_id="hytta"))
    worker.take(chunk(power(1), now))
    after(60, worker)
    assert powers(outbox) == [line("hytta", 1, now)]


def test_they_get_the_id_of_a_later_list(now: datetime, outbox: Outbox, settings: Settings) -> None:
    worker = worker_of(Given([]), outbox, settings)
    worker.take(chunk(power(1), now))
    worker.take(chunk(power(2, b"A"), now + timedelta(seconds=1)))
    assert powers(outbox) == [line("A", 1, now), line("A", 2, now + timedelta(seconds=1))]


def test_the_lists_of_a_capture_wait_by_its_own_time(outbox: Outbox, settings: Settings) -> None:
    worker = worker_of(Given([], live=False), outbox, settings)
    worker.take(chunk(power(1), PAST))
    after(1000, worker)
    worker.take(chunk(power(2, b"A"), PAST + timedelta(seconds=59)))
    worker.tick()
    assert powers(outbox) == [line("A", 1, PAST), line("A", 2, PAST + timedelta(seconds=59))]


def test_the_last_id_is_stored_with_the_lines_of_its_list(now: datetime, outbox: Outbox, settings: Settings) -> None:
    worker = worker_of(Given([]), outbox, settings)
    worker.take(chunk(power(1, b"A"), now))
    # Another process sees it at once, so nothing is lost if this one is killed.
    seen = Outbox(outbox.path, read_only=True)
    assert (seen.get_state("last_id:given"), powers(seen)) == ("A", [line("A", 1, now)])
    seen.close()
    again = worker_of(Given([]), outbox, settings)
    again.take(chunk(power(2), now + timedelta(seconds=1)))
    assert powers(outbox)[1:] == [line("A", 2, now + timedelta(seconds=1))]


def test_lists_without_an_id_of_two_meters_are_counted(now: datetime, outbox: Outbox, settings: Settings) -> None:
    worker = worker_of(Given([]), outbox, settings)
    for second in range(10):
        moment = now + timedelta(seconds=second)
        worker.take(chunk(power(100 + second, b"AB"[second % 2 : second % 2 + 1]), moment))
        worker.take(chunk(power(200 + second), moment + timedelta(milliseconds=500)))
    assert worker.link.counts.left_out == 8
    assert exporter_fields([worker.link], {}, {})["readings_left_out"] == 8
    assert [one for one in powers(outbox) if "value=2" in one] == [
        line("A", 200, now + timedelta(milliseconds=500)),
        line("B", 201, now + timedelta(milliseconds=1500)),
    ]


# --- into the outbox --------------------------------------------------------------------------------------------------


def test_chunks_of_the_past_are_appended_together_and_others_at_once(
    now: datetime, outbox: Outbox, settings: Settings
) -> None:
    worker = worker_of(Given([]), outbox, settings)
    for second in range(5):
        worker.take(chunk(power(second, b"A"), PAST + timedelta(seconds=second)))
    assert powers(outbox) == []
    worker.tick()
    wanted = [line("A", second, PAST + timedelta(seconds=second)) for second in range(5)]
    assert powers(outbox) == wanted
    worker.take(chunk(power(5, b"A"), PAST + timedelta(seconds=5)))
    worker.take(chunk(power(6, b"A"), now))
    assert powers(outbox) == [*wanted, line("A", 5, PAST + timedelta(seconds=5)), line("A", 6, now)]


def test_messages_in_one_chunk_keep_their_order(now: datetime, outbox: Outbox, settings: Settings) -> None:
    """A chunk with more bytes than a wire can carry since the last one."""
    worker = worker_of(Given([]), outbox, settings)
    worker.take(Chunk(power(1, b"A"), now, 10 / 2400))
    soon = now + timedelta(milliseconds=3)
    worker.take(Chunk(power(2, b"A") + power(3, b"A") + power(4, b"A"), soon, 10 / 2400))
    assert powers(outbox) == [
        line("A", watts, moment)
        for watts, moment in (
            (1, now),
            (2, now + timedelta(milliseconds=1)),
            (3, now + timedelta(milliseconds=2)),
            (4, soon),
        )
    ]


def test_the_time_of_bytes_after_a_closing_flag_is_subtracted(
    now: datetime, outbox: Outbox, settings: Settings
) -> None:
    worker = worker_of(Given([]), outbox, settings)
    worker.take(Chunk(power(1, b"A") + b"\x7e\xa0\x10" * 16, now, 10 / 2400))
    assert powers(outbox) == [line("A", 1, now - timedelta(milliseconds=200))]


def test_an_outbox_that_takes_nothing_is_reported_and_reading_continues(
    now: datetime, outbox: Outbox, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = worker_of(Given([]), outbox, settings)
    with monkeypatch.context() as broken:

        def refuse(*_: object) -> None:
            raise OutboxError("the disk is full: free some room")

        broken.setattr(outbox, "append", refuse)
        worker.take(chunk(power(1, b"A"), now))
    lost = worker.link.counts.lost_lines
    assert lost >= 1
    (error,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert error.getMessage().startswith(f"{lost} line")
    assert "the disk is full: free some room" in error.getMessage()
    worker.take(chunk(power(2, b"A"), now + timedelta(seconds=1)))
    assert powers(outbox) == [line("A", 2, now + timedelta(seconds=1))]
    assert worker.link.counts.lost_lines == lost


# --- the whole service ------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Restore the handlers of pytest: the service sets its own."""
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


def test_a_source_that_raises_does_not_stop_the_others(
    now: datetime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Given([chunk(power(1, b"A"), now)], name="broken", error=RuntimeError("a bug"))
    code, lines = run(tmp_path, broken, Given([chunk(power(2, b"B"), now), chunk(power(3), now)], name="other"))
    assert code == 0
    assert sorted(lines) == sorted(
        [line("A", 1, now), line("B", 2, now), line("B", 3, now + timedelta(milliseconds=1))]
    )
    assert "RuntimeError: a bug" in caplog.text


def test_if_no_source_works_it_exits_with_2_and_keeps_its_readings(now: datetime, tmp_path: Path) -> None:
    dead = Given([], name="dead", error=SourceError("/dev is a directory"))
    code, lines = run(tmp_path, dead, Given([chunk(power(1), now)], name="broken", error=RuntimeError("a bug")))
    assert (code, lines) == (2, [line("unknown-broken", 1, now)])


def test_readings_without_a_time_are_reported_at_the_end_of_a_file(
    now: datetime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    chunks = [Chunk(power(1, b"A"), None), Chunk(power(2, b"A"), None), chunk(power(3, b"A"), PAST)]
    assert run(tmp_path, Given(chunks, name="raw.bin", live=False)) == (0, [line("A", 3, PAST)])
    (warning,) = (one.getMessage() for one in caplog.records if one.name.endswith("source_worker"))
    assert "raw.bin" in warning
    assert "2 of 3 readings" in warning
    caplog.clear()
    run(tmp_path, Given(chunks[2:], name="stamped", live=False))
    assert not [one for one in caplog.records if one.name.endswith("source_worker")]


def test_it_works_without_its_socket(now: datetime, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = socket_path(tmp_path / "outbox.sqlite")
    (place / "in the way").mkdir(parents=True)
    assert run(tmp_path, Given([chunk(power(2, b"B"), now)])) == (0, [line("B", 2, now)])
    (error,) = (record.getMessage() for record in caplog.records if record.levelno == logging.ERROR)
    assert str(place) in error
    assert "Is a directory" in error
    assert (place / "in the way").is_dir()


def test_the_socket_is_created_later_if_it_fails_at_first(
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
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1
    service._listen_again = 1.0
    place.rmdir()
    service._listen()
    assert ask(tmp_path / "outbox.sqlite")["outbox"]["depth_lines"] == 0
    assert service._server is not None
    service._server.close()


@pytest.fixture
def service_of(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Services one after the other with one outbox, and with an InfluxDB that cannot be reached."""
    made: list[Service] = []

    def service(*sources: Source, **given: str) -> Service:
        if made:
            made.pop()._outbox.close()
        settings = Settings(outbox=tmp_path / "outbox.sqlite", influx_url="http://127.0.0.1:9", **given)  # type: ignore[arg-type]
        made.append(Service(settings.model_copy(update={"source": " ".join("given:" for _ in sources)}), sources))
        return made[-1]

    yield service
    made.pop()._outbox.close()


def written(service: Service, measurement: str) -> list[str]:
    """The lines of this measurement that the service writes about itself now, without their time."""
    before = service._outbox.take(100_000, newest=False)
    service._append(service._metrics())
    after = service._outbox.take(100_000, newest=False)
    assert after is not None
    new = after.lines[len(before.lines) if before else 0 :]
    return [one.rpartition(" ")[0] for one in new if one.startswith(f"{measurement},")]


def ages(service: Service) -> dict[str, float]:
    """Meter id -> reading_age, whole seconds."""
    lines = [one.removeprefix("reading_age,meter_id=").split(" value=") for one in written(service, "reading_age")]
    return {meter_id: float(age) // 1 for meter_id, age in lines}


def test_the_age_of_a_reading_continues_after_a_restart(now: datetime, service_of: Callable[..., Service]) -> None:
    """Also for a port that is gone after the restart, with the limit of the age, and for a meter without an id."""
    service = service_of(Given([], name="one"), Given([], name="two"))
    service.workers[0].take(chunk(power(1, b"A"), now - timedelta(seconds=40)))
    service.workers[1].take(chunk(power(2), now - timedelta(seconds=50)))
    after(60, service.workers[1])
    service = service_of(Given([], name="one"), Given([], name="two"))
    assert ages(service) == pytest.approx({"A": 40, "unknown-two": 50}, abs=5)
    service = service_of(Given([], name="moved"))
    limits = written(service, "threshold")
    assert "threshold,bound=max,meter_id=A,quantity=reading_age value=300.0" in limits
    service.workers[0].take(chunk(power(1, b"A"), now))
    assert ages(service) == {"A": 0}


@pytest.mark.parametrize("name", [b"A", b"SIMULATED-X-1"])
def test_which_meters_have_no_age_after_a_restart(
    now: datetime, service_of: Callable[..., Service], name: bytes
) -> None:
    """One that was exchanged, a placeholder of an id, a simulated one, one that sent nothing for a day."""
    service = service_of(Given([], name="one"), Given([], name="two"))
    service.workers[0].take(chunk(power(1), now))
    after(60, service.workers[0])
    service.workers[0].take(chunk(power(1, b"OLD"), now))
    service.workers[0].take(chunk(power(2, name), now))
    service.workers[1].take(chunk(power(2, b"DAYS-AGO"), now - timedelta(hours=25)))
    service.workers[1].tick()
    assert ages(service) == {name.decode(): 0, "DAYS-AGO": 0}, "both were read just now"
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
    worker = service.workers[0]
    worker.take(chunk(power(1, b"A"), now))
    worker.take(chunk(power(2, b"B"), now))
    (source,) = service._source_events
    ((kind, text),) = source.new()
    assert kind == "meter_changed"
    assert "meter B" in text
    worker.link.counts.lost_lines += 7
    (event,) = written(service, "event")
    assert event.startswith("event,instance=")
    assert ',kind=dropped text="7 lines ' in event
    assert written(service, "event") == []


# --- faults -----------------------------------------------------------------------------------------------------------


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
    (fault,) = faults(status(link))
    assert "301 s" in fault
    assert "no such port: /dev/ttyHAN0" in fault


def test_frames_end_the_fault(now: datetime, outbox: Outbox, settings: Settings) -> None:
    clock = Clock()
    worker = SourceWorker(Given([]), Link("given", "given:", clock), outbox, settings)
    clock.now += 400
    assert len(faults(status(worker.link))) == 1
    worker.take(chunk(power(1, b"A"), now))
    assert faults(status(worker.link)) == []
    assert worker.link.reading_ages() == {"A": 0}
    clock.now += 300.5
    assert len(faults(status(worker.link))) == 1


def test_the_oldest_line_may_wait_ten_minutes_if_there_is_an_influxdb() -> None:
    link = Link("given", "given:", Clock())
    influx = {"state": "waiting", "words": "InfluxDB at http://x cannot be reached"}
    assert faults(status(link, age=599, influx=influx)) == []
    (fault,) = faults(status(link, age=601, influx=influx))
    assert "601 s" in fault
    assert "InfluxDB at http://x cannot be reached" in fault
    assert faults(status(link, age=86_400, influx=None)) == [], "without one, it waits as it should"


def test_a_state_that_cannot_pass_is_a_fault_at_once(caplog: pytest.LogCaptureFixture) -> None:
    failed = Link("dev", "/dev", Clock())
    failed.failed("/dev is a directory")
    assert faults(status(failed)) == ["/dev is a directory"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert exporter_fields([failed], {}, {})["source_state"] == LinkState.FAILED.value
    ended = Link("file", "file:x", Clock())
    ended.ended()
    assert faults(status(ended)) == []


# --- the socket -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["outbox.sqlite", "o" * 240])
@pytest.mark.skipif(sys.platform != "linux", reason="on other systems the path of a socket is limited")
def test_it_answers_however_deep_its_folder_is(tmp_path: Path, name: str) -> None:
    folder = tmp_path.joinpath(*["f" * 200] * 10)
    folder.mkdir(parents=True)
    outbox = folder / name
    server = StatusServer(outbox, lambda: {"ok": True})
    assert ask(outbox) == {"ok": True}
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


def test_a_client_that_goes_away_or_sends_nothing_blocks_no_other(tmp_path: Path) -> None:
    outbox = tmp_path / "outbox.sqlite"
    server = StatusServer(outbox, lambda: {"ok": "x" * 500_000})
    bad = []
    for _ in range(3):
        bad.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        bad[-1].connect(str(socket_path(outbox)))
    bad[0].close()
    bad[1].shutdown(socket.SHUT_RDWR)
    began = time.monotonic()
    assert ask(outbox, timeout=HANG_S)["ok"] == "x" * 500_000
    assert quiet_seconds(time.monotonic() - began) < 5
    for one in bad:
        one.close()
    server.close()
    assert not any(thread.name == "status" and thread.is_alive() for thread in _after_a_moment())


def test_the_status_is_answered_while_a_command_is_run(tmp_path: Path) -> None:
    outbox = tmp_path / "outbox.sqlite"
    over = threading.Event()

    def command(what: str) -> dict[str, Any]:
        over.wait(HANG_S)
        if what == "break":
            raise RuntimeError("a bug")
        return {"done": what}

    server = StatusServer(outbox, lambda: {"ok": True}, {"forget": command})
    answers: list[dict[str, Any]] = []
    name = 'O\'Hara "1" ø\n'
    asking = threading.Thread(target=lambda: answers.append(ask(outbox, HANG_S, {"forget": name})))
    asking.start()
    assert ask(outbox) == {"ok": True}
    assert answers == []
    over.set()
    asking.join(HANG_S)
    assert answers == [{"done": name}]
    for nonsense in ({"no such": "command"}, {"forget": "x", "and": "more"}, {}):
        assert ask(outbox, command=nonsense) == {"ok": True}
    with pytest.raises(NotRunning):
        ask(outbox, command={"forget": "break"})
    assert ask(outbox) == {"ok": True}
    server.close()


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.0\r\n\r\n", b"[" * 5000, b'{"forget": '])
def test_any_other_datagets_the_status(tmp_path: Path, data: bytes) -> None:
    """Also an empty one: older versions send it."""
    outbox = tmp_path / "outbox.sqlite"
    server = StatusServer(outbox, lambda: {"ok": True}, {"forget": lambda what: {"done": what}})
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(HANG_S)
        client.connect(str(socket_path(outbox)))
        client.sendall(data)
        assert client.recv(100) == b'{"ok": true}'
    server.close()


def _after_a_moment() -> list[threading.Thread]:
    """The threads that are left when those of the socket had time to end."""
    for thread in threading.enumerate():
        if thread.name == "status":
            thread.join(HANG_S)
    return threading.enumerate()
