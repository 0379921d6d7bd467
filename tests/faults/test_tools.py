"""The proxy makes each fault, and the meter knows which part of what it sent was read."""

from __future__ import annotations

import ast
import os
import random
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.protocol.hdlc import Deframer, Frame
from exporter.sinks.contract import Verdict
from tests.e2e.truth import read
from tests.faults import frames
from tests.faults.meter import KILLED, STOPPED, FaultyMeter
from tests.faults.process import BAD_WORDS
from tests.faults.proxy import FAULTS, FaultProxy
from tests.faults.strikes import plan
from tests.support.influx_server import Store, free_port
from tests.support.patience import until

METER = "7012345678901234"


def test_the_messages_that_no_fault_may_cause_are_still_in_the_product() -> None:
    texts = {
        node.value
        for path in (Path(__file__).parents[2] / "exporter").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert [words for words in BAD_WORDS if not any(words in text for text in texts)] == []


# --- the proxy --------------------------------------------------------------------------------------------------------

_REACH = {"reset in the answer", "504 after the write", "answer lost", "slow", "pass"}
_MAY_REACH = {"hang", "cut answer"}


@pytest.mark.parametrize("fault", ["pass", *FAULTS])
def test_a_fault_is_a_failure_for_the_writer_and_reaches_influxdb_as_described(store: Store, fault: str) -> None:
    mark = secrets.token_hex(4)
    with FaultProxy(store.url, random.Random(1)) as proxy:
        client = store.client(url=proxy.url)
        assert client.write([f"before_{mark} value=1 1000"]).verdict is Verdict.TAKEN
        proxy.set(fault)
        outcome = client.write([f"during_{mark} value=1 1000"], timeout=0.7 if fault == "hang" else None)
        assert (outcome.verdict is Verdict.TAKEN) == (fault in ("pass", "slow")), outcome
        if fault != "cut request":  # InfluxDB may answer that it is a bad request
            assert outcome.verdict in (Verdict.TAKEN, Verdict.RETRY)
        assert fault == "refuse" or proxy.hits[fault]
        proxy.set("pass")
        found = {series.name for series in store.query("SELECT * FROM /.*/")}
        assert f"before_{mark}" in found
        assert fault in _MAY_REACH or (f"during_{mark}" in found) == (fault in _REACH)
        assert client.write([f"after_{mark} value=1 1000"]).verdict is Verdict.TAKEN
        client.close()


def test_a_proxy_without_a_server_closes_the_connection(store: Store) -> None:
    with FaultProxy(f"http://127.0.0.1:{free_port()}", random.Random(1)) as proxy:
        client = store.client(url=proxy.url)
        assert client.write(["m value=1 1000"]).verdict is Verdict.RETRY
        client.close()


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", frames.MAKERS)
def test_frames_have_the_values_that_are_listed_for_them(maker: str) -> None:
    lists = frames.Lists(maker, METER, random.Random(1))
    made = [lists.any() for _ in range(300)]
    for one in made:
        reading = read(one.data)
        assert {str(m.obis): m.value for m in reading.measurements} == dict(one.values)
        assert reading.meter.id in (METER, None)
    assert len({one.number for one in made}) == 300
    assert read(lists.named().data).meter.id == METER


def test_bytes_that_are_not_a_frame_give_none() -> None:
    chance = random.Random(1)
    lists = frames.Lists("aidon", METER, chance)
    whole = lists.named().data
    damaged = [frames.half(lists.any().data, chance) for _ in range(200)]
    damaged += [garble(lists.any().data) for garble in (frames.framing_errors, frames.parity_as_bit_7)]
    damaged += [frames.noise(kind, 20_000, chance) for kind in frames.NOISES]
    found = [item for item in Deframer().feed(b"".join(one + whole for one in damaged)) if isinstance(item, Frame)]
    assert [item.content for item in found] == [found[-1].content] * len(damaged)


# --- the meter --------------------------------------------------------------------------------------------------------


readers: list[Reader] = []


def read_so_far(_: str) -> tuple[int, int] | None:
    return (len(readers), len(readers[-1].data)) if readers else None


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[FaultyMeter]:
    readers.clear()
    made = FaultyMeter(tmp_path / "port", "kaifa", METER, random.Random(1), read_so_far)
    made.begin()
    yield made
    made.end_session(KILLED)
    made.finish()
    made.close()


class Reader:
    """Reads the port as the exporter does, until it is stopped."""

    def __init__(self, meter: FaultyMeter) -> None:
        self.data = bytearray()
        self._port = os.open(meter.path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        readers.append(self)

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                data = os.read(self._port, 4096)
            except BlockingIOError:
                time.sleep(0.001)
                continue
            if not data:  # unplugged
                return
            self.data += data

    def stop(self) -> list[bytes]:
        """Stop reading. Returns the information fields of the frames that were read."""
        self._stop.set()
        self._thread.join()
        os.close(self._port)
        return [item.content for item in Deframer().feed(bytes(self.data)) if isinstance(item, Frame)]


def test_the_meter_knows_its_reader_and_what_was_read(meter: FaultyMeter) -> None:
    time.sleep(0.2)
    assert meter.session is None, "nobody reads"
    reader = Reader(meter)
    until(lambda: meter.session)
    session = meter.session
    assert session is not None
    until(lambda: len(session.frames) > 20 and len(reader.data) >= session.frames[19].end)
    taken = len(reader.stop())
    before = len(reader.data)
    until(lambda: session.frames[-1].end > before + 300)
    meter.end_session(STOPPED)
    assert session.handed is not None
    assert meter.session is None
    in_session = [one for one in session.frames if one.end <= session.handed]
    assert 20 <= len(in_session) <= taken
    assert session.handed == before, "all that was written and not read is counted"
    assert len(session.frames) > len(in_session)


def test_a_port_gets_another_number_and_only_whole_frames_count(meter: FaultyMeter) -> None:
    number = meter.path.readlink()
    reader = Reader(meter)
    until(lambda: meter.session)
    meter.break_off()
    meter.make_noise(secrets.token_bytes(5000))
    until(lambda: meter.ledger.counts["bytes of noise"] == 5000 and meter.ledger.counts["half frames"])
    meter.wrong_parity(0)
    until(lambda: meter.ledger.counts["frames with wrong parity"] > 3)
    meter.wrong_parity(None)
    first = meter.session
    until(meter.unplug_when_read)
    assert not meter.path.is_symlink()
    count = len(reader.stop())
    assert first is not None
    assert first.handed == first.frames[-1].end or first.handed is not None
    assert len(first.frames) <= count <= len(first.frames) + len(meter.ledger.unread)
    meter.plug()
    assert meter.path.readlink() != number
    again = Reader(meter)
    until(lambda: meter.session)
    assert meter.session is not first
    again.stop()


def test_a_plan_depends_only_on_its_seed() -> None:
    assert plan(5, 30) == plan(5, 30)
    assert plan(5, 30) != plan(6, 30)
    kinds = {strike.kind for round_ in plan(5, 300) for strike in round_}
    assert len(kinds) == 9 + len(FAULTS)
