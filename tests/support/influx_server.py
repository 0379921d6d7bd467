"""A real InfluxDB for the tests: influxd 1.8 on PATH, or any server at HAN_TEST_INFLUX_URL."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from exporter.sinks.influx.client import Client, Http, Series, Unreachable
from tests.support.patience import HANG_S, Patience

NO_INFLUX = (
    "These tests need a real InfluxDB. Put an influxd 1.8 on PATH (go install "
    "github.com/influxdata/influxdb/cmd/influxd@v1.8.10), or set HAN_TEST_INFLUX_URL (and HAN_TEST_INFLUX_TOKEN, "
    "_ORG, _BUCKET) to a server that may be written to."
)


class Point(NamedTuple):
    """A point as InfluxDB returns it: `time` in ms, tags and fields by name."""

    measurement: str
    tags: tuple[tuple[str, str], ...]
    time: int
    fields: tuple[tuple[str, Any], ...]


class Influx:
    """A running InfluxDB with an empty database. It can be stopped and started again with the same data.

    `url`, `token`, `org` and `bucket` are what the exporter needs. Authorization is on.
    """

    url: str
    token: str
    org: str
    bucket: str

    def start(self) -> None:
        """Start again, with the same URL and data."""
        raise NotImplementedError

    def stop(self, *, kill: bool = False) -> None:
        """Stop it; with `kill`, as a power cut does."""
        raise NotImplementedError

    def client(self, **changes: str) -> Client:
        """A Client for it, with some settings changed."""
        settings = {"token": self.token, "org": self.org, "bucket": self.bucket} | changes
        return Client(settings.pop("url", self.url), **settings)  # type: ignore[arg-type]

    def query(self, influxql: str) -> list[Series]:
        """Send a query; times are in ms."""
        client = self.client()
        try:
            return client.query(influxql)
        finally:
            client.close()

    def points(self, *measurements: str) -> set[Point]:
        """All its points, or those of some measurements."""
        which = ", ".join(f'"{name}"' for name in measurements) or "/.*/"
        found = set()
        for series in self.query(f"SELECT * FROM {which} GROUP BY *"):
            tags = tuple(sorted((name, value) for name, value in series.tags.items() if value))
            for time_, *values in series.rows:
                pairs = zip(series.columns[1:], values, strict=True)
                fields = tuple(sorted((name, value) for name, value in pairs if value is not None))
                found.add(Point(series.name, tags, time_, fields))
        return found

    def admin(self, influxql: str) -> None:
        """Send a statement that changes it (InfluxDB 1.8: CREATE …)."""
        Http(self.url, self.token).request("POST", "/query", query={"q": influxql})

    def _await(self) -> None:
        http, patience = Http(self.url), Patience(30)
        while True:
            try:
                if http.request("GET", "/ping").status in (200, 204):
                    return
            except Unreachable:
                if patience.is_over():
                    raise
            time.sleep(0.05)


class ProcessInflux(Influx):
    """An influxd process with its own folder, started by `command` with `settings` in its environment."""

    def __init__(self, command: Sequence[str], folder: Path, settings: Mapping[str, str]) -> None:
        self._command = command
        self._folder = folder
        self._settings = os.environ | settings
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with (self._folder / "influxd.log").open("ab") as output:
            self._process = subprocess.Popen(self._command, env=self._settings, stdout=output, stderr=output)
        self._await()

    def stop(self, *, kill: bool = False) -> None:
        if self._process is not None:
            if kill:
                self._process.kill()
            else:
                self._process.terminate()
            self._process.wait(HANG_S)
            self._process = None


class LocalInflux(ProcessInflux):
    """An influxd 1.8 process with its own folder."""

    org = "-"

    def __init__(self, program: str, folder: Path) -> None:
        port, rpc = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.bucket = "han"
        self.token = f"tester:{secrets.token_hex(8)}"
        settings = {
            "INFLUXDB_REPORTING_DISABLED": "true",
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{rpc}",
            "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{port}",
            "INFLUXDB_HTTP_AUTH_ENABLED": "true",
            "INFLUXDB_META_DIR": str(folder / "meta"),
            "INFLUXDB_DATA_DIR": str(folder / "data"),
            "INFLUXDB_DATA_WAL_DIR": str(folder / "wal"),
            # Without these, it needs less time.
            "INFLUXDB_MONITOR_STORE_ENABLED": "false",
            "INFLUXDB_CONTINUOUS_QUERIES_ENABLED": "false",
            "INFLUXDB_DATA_QUERY_LOG_ENABLED": "false",
            "INFLUXDB_HTTP_LOG_ENABLED": "false",
            "GOGC": "400",
        }
        super().__init__((program, "run", "-config", os.devnull), folder, settings)
        name, password = self.token.split(":")
        # the first user can be created without a password
        Http(self.url).request(
            "POST", "/query", query={"q": f"CREATE USER {name} WITH PASSWORD '{password}' WITH ALL PRIVILEGES"}
        )
        self.admin(f"CREATE DATABASE {self.bucket}")


class OtherInflux(Influx):
    """A server that is running already, behind a proxy that can be stopped: the exporter then cannot reach it."""

    def __init__(self, url: str) -> None:
        there = urlsplit(url)
        self._there = (there.hostname or "localhost", there.port or 8086)
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.token = os.environ.get("HAN_TEST_INFLUX_TOKEN", "")
        self.org = os.environ.get("HAN_TEST_INFLUX_ORG", "-")
        self.bucket = os.environ.get("HAN_TEST_INFLUX_BUCKET", "")
        self._door: socket.socket | None = None
        self._open: list[socket.socket] = []
        self.start()
        if not self.bucket:  # InfluxDB 1.8: a database for this test
            self.bucket = f"han_test_{secrets.token_hex(4)}"
            self.admin(f"CREATE DATABASE {self.bucket}")

    def start(self) -> None:
        self._door = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._serve, args=(self._door,), daemon=True).start()
        self._await()

    def stop(self, *, kill: bool = False) -> None:
        if self._door is not None:
            self._door.shutdown(socket.SHUT_RDWR)
            self._door.close()
            self._door = None
        while self._open:
            with suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def _serve(self, door: socket.socket) -> None:
        while True:
            try:
                here, _ = door.accept()
            except OSError:
                return
            there = socket.create_connection(self._there)
            self._open += [here, there]
            for one, other in ((here, there), (there, here)):
                threading.Thread(target=pass_on, args=(one, other), daemon=True).start()


def pass_on(one: socket.socket, other: socket.socket) -> None:
    """Send all that one socket receives to the other."""
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        return


def free_port() -> int:
    """A port of this machine that no process uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(folder: Path) -> Influx:
    """Start a server, or find the given one; the caller stops it. Raises LookupError if there is none."""
    if url := os.environ.get("HAN_TEST_INFLUX_URL"):
        return OtherInflux(url)
    program = shutil.which("influxd")
    if program is None:
        raise LookupError(NO_INFLUX)
    return LocalInflux(program, folder)


class Store(Influx):
    """A part of a running server for one test: its own database, or the new points in the given bucket."""

    def __init__(self, server: Influx) -> None:
        self.url, self.token, self.org, self.bucket = server.url, server.token, server.org, server.bucket
        self._before: set[Point] = set()
        if os.environ.get("HAN_TEST_INFLUX_BUCKET"):
            self._before = super().points()
        else:
            self.bucket = f"han_{secrets.token_hex(4)}"
            self.admin(f"CREATE DATABASE {self.bucket}")

    def points(self, *measurements: str) -> set[Point]:
        return super().points(*measurements) - self._before
