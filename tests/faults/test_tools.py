"""The proxy does each fault, and the meter knows what was taken of what it sent."""

from __future__ import annotations

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
from tests.faults.proxy import FAULTS, FaultProxy
from tests.faults.strikes import plan
from tests.support.influx_server import Store, free_port
from tests.support.patience import until

METER = "7012345678901234"

# --- the proxy --------------------------------------------------------------------------------------------------------

_REACHES = {"reset in the answer", "504 after the write", "answer lost", "slow", "pass"}
_MAY_REACH = {"hang", "cut answer"}


@pytest.mark.parametrize("fault", ["pass", *FAULTS])
def test_a_fault_is_one_to_the_writer_and_does_what_it_says(store: Store, fault: str) -> None:
    mark = secrets.token_hex(4)
    with FaultProxy(store.url, random.Random(1)) as proxy:
        client = store.client(url=proxy.url)
        assert client.write([f"before_{mark} value=1 1000"]).verdict is Verdict.TAKEN
        proxy.set(fault)
        outcome = client.write([f"during_{mark} value=1 1000"], timeout=0.7 if fault == "hang" else None)
        assert (outcome.verdict is Verdict.TAKEN) == (fault in ("pass", "slow")), outcome
        if fault != "cut request":  # which InfluxDB may answer as what it is, a bad request
            assert outcome.verdict in (Verdict.TAKEN, Verdict.RETRY)
        assert fault == "refuse" or proxy.hits[fault]
        proxy.set("pass")
        there = {series.name for series in store.query("SELECT * FROM /.*/")}
        assert f"before_{mark}" in there
        assert fault in _MAY_REACH or (f"during_{mark}" in there) == (fault in _REACHES)
        assert client.write([f"after_{mark} value=1 1000"]).verdict is Verdict.TAKEN
        client.close()


def test_a_proxy_before_nothing_cuts_the_connection(store: Store) -> None:
    with FaultProxy(f"http://127.0.0.1:{free_port()}", random.Random(1)) as proxy:
        client = store.client(url=proxy.url)
        assert client.write(["m value=1 1000"]).verdict is Verdict.RETRY
        client.close()


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maker", frames.MAKERS)
def test_frames_say_what_they_are_said_to_say(maker: str) -> None:
    lists = frames.Lists(maker, METER, random.Random(1))
    made = [lists.any() for _ in range(300)]
    for one in made:
        reading = read(one.octets)
        assert {str(m.obis): m.value for m in reading.measurements} == dict(one.values)
        assert reading.meter.id in (METER, None)
    assert len({one.number for one in made}) == 300
    assert read(lists.named().octets).meter.id == METER


def test_what_is_no_frame_gives_none() -> None:
    chance = random.Random(1)
    lists = frames.Lists("aidon", METER, chance)
    whole = lists.named().octets
    damaged = [frames.half(lists.any().octets, chance) for _ in range(200)]
    damaged += [garble(lists.any().octets) for garble in (frames.framing_errors, frames.parity_as_bit_7)]
    damaged += [frames.noise(kind, 20_000, chance) for kind in frames.NOISES]
    found = [item for item in Deframer().feed(b"".join(one + whole for one in damaged)) if isinstance(item, Frame)]
    assert [item.content for item in found] == [found[-1].content] * len(damaged)


# --- the meter --------------------------------------------------------------------------------------------------------


readers: list[Reader] = []


def heard(_: str) -> tuple[int, int] | None:
    return (len(readers), len(readers[-1].octets)) if readers else None


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[FaultyMeter]:
    readers.clear()
    made = FaultyMeter(tmp_path / "port", "kaifa", METER, random.Random(1), heard)
    made.begin()
    yield made
    made.end_session(KILLED)
    made.finish()
    made.close()


class Reader:
    """Reads the port as the exporter does, until it is to stop."""

    def __init__(self, meter: FaultyMeter) -> None:
        self.octets = bytearray()
        self._port = os.open(meter.path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        readers.append(self)

    def _read(self) -> None:
        while not self._stop.is_set():
            try:
                octets = os.read(self._port, 4096)
            except BlockingIOError:
                time.sleep(0.001)
                continue
            if not octets:  # unplugged
                return
            self.octets += octets

    def stop(self) -> list[bytes]:
        """Read no more; the information fields of the frames that came."""
        self._stop.set()
        self._thread.join()
        os.close(self._port)
        return [item.content for item in Deframer().feed(bytes(self.octets)) if isinstance(item, Frame)]


def test_it_knows_who_listens_and_what_was_taken(meter: FaultyMeter) -> None:
    time.sleep(0.2)
    assert meter.session is None, "nobody reads"
    reader = Reader(meter)
    until(lambda: meter.session)
    session = meter.session
    assert session is not None
    until(lambda: len(session.frames) > 20 and len(reader.octets) >= session.frames[19].end)
    taken = len(reader.stop())
    before = len(reader.octets)
    until(lambda: session.frames[-1].end > before + 300)
    meter.end_session(STOPPED)
    assert session.handed is not None
    assert meter.session is None
    in_session = [one for one in session.frames if one.end <= session.handed]
    assert 20 <= len(in_session) <= taken
    assert session.handed == before, "all that was written and not read was counted"
    assert len(session.frames) > len(in_session)


def test_a_port_comes_back_under_another_number_and_only_what_is_whole_counts(meter: FaultyMeter) -> None:
    number = meter.path.readlink()
    reader = Reader(meter)
    until(lambda: meter.session)
    meter.break_off()
    meter.make_noise(secrets.token_bytes(5000))
    until(lambda: meter.ledger.counts["octets of noise"] == 5000 and meter.ledger.counts["half frames"])
    meter.wrong_parity(0)
    until(lambda: meter.ledger.counts["frames at wrong parity"] > 3)
    meter.wrong_parity(None)
    first = meter.session
    until(meter.unplug_when_read)
    assert not meter.path.is_symlink()
    came = len(reader.stop())
    assert first is not None
    assert first.handed == first.frames[-1].end or first.handed is not None
    assert len(first.frames) <= came <= len(first.frames) + len(meter.ledger.unheard)
    meter.plug()
    assert meter.path.readlink() != number
    again = Reader(meter)
    until(lambda: meter.session)
    assert meter.session is not first
    again.stop()


def test_a_plan_is_its_seed_s() -> None:
    assert plan(5, 30) == plan(5, 30)
    assert plan(5, 30) != plan(6, 30)
    kinds = {strike.kind for round_ in plan(5, 300) for strike in round_}
    assert len(kinds) == 9 + len(FAULTS)
