"""Lines that a real InfluxDB refuses, and servers that refuse everything: what is refused, kept and reported."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from exporter.derive import points
from exporter.derive.sums import EnergySum
from exporter.outbox import rejected
from exporter.outbox.queue import Outbox
from exporter.sinks.influx.client import Client, Http
from exporter.sinks.writer import Writer
from exporter.sinks.writer_status import WriterState
from tests.integration.test_writer import count, empty, running
from tests.support.influx_server import Influx, LocalInflux, serve
from tests.support.patience import HANG_S, until
from tests.support.rows import rows

NOW = int(time.time() * 1000)
LIMIT = 5
ALL = [(1, 10**9)]


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    """InfluxDB 1.8 that allows few values of a tag, with a policy that keeps an hour."""
    if os.environ.get("HAN_TEST_INFLUX_URL"):
        pytest.skip("this needs an InfluxDB of its own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFLUXDB_DATA_MAX_VALUES_PER_TAG", str(LIMIT))
        server = serve(tmp_path_factory.mktemp("limited"))
    assert isinstance(server, LocalInflux)
    server.admin(f"CREATE RETENTION POLICY short ON {server.bucket} DURATION 1h REPLICATION 1")
    yield server
    server.stop()


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with closing(Outbox(tmp_path / "outbox.db")) as outbox:
        yield outbox


@pytest.fixture
def name() -> str:
    return f"power_{time.time_ns()}"


def sent(outbox: Outbox, client: Client) -> Writer:
    writer = Writer(outbox, client, pause=lambda _: 0.05)
    with running(writer, outbox):
        until(empty(outbox))
    return writer


def refused(outbox: Outbox) -> dict[str, str]:
    return {one.line: one.message for one in outbox.refused()}


def found(influx: Influx, question: str) -> list[tuple[object, ...]]:
    return [row for series in influx.query(question) for row in series.rows]


def change(influx: Influx, statement: str) -> None:
    """Change something in its database."""
    Http(influx.url, influx.token).request("POST", "/query", query={"q": statement, "db": influx.bucket})


def among(bad: str, name: str) -> list[str]:
    """A bad line among good ones."""
    good = [f"{name} value={n} {NOW + n}" for n in range(40)]
    return [*good[:23], bad, *good[23:]]


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (f'NAME value="text" {NOW}', "field type conflict"),
        (f"NAME value=1 {NOW} beyond", "unable to parse"),
        ("NAME value=1 -9223372036854775", "time outside range"),
        (f"NAME,tag={'x' * 70_000} value=1 {NOW}", "max key length exceeded"),
    ],
)
def test_one_bad_line_is_refused_with_the_message(
    limited: Influx, outbox: Outbox, name: str, bad: str, expected: str
) -> None:
    line = bad.replace("NAME", name)
    outbox.append(rows([f"{name} value=1 {NOW - 1}"]))
    sent(outbox, limited.client())
    outbox.append(rows(among(line, name)))
    writer = sent(outbox, limited.client())
    assert list(refused(outbox)) == [line]
    assert expected in refused(outbox)[line]
    assert count(limited, name) == 41
    assert writer.status().state is WriterState.OK


def test_after_a_type_conflict_is_fixed_the_lines_are_written(
    limited: Influx, outbox: Outbox, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody wrote a text where numbers belong; when that is removed, the readings are sent again."""
    assert not limited.client().write([f'{name} value="a text" {NOW - 60_000}']).message
    outbox.append(rows([f"{name} value={n} {NOW + n}" for n in range(10)] + [f"{name}_other value=1 {NOW}"]))
    sent(outbox, limited.client())
    assert count(limited, f"{name}_other") == 1
    assert all("type conflict" in message for message in refused(outbox).values())
    assert outbox.status().rejected_lines == 10
    assert "han-exporter rejected" in caplog.text
    change(limited, f"DROP MEASUREMENT {name}")
    assert rejected.retry(outbox, ALL).lines == 10
    sent(outbox, limited.client())
    assert found(limited, f"SELECT value FROM {name}") == [(NOW + n, float(n)) for n in range(10)]
    assert outbox.status().rejected_lines == 0


def test_after_the_retention_is_longer_the_lines_are_written(limited: Influx, outbox: Outbox, name: str) -> None:
    short = limited.client(bucket=f"{limited.bucket}/short")
    old = [f"{name} value={n} {NOW - 2 * 3_600_000 + n}" for n in range(7)]
    outbox.append(rows([*old, f"{name} value=7 {NOW}"]))
    sent(outbox, short)
    assert sorted(refused(outbox)) == sorted(old)
    assert all("beyond retention policy" in message for message in refused(outbox).values())
    limited.admin(f"ALTER RETENTION POLICY short ON {limited.bucket} DURATION 1d")
    try:
        assert rejected.retry(outbox, ALL).lines == 7
        sent(outbox, short)
        policy = f"{limited.bucket}.short.{name}"
        assert [row[1] for row in found(limited, f"SELECT value FROM {policy}")] == [float(n) for n in range(8)]
    finally:
        limited.admin(f"ALTER RETENTION POLICY short ON {limited.bucket} DURATION 1h")


def test_after_a_limit_is_raised_the_lines_are_written(limited: Influx, outbox: Outbox, name: str) -> None:
    outbox.append(rows([f"{name},house=h{n} value={n} {NOW}" for n in range(LIMIT)]))
    sent(outbox, limited.client())
    more = [f"{name},house=more{n} value={n} {NOW}" for n in range(3)]
    outbox.append(rows([*more, f"{name},house=h0 value=9 {NOW + 1}"]))
    sent(outbox, limited.client())
    assert sorted(refused(outbox)) == more
    assert all("max-values-per-tag limit exceeded" in message for message in refused(outbox).values())
    assert count(limited, name) == LIMIT + 1
    change(limited, f"DROP SERIES FROM {name} WHERE house =~ /h[2-4]/")
    assert rejected.retry(outbox, ALL).lines == 3
    sent(outbox, limited.client())
    assert count(limited, name) == LIMIT + 1
    assert outbox.status().rejected_lines == 0


def test_what_is_not_fixed_is_refused_again(limited: Influx, outbox: Outbox, name: str) -> None:
    outbox.append(rows(among("nonsense", name)))
    sent(outbox, limited.client())
    (before,) = outbox.refused()
    assert rejected.retry(outbox, ALL).lines == 1
    outbox.append(rows([f"{name} value=1 {NOW + 100}"]))
    sent(outbox, limited.client())
    (after,) = outbox.refused()
    assert (after.line, after.message) == (before.line, before.message)
    assert after.id != before.id


def test_an_old_sum_does_not_replace_a_newer_one(limited: Influx, outbox: Outbox) -> None:
    day, house = 1_790_000_000_000 // 3_600_000 * 3_600_000, f"house{NOW}"

    def total(hours: int) -> str:
        return points.day_energy_line(house, "import", EnergySum(float(hours), hours), day)

    client = limited.client()
    assert not client.write([f'day_energy,direction=import,meter_id={house} value="x" {day - 1}']).message
    outbox.append(rows([total(1), total(2), f"other{NOW} value=1 {NOW}"]))
    sent(outbox, client)
    assert outbox.status().rejected_lines == 2
    change(limited, "DROP MEASUREMENT day_energy")
    outbox.append(rows([total(3)]))
    assert rejected.retry(outbox, ALL) == rejected.Retried(0, 2), "a newer one may wait"
    sent(outbox, client)
    assert outbox.status().rejected_lines == 0, "a newer version was taken"
    assert rejected.retry(outbox, ALL) == rejected.Retried(0, 0)
    sent(outbox, client)
    assert found(limited, "SELECT value, hours FROM day_energy") == [(day, 3.0, 3.0)]


# Servers that refuse everything, or accept it


class Says(BaseHTTPRequestHandler):
    """An ordinary web server: the same answer to everything."""

    status, body, kind = 200, b"<html><body>It works!</body></html>", "text/html"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_GET = do_POST  # noqa: N815 - the library's name

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def web_server(status: int, body: bytes, kind: str) -> Iterator[str]:
    handler = type("Answer", (Says,), {"status": status, "body": body, "kind": kind})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(HANG_S)


PROXY = b"<html><head><title>400 Bad Request</title></head><body>unable to parse 'the request'</body></html>"


@pytest.mark.parametrize(
    ("status", "body", "kind", "expected"),
    [
        (200, b"<html>It works!</html>", "text/html", "answers 200 "),
        (200, b'{"ok": true}', "application/json", "answers 200 "),
        (201, b"", "text/plain", "answers 201 "),
        (400, PROXY, "text/html", "answers 400 "),
        (400, b'{"error": "unable to parse \'x\': missing fields"}', "application/json", "refuses every line"),
        (400, b'{"message": "no"}', "application/json", "HAN_INFLUX_"),
        (422, b'{"message": "partial write: field type conflict"}', "application/json", "refuses every line"),
        (405, b"<html>Not Allowed</html>", "text/html", "answers 405 "),
    ],
)
def test_a_server_with_one_answer_for_everything_empties_nothing(
    outbox: Outbox,
    name: str,
    status: int,
    body: bytes,
    kind: str,
    expected: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    outbox.append(rows([f"{name} value={n} {NOW + n}" for n in range(100)]))
    with web_server(status, body, kind) as url:
        writer = Writer(outbox, Client(url, bucket="han", token="secret"), pause=lambda _: 0.01)
        with running(writer, outbox):
            until(lambda: writer.status().retries > 3)
    assert outbox.status().depth_lines == 100
    assert outbox.status().rejected_lines == 0
    assert writer.status().state is WriterState.MISCONFIGURED
    assert expected in caplog.text
    assert "100 lines" in caplog.text
    assert "secret" not in caplog.text


def test_a_204_that_does_not_name_influxdb_is_accepted_with_a_warning(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """A proxy may remove the name, and InfluxDB 3 may not send it."""
    with web_server(204, b"", "text/html") as url:
        outbox.append(rows(["a value=1 1"]))
        sent(outbox, Client(url, bucket="han"))
    assert "is an InfluxDB" in caplog.text
