"""What takes a minute of real time, all at once: simulated meters at the pace of the wire, outages, patience."""

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
    """What one meter sent: each frame, and when its first and its last octet were handed over (ms since 1970)."""

    meter_id: str
    frames: list[bytes] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    done: list[int] = field(default_factory=list)


@dataclass
class Told:
    """How a scenario ended."""

    sent: list[Sent]
    points: set[Point] = field(default_factory=set)
    log: list[str] = field(default_factory=list)
    stopped_in: float = 0
    instance: str = ""


class Minute:
    """Scenarios that go on in threads of their own; `result` waits for one."""

    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._making = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._results: dict[str, queue.Queue[Told | subprocess.CompletedProcess[str] | BaseException]] = {}
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
        """Stop what still goes on."""
        self._stop.set()
        for clean in reversed(self._clean):
            clean()
        for thread in self._threads:
            thread.join(HANG_S)

    def result(self, name: str) -> Told | subprocess.CompletedProcess[str]:
        """Wait for a scenario."""
        result = self._results[name].get(timeout=HANG_S)
        self._results[name].put(result)  # for whoever asks next
        if isinstance(result, BaseException):
            raise result
        return result

    def _work(self, name: str, scenario: Callable[[], Told | subprocess.CompletedProcess[str]]) -> None:
        try:
            self._results[name].put(scenario())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self._results[name].put(error)

    def _folder(self, name: str) -> Path:
        with self._making:  # pytest's own is not made for threads
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

    # --- a minute of three meters as they are: each list when it is due

    def _steady(self) -> Told:
        home, store = self._home("steady"), Store(self._server())
        instance = f"steady-{secrets.token_hex(4)}"
        meters = {maker: self._plug(home, maker) for maker in MAKERS}
        told = Told([Sent(f"STEADY-{maker}-{secrets.token_hex(4)}") for maker in MAKERS], instance=instance)
        ports = " ".join(str(meter.path) for meter in meters.values())
        run = home.run(influx=store, source=ports, instance=instance)
        run.expect(r"\(2400 8N1\) is open", times=3)
        self._together(
            [
                lambda port=port, maker=maker, sent=sent: self._when_due(port, maker, sent)  # type: ignore[misc]
                for (maker, port), sent in zip(meters.items(), told.sent, strict=True)
            ]
        )
        frames = sum(len(sent.frames) for sent in told.sent)
        # The exporter's own count comes every 10 s: the one with all frames in it ends this.
        until(
            lambda: self._stop.is_set() or any(dict(p.fields)["frames"] == frames for p in store.points("exporter")),
            25,
            f"a count of all {frames} frames",
        )
        told.stopped_in = run.stop()
        told.points, told.log = store.points(), run.log
        return told

    def _when_due(self, port: Meter, maker: str, sent: Sent) -> None:
        start = datetime.now(UTC)
        end = start + timedelta(seconds=SECONDS)
        frames = list(SimulatedMeter(maker, meter_id=sent.meter_id).frames(start, end))
        if maker == "kamstrup":  # a Swedish one: registers and clock every 10 s
            frames = list(_swedish(sent.meter_id, [frame.complete for frame in frames]))
        port.send(frames[0].data[len(frames[0].data) // 2 :])  # we come in the middle of one
        for complete, octets in frames:
            begin = complete - timedelta(seconds=len(octets) / BAUD_2400)
            if self._stop.wait(max(0, (begin - datetime.now(UTC)).total_seconds())):
                return
            self._send(port, octets, sent)

    # --- a minute of three meters that talk all the time, with InfluxDB away twice

    def _outage(self) -> Told:
        home, server = self._home("outage"), self._server()
        store = Store(server)
        meters = {maker: self._plug(home, maker) for maker in MAKERS}
        told = Told([Sent(f"OUTAGE-{maker}-{secrets.token_hex(4)}") for maker in MAKERS])
        ports = " ".join(str(meter.path) for meter in meters.values())
        run = home.run(influx=store, source=ports)
        run.expect(r"\(2400 8N1\) is open", times=3)

        def go_and_come() -> None:
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
                go_and_come,
                *(
                    lambda port=port, maker=maker, sent=sent: self._all_the_time(port, maker, sent)
                    for (maker, port), sent in zip(meters.items(), told.sent, strict=True)
                ),
            ]
        )

        def all_there() -> bool:
            points = store.points("active_power")
            return all(len(times_of(points, sent.meter_id)) >= len(sent.frames) for sent in told.sent)

        until(lambda: self._stop.is_set() or all_there(), 40, "all that was sent in spite of the outages")
        told.stopped_in = run.stop()
        told.points, told.log = store.points(), run.log
        return told

    def _all_the_time(self, port: Meter, maker: str, sent: Sent) -> None:
        octets_left = SECONDS * BAUD_2400
        for octets in _lists_of(maker, sent.meter_id):
            octets_left -= len(octets)
            if octets_left < 0 or self._stop.is_set():
                return
            self._send(port, octets, sent)

    # --- a meter that does not name itself for a minute

    def _nameless(self) -> Told:
        home, store = self._home("nameless"), Store(self._server())
        name = f"nameless-{secrets.token_hex(4)}"
        port = self._plug(home, name)
        told = Told([Sent(f"unknown-tty-{name}")])
        run = home.run(influx=store, source=str(port.path))
        run.expect("is open")
        for number in range(3):
            power = structure(obis("1-0:1.7.0"), u32(1000 + number), structure(b"\x0f\x00", b"\x16\x1b"))
            self._send(port, frame(notification(array(power))), told.sent[0])
        run.expect("reading tty-nameless")
        assert not store.points("active_power")
        until(lambda: self._stop.is_set() or store.points("active_power"), 75, "the nameless lists")
        told.sent[0].done.append(round(time.time() * 1000))  # when they were there
        meter_id = structure(obis("0-0:96.1.0"), octet_string("NAMED-AT-LAST"))
        power = structure(obis("1-0:1.7.0"), u32(2000), structure(b"\x0f\x00", b"\x16\x1b"))
        self._send(port, frame(notification(array(meter_id, power))), Sent(""))
        until(lambda: self._stop.is_set() or len(store.points("active_power")) == 4, 10, "the list with a name")
        told.stopped_in = run.stop()
        told.points, told.log = store.points(), run.log
        return told

    # --- an import that waits for an InfluxDB that does not come

    def _patience(self) -> subprocess.CompletedProcess[str]:
        home = self._home("patience")
        capture = home.folder / "capture.hex"
        capture.write_text(next(_lists_of("kamstrup", "PATIENCE")).hex())
        return home.han("import", capture, influx_url=f"http://127.0.0.1:{free_port()}")

    # ---

    def _send(self, port: Meter, octets: bytes, sent: Sent) -> None:
        sent.begun.append(round(time.time() * 1000))
        sent.done.append(round(port.send_at_pace(octets, self._stop) * 1000))
        sent.frames.append(octets)

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
    """Lists of every sort but the hourly one, as fast as one can take them; their clock is right."""
    household = Household(7, 3, "TN", OSLO)
    meter = Identity(meter_id.encode(), MAKERS_OF_METERS[maker].types[1])
    for n in itertools.count():
        now = datetime.now(UTC)
        sample = household.sample(now + timedelta(minutes=n))  # the day goes by quickly, so that there is something new
        if maker == "kamstrup":
            yield kamstrup.list1(meter, sample, kamstrup.clock(now, OSLO))
        elif maker == "aidon":
            yield aidon.list1(sample) if n % 4 else aidon.list2(meter, sample)
        else:
            clock = kaifa.clock(now, OSLO)
            yield kaifa.list1(sample, clock) if n % 5 else kaifa.list2(meter, sample, clock)


def _swedish(meter_id: str, moments: list[datetime]) -> Iterator[Frame]:
    """The hourly list of a Kamstrup …092 at these moments."""
    household = Household(8, 3, "TN", OSLO)
    meter = Identity(meter_id.encode(), b"6841131BN299901092")
    for moment in moments:
        sample = household.sample(moment, registers_at=moment)
        yield Frame(moment, kamstrup.hourly(meter, sample, kamstrup.clock(moment, OSLO)))
