"""Writing the lines of a file: what is counted, what is tried again, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest

from exporter.sinks.contract import Verdict, WriteResult
from exporter.sinks.influx import bulk_writer as module
from exporter.sinks.influx.bulk_writer import BulkWriter, GaveUp
from exporter.sinks.influx.client import Client
from tests.support.patience import quiet_seconds

TAKEN = WriteResult(Verdict.TAKEN)
AWAY = WriteResult(Verdict.RETRY, "away")
CONFLICT = "failure writing points: partial write: field type conflict: p is text dropped="


class Server:
    """Answers with `answer`, and keeps what was sent."""

    def __init__(self, answer: Callable[[list[str]], WriteResult]) -> None:
        self.answer = answer
        self.posted: list[list[str]] = []

    def write(self, texts: Sequence[str]) -> WriteResult:
        lines = "\n".join(texts).split("\n")
        self.posted.append(lines)
        return self.answer(lines)


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def make(messages: list[str]) -> Iterator[Callable[[Callable[[list[str]], WriteResult]], tuple[BulkWriter, Server]]]:
    made: list[BulkWriter] = []

    def of(answer: Callable[[list[str]], WriteResult]) -> tuple[BulkWriter, Server]:
        server = Server(answer)
        made.append(BulkWriter(cast("Client", server), messages.append))
        return made[-1], server

    yield of
    for one in made:
        one.close()


def test_lines_are_counted_not_texts(make: Any) -> None:
    writer, server = make(lambda _lines: TAKEN)
    assert not writer.take(["a\nb", "c"])
    assert not server.posted
    writer.finish()
    assert (writer.written, writer.rejected) == (3, 0)


def test_a_full_batch_is_posted(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH_BYTES", 4)
    writer, server = make(lambda _lines: TAKEN)
    assert [writer.take([text]) for text in ("abc", "d", "e")] == [False, True, False]
    writer.finish()
    assert sorted(map(tuple, server.posted)) == [("abc", "d"), ("e",)]


def test_what_a_partial_write_dropped_is_counted_and_nothing_is_sent_twice(make: Any) -> None:
    writer, server = make(lambda lines: WriteResult(Verdict.BAD_LINES, f"{CONFLICT}{sum(one < 'c' for one in lines)}"))
    writer.post(["a", "b", "c", "d"])
    writer.post(["a", "d"])
    assert (writer.written, writer.rejected, len(server.posted)) == (3, 3, 2)
    assert writer.reasons == ["partial write: field type conflict: p is text"]


def test_a_line_that_cannot_be_parsed_is_found_by_splitting(make: Any) -> None:
    writer, _ = make(lambda lines: WriteResult(Verdict.BAD_LINES, "unable to parse 'x'") if "x" in lines else TAKEN)
    writer.take(["a\nx", "b\nc\nd"])
    writer.finish()
    assert (writer.written, writer.rejected, writer.reasons) == (4, 1, ["unable to parse 'x'"])


def test_it_gives_up_once_when_the_server_refuses(make: Any) -> None:
    writer, server = make(lambda _lines: WriteResult(Verdict.MISCONFIGURED, "no such bucket"))
    with pytest.raises(GaveUp, match="no such bucket"):
        writer.post(["a"])
    writer.post(["b"])
    assert server.posted == [["a"]]


def test_a_minute_is_counted_over_all_batches(make: Any, messages: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def away(_lines: list[str]) -> WriteResult:
        now[0] += 20
        return AWAY

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(threading.Event, "wait", lambda *_, **__: False)
    writer, server = make(away)
    with pytest.raises(GaveUp, match="away"):
        writer.post(["a"])
    assert len(server.posted) == 4  # the minute begins with the first failure
    assert messages == ["away; trying again"] * 3


def test_closing_ends_the_waiting(make: Any) -> None:
    writer, _ = make(lambda _lines: AWAY)
    threading.Timer(0.1, writer.close).start()
    begun = time.monotonic()
    writer.post(["a"])
    assert quiet_seconds(time.monotonic() - begun) < 10  # not a minute
