"""The InfluxDB of the crash matrix: influxd 1.8 or 2.x, or a server that is running already."""

from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

from exporter.sinks.influx.client import Http
from tests.support.influx_server import Influx, LocalInflux, Point, ProcessInflux, free_port, serve

__all__ = ["points_of", "server"]


class LocalInflux2(ProcessInflux):
    """An influxd 2.x process with a folder of its own."""

    org = "home"
    bucket = "han"

    def __init__(self, program: str, folder: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.token = secrets.token_urlsafe(24)
        settings = {
            "INFLUXD_REPORTING_DISABLED": "true",
            "INFLUXD_HTTP_BIND_ADDRESS": f"127.0.0.1:{port}",
            "INFLUXD_BOLT_PATH": str(folder / "influxd.bolt"),
            "INFLUXD_SQLITE_PATH": str(folder / "influxd.sqlite"),
            "INFLUXD_ENGINE_PATH": str(folder / "engine"),
        }
        super().__init__((program,), folder, settings)
        user = {"username": "tester", "password": secrets.token_urlsafe(12), "token": self.token}
        answer = Http(self.url).request(
            "POST", "/api/v2/setup", content=user | {"org": self.org, "bucket": self.bucket}
        )
        assert answer.status == 201, answer


def server(folder: Path, program: str | None = None) -> Influx:
    """Start `program`, or the server of the other tests; the caller stops it. Raises LookupError if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    if program is None:
        return serve(folder)
    version = subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout
    return LocalInflux2(program, folder) if " v2" in version else LocalInflux(program, folder)


def points_of(influx: Influx, meter_id: str) -> set[Point]:
    """Every point of a meter."""
    found = set()
    for series in influx.query(f"SELECT * FROM /.*/ WHERE meter_id = '{meter_id}' GROUP BY *"):
        tags = tuple(sorted((name, value) for name, value in series.tags.items() if value))
        for time, *values in series.rows:
            pairs = zip(series.columns[1:], values, strict=True)
            fields = tuple(sorted((name, value) for name, value in pairs if value is not None))
            found.add(Point(series.name, tags, time, fields))
    return found
