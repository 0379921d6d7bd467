"""What takes a minute of real time, all at the same time: simulated meters at the speed of a port, outages, waits."""

from __future__ import annotations

import itertools
import queue
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from exporter.simulator import aidon, kaifa, kamstrup
from exporter.simulator.household import Household
from exporter.simulator.meter import MAKERS as MAKERS_OF_METERS
from exporter.simulator.meter import OSLO, Frame, SimulatedMeter
from exporter.simulator.sample import Identity
from tests.e2e.harness import BAUD_2400, Home, Meter
from tests.e2e.truth import times_of
from tests.support.influx_server import Influx, Point, Store, free_port, serve
from tests.support.octets import array, frame, notification, obis, octet_string, structure, u32
from tests.support.patience import HANG_S, until

SECONDS: Final = 60.0
MAKERS: Final = ("kamstrup", "aidon", "kaifa")


@dataclass
class Sent:
    """What one meter sent: each frame, and when its first and its last byte were handed over (ms since 1970)."""

    meter_id: str
    frames: list[bytes] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)


@dataclass
class Result:
    """The result of a scenario."""

    sent: list[Sent]
    points: set[Point] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    stopped_in: float = 0
    instance: str = ""


class Minute:
    """Scenarios that run in threads; `result` waits for one."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._making = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._results: dict[str, queue.Queue[Result | subprocess.CompletedProcess[str] | BaseException]] = {}
        self._clean: list[Callable[[], object]] = []

    def begin(self) -> None:
        """Start them all."""
        for name, scenario in (
            ("steady", self._steady),
            ("outage", self._outage),
            ("nameless", self._nameless),
            ("patience", self._patience),
        ):
            self._results[name] = queue.Queue()
            thread = threading.Thread(target=self._work, args=(name, scenario), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def end(self) -> None:
        """Stop what still runs."""
        self._stop.set()
        for clean in reversed(self._clean):
            clean()
        for thread in self._threads:
            thread.join(HANG_S)

    def result(self, name: str) -> Result | subprocess.CompletedProcess[str]:
        """Wait for a scenario."""
        result = self._results[name].get(timeout=HANG_S)
        self._results[name].put(result)  # for the next call
        if isinstance(result, BaseException):
            raise result
        return result

    def _work(self, name: str, scenario: Callable[[], Result | subprocess.CompletedProcess[str]]) -> None:
        try:
            self._results[name].put(scenario())
        except BaseException as error:  # noqa: BLE001 - raised by `result`
            self._results[name].put(error)

    def _folder(self, name: str) -> Path:
        with self._making:  # pytest's is not for several threads
            return self._folders.mktemp(name)

    def _home(self, name: str) -> Home:
        home = Home(self._folder(name))
        self._clean.append(home.end)
        return home

    def _server(self) -> Influx:
        server = serve(self._folder("influxd"))
        self._clean.append(server.stop)
        return server

    def _plug(self, home: Home, name: str) -> Meter:
        meter = Meter(home.folder / f"tty-{name}")
        self._clean.append(meter.unplug)
        return meter

    # --- a minute of three meters that send each list at its time

    def _steady(self) -> Result:
        home, store = self._home("steady"), Store(self._server())
        instance = f"steady-{secrets.token_hex(4)}"
        meters = {maker: self._plug(home, maker) for maker in MAKERS}
        result = Result([Sent(f"STEADY-{maker}-{secrets.token_hex(4)}") for maker in MAKERS], instance=instance)
        ports = " ".join(str(meter.path) for meter in meters.values())
        run = home.run(influx=store, source=ports, instance=instance)
        run.expect(r"\(2400 8N1\) is open", times=3)
        self._together(
            [
                lambda port=port, maker=maker, sent=sent: self._when_due(port, maker, sent)  # type: ignore[misc]
                for (maker, port), sent in zip(meters.items(), result.sent, strict=True)
            ]
        )
        frames = sum(len(sent.frames) for sent in result.sent)
        # The exporter writes its count every 10 s: wait for the one with all frames.
        until(
            lambda: self._stop.is_set() or any(dict(p.fields)["frames"] == frames for p in store.points("exporter")),
            25,
            f"a count of all {frames} frames",
        )
        result.stopped_in = run.stop()
        result.points, result.log = store.points(), run.log
        return result

    def _when_due(self, port: Meter, maker: str, sent: Sent) -> None:
        start = datetime.now(UTC)
        end = start + timedelta(seconds=SECONDS)
        frames = list(SimulatedMeter(maker, meter_id=sent.meter_id).frames(start, end))
        if maker == "kamstrup":  # a Swedish meter: registers and clock every 10 s
            frames = list(_swedish(sent.meter_id, [frame.complete for frame in frames]))
        port.send(frames[0].data[len(frames[0].data) // 2 :])  # reading starts in the middle of a frame
        for complete, data in frames:
            begin = complete - timedelta(seconds=len(data) / BAUD_2400)
            if self._stop.wait(max(0, (begin - datetime.now(UTC)).total_seconds())):
                return
            self._send(port, data, sent)

    # --- a minute of three meters that send all the time, while InfluxDB is stopped twice

    def _outage(self) -> Result:
        home, server = self._home("outage"), self._server()
        store = Store(server)
        meters = {maker: self._plug(home, maker) for maker in MAKERS}
        result = Result([Sent(f"OUTAGE-{maker}-{secrets.token_hex(4)}") for maker in MAKERS])
        ports = " ".join(str(meter.path) for meter in meters.values())
        run = home.run(influx=store, source=ports)
        run.expect(r"\(2400 8N1\) is open", times=3)

        def stop_and_start() -> None:
            for seconds, act in (
                (15, server.stop),
                (8, server.start),
                (12, lambda: server.stop(kill=True)),
                (6, server.start),
            ):
                if self._stop.wait(seconds):
                    return
                act()

        self._together(
            [
                stop_and_start,
                *(
                    lambda port=port, maker=maker, sent=sent: self._all_the_time(port, maker, sent)
                    for (maker, port), sent in zip(meters.items(), result.sent, strict=True)
                ),
            ]
        )

        def all_found() -> bool:
            points = store.points("active_power")
            return all(len(times_of(points, sent.meter_id)) >= len(sent.frames) for sent in result.sent)

        until(lambda: self._stop.is_set() or all_found(), 40, "all that was sent, also during the outages")
        result.stopped_in = run.stop()
        result.points, result.log = store.points(), run.log
        return result

    def _all_the_time(self, port: Meter, maker: str, sent: Sent) -> None:
        bytes_left = SECONDS * BAUD_2400
        for data in _lists_of(maker, sent.meter_id):
            bytes_left -= len(data)
            if bytes_left < 0 or self._stop.is_set():
                return
            self._send(port, data, sent)

    # --- a meter that sends no id for a minute

    def _nameless(self) -> Result:
        home, store = self._home("nameless"), Store(self._server())
        name = f"nameless-{secrets.token_hex(4)}"
        port = self._plug(home, name)
        result = Result([Sent(f"unknown-tty-{name}")])
        run = home.run(influx=store, source=str(port.path))
        run.expect("is open")
        for number in range(3):
            power = structure(obis("1-0:1.7.0"), u32(1000 + number), structure(b"\x0f\x00", b"\x16\x1b"))
            self._send(port, frame(notification(array(power))), result.sent[0])
        run.expect("reading tty-nameless")
        assert not store.points("active_power")
        until(lambda: self._stop.is_set() or store.points("active_power"), 75, "the nameless lists")
        result.sent[0].done.append(round(time.time() * 1000))  # when they were found
        meter_id = structure(obis("0-0:96.1.0"), octet_string("NAMED-AT-LAST"))
        power = structure(obis("1-0:1.7.0"), u32(2000), structure(b"\x0f\x00", b"\x16\x1b"))
        self._send(port, frame(notification(array(meter_id, power))), Sent(""))
        until(lambda: self._stop.is_set() or len(store.points("active_power")) == 4, 10, "the list with a name")
        result.stopped_in = run.stop()
        result.points, result.log = store.points(), run.log
        return result

    # --- an import that waits for an InfluxDB that does not answer

    def _patience(self) -> subprocess.CompletedProcess[str]:
        home = self._home("patience")
        capture = home.folder / "capture.hex"
        capture.write_text(next(_lists_of("kamstrup", "PATIENCE")).hex())
        return home.han("import", capture, influx_url=f"http://127.0.0.1:{free_port()}")

    # ---

    def _send(self, port: Meter, data: bytes, sent: Sent) -> None:
        sent.begun.append(round(time.time() * 1000))
        sent.done.append(round(port.send_at_pace(data, self._stop) * 1000))
        sent.frames.append(data)

    def _together(self, works: list[Callable[[], None]]) -> None:
        errors: list[BaseException] = []

        def do(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised below
                errors.append(error)

        threads = [threading.Thread(target=do, args=(work,), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]


def _lists_of(maker: str, meter_id: str) -> Iterator[bytes]:
    """Endless lists of every kind except the hourly one, with the right clock."""
    household = Household(7, 3, "TN", OSLO)
    meter = Identity(meter_id.encode(), MAKERS_OF_METERS[maker].types[1])
    for n in itertools.count():
        now = datetime.now(UTC)
        sample = household.sample(now + timedelta(minutes=n))  # a minute later in each list, so that values change
        if maker == "kamstrup":
            yield kamstrup.list1(meter, sample, kamstrup.clock(now, OSLO))
        elif maker == "aidon":
            yield aidon.list1(sample) if n % 4 else aidon.list2(meter, sample)
        else:
            clock = kaifa.clock(now, OSLO)
            yield kaifa.list1(sample, clock) if n % 5 else kaifa.list2(meter, sample, clock)


def _swedish(meter_id: str, moments: list[datetime]) -> Iterator[Frame]:
    """The hourly list of a Swedish Kamstrup meter (type …092) at these moments."""
    household = Household(8, 3, "TN", OSLO)
    meter = Identity(meter_id.encode(), b"6841131BN299901092")
    for moment in moments:
        sample = household.sample(moment, registers_at=moment)
        yield Frame(moment, kamstrup.hourly(meter, sample, kamstrup.clock(moment, OSLO)))
