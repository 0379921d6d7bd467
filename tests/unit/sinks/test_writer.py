"""The writer with a small fake of InfluxDB: order, splitting, proof, retries; and what answers mean."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from exporter.outbox.queue import Outbox
from exporter.sinks.contract import Verdict, WriteResult
from exporter.sinks.influx.answers import judge
from exporter.sinks.writer import Writer
from exporter.sinks.writer_status import WriterState
from tests.support.patience import HANG_S
from tests.support.rows import rows

BAD = WriteResult(Verdict.BAD_LINES, "unable to parse 'x': missing fields")
DOWN = WriteResult(Verdict.RETRY, "InfluxDB at http://influx cannot be reached: connection refused")
DENIED = WriteResult(Verdict.MISCONFIGURED, "the token may not write")
TAKEN = WriteResult(Verdict.TAKEN)


class FakeInflux:
    """Takes lines as InfluxDB does. It refuses those with `bad`, alone as 1.8 does, or with the whole batch as 2.8."""

    address = "http://influx"

    def __init__(self, *, takes_the_good: bool = False) -> None:
        self.points: dict[str, str] = {}
        self.posts: list[tuple[str, ...]] = []
        self.script: list[WriteResult] = []
        self.refuse: Callable[[str], bool] = lambda line: "bad" in line
        self.largest = 10**9
        self.takes_the_good = takes_the_good
        self.on_post: Callable[[], None] = lambda: None

    def write(self, lines: Sequence[str], *, timeout: float | None = None) -> WriteResult:
        self.posts.append(tuple(lines))
        self.on_post()
        if self.script:
            return self.script.pop(0)
        if len(lines) > self.largest:
            return WriteResult(Verdict.MISCONFIGURED, "too large", too_large=True)
        refused = [line for line in lines if self.refuse(line)]
        if not refused or self.takes_the_good:
            for line in lines:
                if line not in refused:
                    series, value, stamp = line.split(" ")
                    self.points[f"{series} {stamp}"] = value
        return BAD if refused else TAKEN


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "outbox.db")
    yield outbox
    outbox.close()


def line(number: int, name: str = "power") -> str:
    return f"{name} value={number} {number}"


def lines(start: int, end: int) -> list[str]:
    return [line(number) for number in range(start, end)]


def one_pass(writer: Writer) -> None:
    """What run does at its end: send until nothing waits or something fails, without waiting."""
    stop = threading.Event()
    stop.set()
    writer.run(stop)


def run_through_failures(
    outbox: Outbox, influx: FakeInflux, failures: int, **options: bool
) -> tuple[Writer, list[int]]:
    """Run until so many failures were waited for, without waiting; return the numbers the pauses were asked with."""
    stop = threading.Event()
    asked: list[int] = []

    def pause(number: int) -> float:
        asked.append(number)
        if len(asked) == failures:
            stop.set()
        return 0.0

    writer = Writer(outbox, influx, pause=pause)
    writer.run(stop)
    return writer, asked


def test_everything_goes_in_batches_and_leaves_the_outbox(outbox: Outbox) -> None:
    for start in range(0, 100, 10):
        outbox.append(rows(lines(start, start + 10)))
    influx = FakeInflux()
    writer = Writer(outbox, influx, batch_lines=30)
    assert writer.status().state is WriterState.STARTING
    one_pass(writer)
    assert len(influx.points) == 100
    assert outbox.status().depth_lines == 0
    assert [len(post) for post in influx.posts] == [30, 30, 30, 10]
    assert influx.posts[0][-1] == line(99)  # newest first
    assert influx.posts[1][0] == line(0)  # then oldest
    assert writer.status().state is WriterState.OK
    assert writer.status().points_written == 100
    assert writer.status().last_latency_s is not None


def test_new_lines_are_sent_at_once_and_stop_ends_it(outbox: Outbox) -> None:
    influx = FakeInflux()
    posted = threading.Event()
    influx.on_post = posted.set
    stop = threading.Event()
    thread = threading.Thread(target=Writer(outbox, influx).run, args=(stop,))
    thread.start()
    outbox.append(rows(lines(0, 1)))
    assert posted.wait(HANG_S)
    stop.set()
    outbox.wake()
    thread.join(HANG_S)
    assert not thread.is_alive()
    assert list(influx.points) == ["power 0"]


def test_a_network_error_loses_and_doubles_nothing(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    outbox.append(rows(lines(0, 5)))
    influx = FakeInflux()
    influx.script = [DOWN] * 4
    writer, asked = run_through_failures(outbox, influx, 4)
    assert asked == [1, 2, 3, 4]
    assert len(influx.points) == 5
    assert outbox.status().depth_lines == 0
    assert writer.status().retries == 4
    assert writer.status().state is WriterState.OK
    assert writer.status().last_error == DOWN.message
    assert caplog.text.count("connection refused (5 lines") == 1  # once, not four times
    assert "takes lines again" in caplog.text


def test_an_answer_lost_after_the_write_only_sends_again(outbox: Outbox) -> None:
    outbox.append(rows(lines(0, 3)))
    influx = FakeInflux()
    one_pass(Writer(outbox, influx))
    outbox.append(rows(lines(0, 3)))
    one_pass(Writer(outbox, influx))
    assert len(influx.points) == 3


def test_retry_after_is_obeyed(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox.append(rows(lines(0, 1)))
    influx = FakeInflux()
    influx.script = [WriteResult(Verdict.RETRY, "busy", retry_after=17.0), DOWN]
    slept: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            slept.append(timeout or 0.0)
            if len(slept) == 2:
                self.set()
            return False

    Writer(outbox, influx).run(Stop())
    assert slept[0] == 17.0
    assert 0.5 <= slept[1] <= 1.0  # the second failure in a row
    assert len(influx.points) == 1  # by the last try, after stop


def test_pauses_grow_to_a_minute_with_jitter() -> None:
    from exporter.sinks.backoff import pause

    assert all(0.25 <= pause(1) <= 0.5 for _ in range(50))
    assert all(30 <= pause(100_000) <= 60 for _ in range(50))
    assert len({pause(9) for _ in range(10)}) > 1


@pytest.mark.parametrize("takes_the_good", [True, False])
@pytest.mark.parametrize("bad", [[0], [99], [50], [3, 4, 5, 77], list(range(60, 100)), list(range(0, 60))])
def test_only_bad_lines_are_refused(outbox: Outbox, takes_the_good: bool, bad: list[int]) -> None:
    good = [number for number in range(100) if number not in bad]
    for number in range(0, 100, 10):
        outbox.append(rows([line(n, "bad" if n in bad else "power") for n in range(number, number + 10)]))
    influx = FakeInflux(takes_the_good=takes_the_good)
    writer = Writer(outbox, influx)
    one_pass(writer)
    assert sorted(influx.points) == sorted(f"power {number}" for number in good)
    assert sorted(one.line for one in outbox.refused()) == sorted(line(number, "bad") for number in bad)
    assert outbox.refused(1)[0].message == BAD.message
    assert outbox.status().depth_lines == 0
    assert writer.status().lines_rejected == len(bad)


def test_a_server_that_refuses_every_line_drains_nothing(outbox: Outbox) -> None:
    for start in range(0, 2000, 100):
        outbox.append(rows(lines(start, start + 100)))
    influx = FakeInflux()
    influx.refuse = lambda line: True
    writer = Writer(outbox, influx)
    one_pass(writer)
    assert outbox.status().depth_lines == 2000
    assert outbox.status().rejected_lines == 0
    assert writer.status().state is WriterState.MISCONFIGURED
    assert "refuses every line" in writer.status().last_error
    assert len(influx.posts) < 100  # and not one post a line


def test_one_bad_line_alone_waits_for_a_good_one(outbox: Outbox) -> None:
    outbox.append(rows([line(1, "bad")]))
    influx = FakeInflux()
    writer = Writer(outbox, influx)
    one_pass(writer)
    assert outbox.status().depth_lines == 1
    outbox.append(rows([line(2)]))
    one_pass(writer)
    assert list(influx.points) == ["power 2"]
    assert [one.line for one in outbox.refused()] == [line(1, "bad")]
    assert outbox.status().depth_lines == 0


def test_the_witness_proves_a_bad_line_that_comes_alone(outbox: Outbox) -> None:
    influx = FakeInflux()
    writer = Writer(outbox, influx)
    outbox.append(rows([line(1)]))
    one_pass(writer)
    outbox.append(rows([line(2, "bad")]))
    one_pass(writer)
    assert influx.posts[-1] == (line(1),)
    assert outbox.status().rejected_lines == 1
    influx.refuse = lambda line: True  # now the server is at fault, and the witness tells
    outbox.append(rows([line(3)]))
    one_pass(writer)
    assert outbox.status().rejected_lines == 1
    assert outbox.status().depth_lines == 1


def test_bad_lines_at_one_end_do_not_keep_the_other_from_going(outbox: Outbox) -> None:
    for start in range(0, 400, 10):
        outbox.append(rows([line(n, "bad" if n < 200 else "power") for n in range(start, start + 10)]))
    influx = FakeInflux()
    one_pass(Writer(outbox, influx, batch_lines=50))
    assert len(influx.points) == 200
    assert outbox.status().rejected_lines == 200
    assert outbox.status().depth_lines == 0


def test_a_few_good_lines_among_many_bad_ones_are_found_in_the_end(outbox: Outbox) -> None:
    outbox.append(rows([line(n, "power" if n % 10 == 9 else "bad") for n in range(500) if n > 40 or n % 10 != 9]))
    influx = FakeInflux()
    writer = Writer(outbox, influx)
    while outbox.status().depth_lines:
        one_pass(writer)
    assert len(influx.points) == 46


@pytest.mark.parametrize("result", [DOWN, DENIED])
def test_a_failure_in_the_middle_of_splitting_changes_nothing(outbox: Outbox, result: WriteResult) -> None:
    outbox.append(rows([*lines(0, 8), line(8, "bad")]))
    influx = FakeInflux()
    influx.script = [BAD, TAKEN, result]
    writer = Writer(outbox, influx)
    one_pass(writer)
    assert outbox.status().depth_lines == 9
    assert outbox.status().rejected_lines == 0
    one_pass(writer)
    assert outbox.status().depth_lines == 0
    assert outbox.status().rejected_lines == 1


def test_a_batch_too_large_is_halved_and_grows_again(outbox: Outbox) -> None:
    outbox.append(rows(lines(0, 100)))
    influx = FakeInflux()
    influx.largest = 30
    writer = Writer(outbox, influx)
    one_pass(writer)
    assert len(influx.points) == 100
    assert outbox.status().depth_lines == 0
    influx.largest = 100
    for start in range(100, 5000, 100):
        outbox.append(rows(lines(start, start + 100)))
        one_pass(writer)
    assert len(influx.posts[-1]) == 100


def test_one_line_that_is_too_large_is_not_drained(outbox: Outbox) -> None:
    outbox.append(rows(lines(0, 4)))
    influx = FakeInflux()
    influx.largest = 0
    writer = Writer(outbox, influx)
    one_pass(writer)
    assert outbox.status().depth_lines == 4
    assert writer.status().state is WriterState.MISCONFIGURED


def test_the_newest_version_of_a_replaced_point_arrives_last(outbox: Outbox) -> None:
    for hour in range(50):
        outbox.append(rows([line(hour), f"day_energy,meter_id=1 value={hour} 0"]))
    influx = FakeInflux()
    influx.script = []
    writer = Writer(outbox, influx, batch_lines=10)
    one_pass(writer)
    assert influx.points["day_energy,meter_id=1 0"] == "value=49"
    assert len(influx.points) == 51
    assert outbox.status().depth_lines == 0
    assert influx.posts[0][-1].startswith("day_energy")  # and it was not held back for that


def test_a_kill_between_two_batches_keeps_the_newest_version_for_last(outbox: Outbox) -> None:
    for hour in range(20):
        outbox.append(rows([line(hour), f"day_energy,meter_id=1 value={hour} 0"]))
    influx = FakeInflux()
    influx.script = []
    calls = 0

    def fail_on_second() -> None:
        nonlocal calls
        calls += 1
        influx.script = [DOWN] if calls == 2 else []

    influx.on_post = fail_on_second
    one_pass(Writer(outbox, influx, batch_lines=10))
    assert influx.points["day_energy,meter_id=1 0"] == "value=19"
    assert len(influx.points) == 6
    one_pass(Writer(outbox, influx, batch_lines=10))  # another process, later
    assert influx.points["day_energy,meter_id=1 0"] == "value=19"
    assert len(influx.points) == 21


def test_an_outbox_that_fails_is_tried_again(outbox: Outbox) -> None:
    writer = Writer(outbox, FakeInflux())
    outbox.append(rows(lines(0, 1)))
    outbox.close()
    one_pass(writer)
    assert "is closed" in writer.status().last_error


@pytest.mark.parametrize(
    ("status", "body", "verdict", "kind"),
    [
        (204, "", Verdict.TAKEN, ""),
        # InfluxDB 1.8.10, as it answered
        (400, '{"error":"partial write: points beyond retention policy dropped=1"}', Verdict.BAD_LINES, "beyond"),
        (400, '{"error":"unable to parse \'a value=NaN\': invalid number"}', Verdict.BAD_LINES, "NaN"),
        (401, '{"error":"unable to parse authentication credentials"}', Verdict.MISCONFIGURED, "HAN_INFLUX_TOKEN"),
        (403, '{"error":"\\"r\\" user is not authorized"}', Verdict.MISCONFIGURED, "may not write"),
        (404, '{"error":"database not found: \\"nodb\\""}', Verdict.MISCONFIGURED, "create it"),
        (500, '{"error":"retention policy not found: norp"}', Verdict.MISCONFIGURED, "HAN_INFLUX_BUCKET"),
        (400, '{"error":"unexpected EOF"}', Verdict.MISCONFIGURED, "unexpected EOF"),
        # InfluxDB 2.8.0, as it answered
        (
            422,
            '{"code":"unprocessable entity","message":"failure writing points to database: partial write: field type '
            'conflict: input field \\"value\\" on measurement \\"p\\" is type string"}',
            Verdict.BAD_LINES,
            "type conflict",
        ),
        (422, '{"code":"conflict","message":"something else"}', Verdict.MISCONFIGURED, "something else"),
        (404, '{"code":"not found","message":"organization name \\"hom\\" not found"}', Verdict.MISCONFIGURED, "hom"),
        # InfluxDB 3, by its documents
        (
            400,
            '{"error":"partial write of line protocol occurred","data":[{"original_line":"x","line_number":1,'
            '"error_message":"No fields were provided"}]}',
            Verdict.BAD_LINES,
            "No fields",
        ),
        # what is no InfluxDB
        (400, "Client sent an HTTP request to an HTTPS server.\n", Verdict.MISCONFIGURED, "http or https"),
        (400, "<html><title>400 unable to parse 'x'</title></html>", Verdict.MISCONFIGURED, "no InfluxDB"),
        (200, "<html>a page</html>", Verdict.MISCONFIGURED, "no InfluxDB"),
        (301, "", Verdict.MISCONFIGURED, "redirects"),
        (404, "not found", Verdict.MISCONFIGURED, "HAN_INFLUX_URL"),
        (413, "", Verdict.MISCONFIGURED, "too large"),
        (400, "[1, 2]", Verdict.MISCONFIGURED, "no InfluxDB"),
        (502, "<html>bad gateway</html>", Verdict.RETRY, "502 (bad gateway)"),
        (503, '{"error":"timeout"}', Verdict.RETRY, "timeout"),
        (429, "", Verdict.RETRY, "429"),
    ],
)
def test_what_answers_mean(status: int, body: str, verdict: Verdict, kind: str) -> None:
    result = judge(status, body, None, target='bucket "han"', address="http://influx:8086")
    assert result.verdict is verdict
    assert kind in result.message
    assert result.too_large is (status == 413)


def test_an_answer_cannot_forge_log_lines_or_fill_the_log() -> None:
    result = judge(500, "a\nERROR all is lost\x1b[31m" + "x" * 10_000, None, target="t", address="a")
    assert "\n" not in result.message
    assert "\x1b" not in result.message
    assert len(result.message) < 700


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("1e9", 3600.0),
        ("-3", 0.0),
        ("soon", None),
        (None, None),
        ("nan", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2115 07:28:00 GMT", 3600.0),
    ],
)
def test_retry_after_in_seconds_or_as_a_date(header: str | None, seconds: float | None) -> None:
    assert judge(429, "", header, target="t", address="a").retry_after == seconds


@pytest.mark.parametrize(
    ("body", "retry_after"),
    [("[" * 200_000, None), ("{}", "Mon, 31 Dec 9999 23:59:59 -2300"), ("{}", "Fri, 99 Foo 2026 00:00:00 GMT")],
)
def test_an_answer_that_nobody_would_give_is_an_result(body: str, retry_after: str | None) -> None:
    result = judge(400, body, retry_after, target='bucket "han"', address="http://influx")
    assert result.verdict is not Verdict.TAKEN
