"""A meter that sends with even parity, and a port without parity: `run` and `watch` find it by themselves."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from exporter.sources.serial.serial_url import SerialSettings
from tests.e2e.harness import HAN, Home
from tests.e2e.made import power
from tests.e2e.test_check import verdicts
from tests.integration.test_serial_pty import server
from tests.support.far_end import FarEnd, far_end
from tests.support.influx_server import Store
from tests.support.patience import HANG_S, quiet_seconds, until
from tests.support.uart import RECEIVERS

EVEN = SerialSettings(parity="E")


@contextmanager
def gateway() -> Iterator[tuple[str, list[FarEnd]]]:
    """The address of an RFC 2217 gateway with a meter that sends every 2 s with even parity."""
    ends: list[FarEnd] = []
    done = threading.Event()
    with server() as listening:

        def serve() -> None:
            n = 0
            while not done.is_set():
                with suppress(OSError), far_end(listening, EVEN, RECEIVERS[0]) as far:
                    ends.append(far)
                    while not done.wait(2):
                        far.send(power(n := n + 1, b"EVEN"))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"rfc2217://127.0.0.1:{listening.getsockname()[1]}", ends
        finally:
            done.set()
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)  # wakes accept()
    thread.join(HANG_S)


@pytest.mark.slow
def test_run_and_watch_find_it(home: Home, store: Store) -> None:
    with gateway() as (source, ends), gateway() as (other, _):
        began = time.monotonic()
        run = home.run(source=source, influx=store)
        watch = subprocess.Popen(
            [str(HAN), "watch", "--plain", "--readings", "1", other],
            env=home.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        run.expect("WARNING bytes come from .* with 2400 8N1", 40)
        assert time.monotonic() - began > 20
        found = run.expect(r"valid frames with 2400 8E1: write HAN_SOURCE=\S+\?parity=E ", 20)
        assert " INFO " in found
        assert quiet_seconds(time.monotonic() - began) < 45
        assert ends[0].device.serial_settings == EVEN
        until(lambda: store.points("active_power"), what="a reading")
        until(lambda: any(("kind", "line_found") in point.tags for point in store.points("event")), what="the mark")
        answers = verdicts(home.han("check", influx=store, source=source).stdout)
        verdict, heard = answers[source.removeprefix("rfc2217://")]
        assert verdict == "ok"
        assert "2400 8E1: write HAN_SOURCE=" in heard
        out, err = watch.communicate(timeout=HANG_S)
        assert watch.returncode == 0
        assert out.count("\n") == 1
        assert "2400 8N1" in err
        assert run.stop() < 5
        run = home.run(source=source, influx=store)
        run.expect(r"\(2400 8E1\)")
        run.expect("reading ", 10)
        assert run.stop() < 5
