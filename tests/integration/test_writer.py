"""Outbox, writer and client against a real InfluxDB."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from exporter.outbox.queue import Outbox
from exporter.sinks.contract import Verdict
from exporter.sinks.influx.client import Client, QueryError, Unreachable
from exporter.sinks.writer import Writer
from exporter.sinks.writer_status import WriterState
from tests.support.influx_server import Influx, free_port
from tests.support.patience import HANG_S, quiet_seconds, until
from tests.support.rows import rows

NOW = int(time.time() * 1000)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "outbox.db")
    yield outbox
    outbox.close()


@pytest.fixture
def name(influx: Influx) -> str:
    """A measurement of this test's own: a server that is not ours may hold others."""
    return f"power_{time.time_ns()}"


@contextmanager
def running(writer: Writer, outbox: Outbox) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=writer.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        outbox.wake()
        thread.join(HANG_S)
        assert not thread.is_alive()


def count(influx: Influx, name: str) -> int:
    series = influx.query(f"SELECT count(value) FROM {name}")
    return int(series[0].rows[0][1]) if series else 0


def empty(outbox: Outbox) -> Callable[[], bool]:
    return lambda: outbox.status().depth_lines == 0


def test_values_tags_and_times_arrive_as_they_were_written(influx: Influx, outbox: Outbox, name: str) -> None:
    outbox.append(
        rows(
            [
                f"{name},direction=import,meter_id=57\\ 06\\,\\=\\=ø,obis=1-1:1.7.0 value=616.5 {NOW}",
                f"{name},direction=import,meter_id=57\\ 06\\,\\=\\=ø,obis=1-1:1.7.0 value=-0.25 {NOW + 1}",
            ]
        )
    )
    with running(Writer(outbox, influx.client()), outbox):
        until(empty(outbox))
    (series,) = influx.query(f"SELECT value FROM {name} GROUP BY *")
    assert series.tags == {"direction": "import", "meter_id": "57 06,==ø", "obis": "1-1:1.7.0"}
    assert series.rows == ((NOW, 616.5), (NOW + 1, -0.25))


def test_a_line_is_in_influxdb_within_a_second(influx: Influx, outbox: Outbox, name: str) -> None:
    with running(Writer(outbox, influx.client()), outbox):
        for number in range(5):
            outbox.append(rows([f"{name} value=1 {NOW + number}"]))
            assert until(lambda number=number: count(influx, name) == number + 1) < 1  # type: ignore[misc]


@pytest.mark.parametrize("kill", [True, False])
def test_influxdb_goes_and_comes_back(influx: Influx, outbox: Outbox, name: str, kill: bool) -> None:
    writer = Writer(outbox, influx.client(), pause=lambda _: 0.2)
    with running(writer, outbox):
        for number in range(200):
            if number == 60:
                influx.stop(kill=kill)
            if number == 120:
                until(lambda: writer.status().state is WriterState.WAITING)
                influx.start()
            outbox.append(rows([f"{name},n={n} value={number} {NOW + number}" for n in range(10)]))
        until(empty(outbox))
    assert count(influx, name) == 2000
    assert writer.status().state is WriterState.OK
    assert "cannot be reached" in writer.status().last_error


def test_lines_left_when_stopped_are_sent_by_the_next_process(influx: Influx, tmp_path: Path, name: str) -> None:
    influx.stop()
    outbox = Outbox(tmp_path / "left.db")
    with running(Writer(outbox, influx.client()), outbox):
        outbox.append(rows([f"{name} value=1 {NOW}"]))
    outbox.close()
    influx.start()
    outbox = Outbox(tmp_path / "left.db")
    with running(Writer(outbox, influx.client()), outbox):
        until(empty(outbox))
    assert count(influx, name) == 1
    outbox.close()


def test_bad_lines_are_refused_and_the_rest_is_written(influx: Influx, outbox: Outbox, name: str) -> None:
    good = [f"{name},n={n} value={n} {NOW}" for n in range(500)]
    bad = {
        50: f'{name},n=c value="text" {NOW}',
        51: f"{name},n=c value=NaN {NOW}",
        300: "no line protocol at all",
        499: f"{name} value=1 99999999999999999",
    }
    mixed = list(good)
    for place, line in sorted(bad.items(), reverse=True):
        mixed.insert(place, line)
    with running(Writer(outbox, influx.client()), outbox):
        outbox.append(rows(mixed))
        until(empty(outbox))
        assert {one.line for one in outbox.refused()} == set(bad.values())
        why = {one.line: one.message for one in outbox.refused()}
        assert "field type conflict" in why[bad[50]]
        assert "invalid number" in why[bad[51]]
        assert "unable to parse" in why[bad[300]]
        assert "time outside range" in why[bad[499]]
        outbox.append(rows([bad[300]]))  # alone, as the first thing after good ones
        until(empty(outbox))
    assert count(influx, name) == 500
    assert outbox.status().rejected_lines == 5


def test_a_wrong_database_empties_nothing_and_works_once_it_exists(influx: Influx, outbox: Outbox, name: str) -> None:
    writer = Writer(outbox, influx.client(bucket="not_there"), pause=lambda _: 0.05)
    outbox.append(rows([f"{name} value={n} {NOW + n}" for n in range(10)]))
    with running(writer, outbox):
        until(lambda: writer.status().retries > 2)
    assert writer.status().state is WriterState.MISCONFIGURED
    assert "not_there" in writer.status().last_error
    assert outbox.status().depth_lines == 10
    assert outbox.status().rejected_lines == 0
    with running(Writer(outbox, influx.client()), outbox):
        until(empty(outbox))
    assert count(influx, name) == 10


def test_a_wrong_token_is_named(influx: Influx, outbox: Outbox) -> None:
    client = influx.client(token="tester:wrong")
    result = client.write(["a value=1"])
    if not influx.token:  # a server without authorization takes any
        assert result.verdict is Verdict.TAKEN
        return
    assert result.verdict is Verdict.MISCONFIGURED
    assert "HAN_INFLUX_TOKEN" in result.message
    assert "wrong" not in result.message
    assert client.can_write() == result


def test_asking_whether_it_may_write_writes_nothing(influx: Influx) -> None:
    client = influx.client()
    before = client.query("SHOW MEASUREMENTS")
    assert client.can_write().verdict is Verdict.TAKEN
    assert client.query("SHOW MEASUREMENTS") == before
    assert "not_there" in influx.client(bucket="not_there").can_write().message
    assert client.version()


def test_a_wrong_query_is_an_error(influx: Influx) -> None:
    with pytest.raises(QueryError, match=r"pars(e|ing) query"):
        influx.query("SELECT")


def test_nothing_listens_and_other_things_listen(influx: Influx) -> None:
    nobody = Client(f"http://127.0.0.1:{free_port()}", bucket="han")
    assert nobody.write(["a value=1"]).verdict is Verdict.RETRY
    assert "connection refused" in nobody.write(["a value=1"]).message
    with pytest.raises(Unreachable):
        nobody.version()
    with pytest.raises(QueryError):
        nobody.query("SHOW MEASUREMENTS")
    secure = influx.client(url=influx.url.replace("http", "https"))
    assert secure.write(["a value=1"]).verdict is Verdict.MISCONFIGURED
    assert "http/https" in secure.write(["a value=1"]).message
    with pytest.raises(Unreachable, match="http/https"):
        secure.version()
    for wrong in ("localhost:8086", "ftp://x", "http://", "http://[::1"):
        with pytest.raises(ValueError, match="HAN_INFLUX_URL"):
            Client(wrong, bucket="han")


def read_request(here: socket.socket) -> None:
    """Read the whole request: closing a connection with unread bytes resets it, sometimes before the answer arrives."""
    with here.makefile("rb") as stream:
        length = 0
        while (head := stream.readline()).strip():
            if head.lower().startswith(b"content-length:"):
                length = int(head.partition(b":")[2])
        stream.read(length)


@contextmanager
def answering(answer: bytes, *, hold: bool = False) -> Iterator[str]:
    """A server that reads a request, and answers with these bytes or is silent; yields its address."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as door:

        def serve() -> None:
            while not done.is_set():
                with suppress(OSError):
                    here, _ = door.accept()
                    with here:
                        read_request(here)
                        here.sendall(answer)
                        if hold:
                            done.wait(HANG_S)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
        done.set()
        with suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)
    thread.join(HANG_S)


def http(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


@pytest.mark.parametrize(
    ("answer", "verdict", "kind"),
    [
        (b"", Verdict.RETRY, "connection broke"),
        (b"HTTP/1.1 20", Verdict.RETRY, "connection broke"),
        (http("503 x", b'{"error":"tim', length=99), Verdict.RETRY, "connection broke"),
        (http("400 Bad Request", b'{"error":"partial wri', length=99), Verdict.RETRY, "connection broke"),
        (b"\x15\x03\x01\x00\x02\x02\x16", Verdict.RETRY, "connection broke"),
        (http("429 Too Many", b"", "Retry-After: 7"), Verdict.RETRY, "429"),
        (http("200 OK", b"<html>login</html>"), Verdict.MISCONFIGURED, "answers 200"),
        (http("302 Found", b"", "Location: http://elsewhere/"), Verdict.MISCONFIGURED, "redirects"),
        (http("400 Bad", b"\xff\xfe\x00"), Verdict.MISCONFIGURED, "HAN_INFLUX_URL"),
        (http("400 Bad", b"Client sent an HTTP request to an HTTPS server."), Verdict.MISCONFIGURED, "http or https"),
        (http("204 No Content", b"", "X-Influxdb-Version: 1.8.10"), Verdict.TAKEN, ""),
        (http("204 No Content"), Verdict.TAKEN, ""),
    ],
)
def test_whatever_is_answered_is_a_result(answer: bytes, verdict: Verdict, kind: str) -> None:
    with answering(answer) as url:
        result = Client(url, bucket="han", timeout=HANG_S).write(["a value=1 1"])
    assert result.verdict is verdict
    assert kind in result.message
    assert result.retry_after == (7.0 if kind == "429" else None)


def test_a_server_that_does_not_answer_is_left_in_time() -> None:
    with answering(b"", hold=True) as url:
        client = Client(url, bucket="han", timeout=HANG_S)
        began = time.monotonic()
        result = client.write(["a value=1 1"], timeout=0.2)
        assert quiet_seconds(time.monotonic() - began) < 5
    assert result.verdict is Verdict.RETRY
    assert "no answer in time" in result.message
