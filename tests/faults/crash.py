"""Crashes at random moments: the installed `han-exporter run`, three meters, a real InfluxDB behind a fault proxy.

A campaign is some rounds of faults. After them, everything recovers, and every frame is looked for in InfluxDB.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from exporter.outbox.batch import Status
from exporter.outbox.queue import Outbox, OutboxError
from tests.e2e.harness import Home
from tests.faults import strikes
from tests.faults.frames import MAKERS, NOISES, noise
from tests.faults.meter import FaultyMeter
from tests.faults.process import Exporter
from tests.faults.proxy import FaultProxy
from tests.faults.servers import points_of
from tests.faults.strikes import PROXY, Strike
from tests.faults.verdict import Verdict, judge
from tests.support.influx_server import Influx
from tests.support.patience import Patience, until

_UNTIL_READ_S: Final = 3.0
PATIENCE_S: Final = 150.0
"""Longer than two of the longest waits of the writer."""


@dataclass(slots=True)
class Result:
    """The result of a campaign."""

    verdict: Verdict = field(default_factory=Verdict)
    faults: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    meters: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    rounds: int = 0

    def add(self, other: Result) -> None:
        """Add another one."""
        self.verdict.add(other.verdict)
        for mine, others in ((self.faults, other.faults), (self.requests, other.requests), (self.meters, other.meters)):
            mine.update(others)
        self.starts += other.starts
        self.rounds += other.rounds


class Campaign:
    """Some rounds with one exporter. `influx` can be used by others before and after."""

    def __init__(self, folder: Path, influx: Influx, seed: int) -> None:
        self._seed = seed
        self._influx = influx
        self._home = Home(folder)
        self._faults: Counter[str] = Counter()
        self._errors: list[BaseException] = []
        self._influx_turn, self._proxy_turn = threading.Lock(), threading.Lock()
        mark = f"{secrets.randbelow(10**14):014d}"
        names = folder / "dev/serial/by-id"
        self._exporter = Exporter(self._home, influx)
        for n, maker in enumerate(MAKERS):
            path, chance = names / f"usb-M-Bus_{maker}-if00-port0", random.Random(f"{seed} {maker}")
            self._exporter.meters.append(FaultyMeter(path, maker, f"7{n}{mark}", chance, self._exporter.read_so_far))
        self._meters = self._exporter.meters

    def run(self, rounds: int) -> Result:
        """Run the rounds, and compare what was sent with what InfluxDB has."""
        with ExitStack() as stack:
            stack.callback(self._home.end)
            for meter in self._meters:
                stack.callback(meter.close)
            proxy = stack.enter_context(FaultProxy(self._influx.url, random.Random(self._seed)))
            # A pseudo-terminal has no speed. With this one, bytes that come together have nearly the same time.
            sources = " ".join(f"{meter.path}?baud=4000000" for meter in self._meters)
            self._exporter.settings = {"influx_url": proxy.url, "source": sources, "instance": f"faults-{self._seed}"}
            self._begin()
            for planned in strikes.plan(self._seed, rounds):
                self._round(planned, proxy)
            self._recover(proxy)
            return self._result(proxy, rounds)

    def _begin(self) -> None:
        """Wait until each meter has sent its id: before that, lists without an id wait only in memory."""
        self._exporter.start()
        for meter in self._meters:
            meter.begin()
        until(lambda: len(self._names()) == len(self._meters), 60, "a meter's name in the outbox")

    def _names(self) -> dict[str, str]:
        try:
            outbox = Outbox(self._home.outbox, read_only=True)
        except OutboxError:
            return {}
        try:
            return outbox.states("last_id:")
        except OutboxError:
            return {}
        finally:
            outbox.close()

    def _round(self, planned: list[Strike], proxy: FaultProxy) -> None:
        def do(strike: Strike) -> None:
            try:
                time.sleep(strike.at)
                deadline = time.monotonic() + (_UNTIL_READ_S if strike.when_read else 0)
                while self._meters[strike.meter].session is None and time.monotonic() < deadline:
                    time.sleep(0.01)
                self._strike(strike, proxy)
                self._faults[strike.kind] += 1
            except BaseException as error:  # noqa: BLE001 - raised below
                self._errors.append(error)

        threads = [threading.Thread(target=do, args=(strike,), daemon=True) for strike in planned]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
        self._exporter.look()

    def _strike(self, strike: Strike, proxy: FaultProxy) -> None:
        if strike.kind.startswith(PROXY):
            with self._proxy_turn:
                proxy.set(strike.kind.removeprefix(PROXY))
                time.sleep(strike.lasts)
                proxy.set("pass")
        elif strike.kind == strikes.KILL_INFLUX:
            with self._influx_turn:
                self._influx.stop(kill=True)
                time.sleep(strike.lasts)
                self._influx.start()
        elif strike.kind == strikes.FREEZE:
            self._exporter.frozen(strike.lasts)
        elif strike.kind in (strikes.KILL, strikes.STOP):
            self._end_process(strike)
        elif strike.kind == strikes.REPLUG:
            self._replug(strike)
        else:
            _on_the_port(strike, self._meters[strike.meter])

    def _end_process(self, strike: Strike) -> None:
        chance = random.Random(strike.number)
        if strike.when_read:  # while it handles a frame
            self._meters[strike.meter].next_frame(1)
            time.sleep(chance.uniform(0, chance.choice((0.003, 0.02))))
        if strike.kind == strikes.KILL:
            self._exporter.kill()
        else:
            self._exporter.stop(frozen=chance.choice((0, 0, 0.4)))
        time.sleep(strike.lasts / 2)
        self._exporter.start()
        time.sleep(chance.choice((0.0, 0.3, 0.8)))  # so that the next fault comes before it reads, or after

    def _replug(self, strike: Strike) -> None:
        meter = self._meters[strike.meter]
        with self._exporter.turn:
            gone = strike.number % 2 == 0 and meter.unplug_when_read()
        if not gone:
            self._exporter.frozen(0, meter.unplug)
        time.sleep(strike.lasts)
        meter.plug()

    def _recover(self, proxy: FaultProxy) -> None:
        """End all faults, and wait until all is read and sent."""
        proxy.set("pass")
        if self._seed % 2:  # else the exporter recovers by itself
            self._exporter.stop()
            self._exporter.start()
        self._await(lambda: all(meter.session for meter in self._meters), "a reader of each port")
        time.sleep(0.5)
        for meter in self._meters:
            meter.finish()
        self._await(lambda: all(map(self._has_last_frame, self._meters)), "the last frames")
        self._await(lambda: self._outbox_status().depth_lines == 0, "an empty outbox")
        self._exporter.stop()

    def _await(self, true: Callable[[], bool], what: str) -> None:
        patience = Patience(PATIENCE_S)
        while not true():
            if patience.is_over():
                self._exporter.wrong.append(f"{what} did not come within {PATIENCE_S:.0f} s")
                return
            time.sleep(0.1)

    def _outbox_status(self) -> Status:
        outbox = Outbox(self._home.outbox, read_only=True)
        try:
            return outbox.status()
        finally:
            outbox.close()

    def _has_last_frame(self, meter: FaultyMeter) -> bool:
        session = meter.session
        if session is None or not session.frames:
            return True
        where = f"meter_id = '{meter.ledger.meter_id}' AND value = {session.frames[-1].number} AND time > now() - 1h"
        return bool(self._influx.query(f"SELECT value FROM active_power WHERE direction = 'import' AND {where}"))

    def _result(self, proxy: FaultProxy, rounds: int) -> Result:
        result = Result(faults=self._faults, requests=proxy.hits, starts=self._exporter.starts, rounds=rounds)
        for meter in self._meters:
            points = points_of(self._influx, meter.ledger.meter_id)
            result.verdict.add(judge(meter.ledger, points, self._exporter.pauses))
            result.meters.update(meter.ledger.counts)
        result.verdict.wrong += self._exporter.wrong
        status = self._outbox_status()
        if status.depth_lines or status.rejected_lines or status.dropped_lines:
            result.verdict.wrong.append(f"the outbox is not empty, or has lost lines: {status}")
        return result


def _on_the_port(strike: Strike, meter: FaultyMeter) -> None:
    chance = random.Random(strike.number)
    if strike.kind == strikes.NOISE:
        meter.make_noise(noise(chance.choice(NOISES), 100_000, chance))
    elif strike.kind == strikes.HALVES:
        for _ in range(chance.randrange(1, 6)):
            meter.break_off()
    elif strike.kind == strikes.PARITY:
        meter.wrong_parity(strike.number)
        time.sleep(strike.lasts)
        meter.wrong_parity(None)
    else:
        assert strike.kind == strikes.QUIET
        meter.be_quiet(True)
        time.sleep(strike.lasts)
        meter.be_quiet(False)
