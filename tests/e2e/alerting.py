"""A Grafana that is started as in the stack, receivers of its messages, and lines as meters would have written them."""

from __future__ import annotations

import http.server
import json
import shutil
import socketserver
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from exporter.config import Limits
from exporter.derive import points
from exporter.derive.capacity import Capacity, Peak
from exporter.derive.limits import Threshold, exporter_thresholds, thresholds
from exporter.model.calendar import month_start
from exporter.model.reading import Zone
from exporter.service import own_points
from tests.support.grafana_server import ROOT, GrafanaServer
from tests.support.influx_server import Influx

STEP_MS = 10_000
LIMITS = Limits(
    main_fuse_a=40,
    fuse_warn_pct=90,
    limit_power_w=10_000,
    limit_hour_wh=5_000,
    limit_unbalance_pct=40,
    unbalance_from_pct=50,
    voltage_min=207,
    voltage_max=253,
    limit_silence_s=300,
)


# Receivers of messages


@dataclass(frozen=True)
class Message:
    """A message that a webhook received."""

    path: str
    content: Any
    at: float

    @property
    def title(self) -> str:
        return str(self.content["title"])

    @property
    def words(self) -> str:
        return str(self.content["message"])

    @property
    def alerts(self) -> list[tuple[str, str, str]]:
        """Status, name, and owner (meter and phase, or exporter) of each alert."""
        found = []
        for alert in self.content["alerts"]:
            of = alert["labels"]
            owner = " ".join(of[name] for name in ("meter_id", "phase", "instance") if name in of)
            found.append((str(alert["status"]), str(of["alertname"]), owner))
        return found


class Webhook:
    """A webhook on the loopback address."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        taken = self.messages

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["Content-Length"]))
                taken.append(Message(self.path, json.loads(text), time.monotonic()))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def by_alert(self, status: str, mark: str = "", since: int = 0) -> dict[tuple[str, str], Message]:
        """(name, owner) -> the first message with this alert and status, after the first `since` messages.

        Only alerts whose owner contains the mark, which is removed, and alerts without an owner.
        """
        found: dict[tuple[str, str], Message] = {}
        for message in self.messages[since:]:
            for state, name, owner in message.alerts:
                if state == status and (mark in owner or not owner):
                    found.setdefault((name, owner.replace(mark, "")), message)
        return found


class MailBox:
    """An SMTP server on the loopback address, without TLS. It keeps the mails as they were sent."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        taken = self.mails

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 here\r\n")
                for line in self.rfile:
                    word = line[:4].upper()
                    if word == b"DATA":
                        self.wfile.write(b"354 continue\r\n")
                        taken.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())
                    self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
                    if word == b"QUIT":
                        return

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


# Grafana


class StartedGrafana(GrafanaServer):
    """Grafana started by start.sh, as in the stack, with HAN_… settings."""

    def __init__(self, home: Path, folder: Path, influx: Influx, **settings: str) -> None:
        folder.mkdir(parents=True)
        super().__init__(home, folder, influx)
        self.own = folder / "start"
        shutil.copytree(ROOT / "grafana/start", self.own)
        self._command = ["sh", str(self.own / "start.sh"), *self._command]
        self.environment |= settings

    def speed_up(self) -> None:
        """Evaluate every rule every 10 s, fire after 10 s, and send messages at once."""
        rules = self.provisioning / "alerting/rules.yaml"
        content = yaml.safe_load(rules.read_text("utf-8"))
        for group in content["groups"]:
            group["interval"] = "10s"
            for rule in group["rules"]:
                rule["for"] = "10s"
        rules.write_text(yaml.safe_dump(content), "utf-8")
        policy = self.own / "policy.yaml"
        content = yaml.safe_load(policy.read_text("utf-8"))
        content["policies"][0] |= {"group_wait": "1s", "group_interval": "5s"}
        policy.write_text(yaml.safe_dump(content), "utf-8")

    def contact_points(self) -> dict[str, str]:
        """uid -> type of contact points with a uid: Grafana's default has none."""
        found = self.api("GET", "/api/v1/provisioning/contact-points", user="admin")
        return {one["uid"]: one["type"] for one in found if one["uid"]}

    def policy(self) -> dict[str, Any]:
        found = self.api("GET", "/api/v1/provisioning/policies", user="admin")
        assert isinstance(found, dict)
        return found

    def alerts(self, mark: str = "", state: str = "Alerting") -> set[tuple[str, str]]:
        """(name, owner) of every alert in a state, with marks as in `Webhook.by_alert`."""
        found = set()
        answer = self.api("GET", "/api/prometheus/grafana/api/v1/rules", user="admin")
        for group in answer["data"]["groups"]:
            for rule in group["rules"]:
                for alert in rule.get("alerts") or []:
                    of = alert["labels"]
                    owner = " ".join(of[name] for name in ("meter_id", "phase", "instance") if name in of)
                    if alert["state"].startswith(state) and (mark in owner or not owner):
                        found.add((rule["name"], owner.replace(mark, "")))
        return found


# Meters


@dataclass(frozen=True)
class House:
    """A meter whose values do not change, and the lines of its last minutes.

    `loads` are % of the main fuse by phase; `power` is in W; `hour` and `month` are in Wh (the projected hour, and the
    projected mean of the month's peaks); `peaks` is the number of days with one; `step` is in W. None is not written.
    The last reading was `ended_s` ago.
    """

    meter_id: str
    limits: Limits | None = LIMITS
    loads: Mapping[str, float] = field(default_factory=lambda: {"L1": 50.0, "L2": 60.0, "L3": 40.0})
    volts: Mapping[str, float] = field(default_factory=lambda: {"L1": 230.0, "L2": 231.0, "L3": 229.0})
    power: float = 3_000
    unbalance: float | None = 20
    hour: float = 3_000
    month: float = 4_200
    peaks: int = 3
    step: float = 5_000
    age: float = 4
    ended_s: int = 0

    def lines(self, now_ms: int, zone: Zone) -> Iterator[str]:
        """Six minutes of readings up to now, at full 10 s, so that a later call replaces them."""
        newest = now_ms - now_ms % STEP_MS - self.ended_s * 1000
        for ms in range(newest - 36 * STEP_MS, newest + 1, STEP_MS):
            yield from self._reading(ms)
        if self.limits is not None:
            for threshold in thresholds(self.limits):
                yield points.threshold_line(threshold, newest, self.meter_id)
        month = month_start(now_ms, zone)
        if self.peaks:
            found = Capacity(month, tuple(Peak(month + n * 86_400_000, 4_000) for n in range(self.peaks)), 4_000)
            yield from points.capacity_lines(self.meter_id, found, [self.step])
            yield f"capacity_step,meter_id={self.meter_id} value={float(self.step)} {month}"

    def _reading(self, ms: int) -> Iterator[str]:
        for phase, load in self.loads.items():
            yield f"fuse_load,meter_id={self.meter_id},phase={phase} value={float(load)} {ms}"
        for phase, volts in self.volts.items():
            yield f"voltage,meter_id={self.meter_id},obis=1-1:32.7.0,phase={phase} value={volts} {ms}"
        yield f"active_power,direction=import,meter_id={self.meter_id},obis=1-1:1.7.0 value={float(self.power)} {ms}"
        if self.unbalance is not None:
            yield f"phase_unbalance,meter_id={self.meter_id},quantity=current value={float(self.unbalance)} {ms}"
        yield points.running_hour_line(self.meter_id, "import", "projected", self.hour, ms)
        yield points.projected_capacity_line(self.meter_id, self.month, ms)
        yield own_points.reading_age_line(self.meter_id, self.age, ms)

    def changed(self, **what: Any) -> House:
        """This house with some values changed."""
        return replace(self, **what)


def exporter_lines(instance: str, now_ms: int, *, outbox_age: float = 0, ended_s: int = 0) -> Iterator[str]:
    """Ten minutes of an exporter's own points, which ended some seconds ago."""
    newest = now_ms - now_ms % STEP_MS - ended_s * 1000
    for ms in range(newest - 60 * STEP_MS, newest + 1, STEP_MS):
        yield own_points.exporter_line(instance, {"memory": 5e7, "outbox_age": outbox_age}, ms)
    for threshold in exporter_thresholds(600):
        assert isinstance(threshold, Threshold)
        yield points.threshold_line(threshold, newest)


class Writing:
    """Writes what `lines` gives every few seconds until it is closed. InfluxDB may be stopped."""

    def __init__(self, influx: Influx, lines: Callable[[int], Iterator[str]]) -> None:
        self.lines = lines
        self._influx = influx
        self._stop = threading.Event()
        self._now = threading.Event()
        self._thread = threading.Thread(target=self._write_on, daemon=True)
        self.once()
        self._thread.start()

    def once(self) -> None:
        """Write it now."""
        write(self._influx, list(self.lines(int(time.time() * 1000))))

    def change(self, lines: Callable[[int], Iterator[str]]) -> None:
        """Write other lines from now on."""
        self.lines = lines
        self.once()

    def _write_on(self) -> None:
        while not self._stop.wait(4):
            try:
                self.once()
            except OSError:
                continue  # InfluxDB is stopped

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def write(influx: Influx, lines: list[str]) -> None:
    """Write lines to InfluxDB 1.8 or 2. Raises OSError if that fails."""
    url = f"{influx.url}/api/v2/write?org={influx.org}&bucket={influx.bucket}&precision=ms"
    request = urllib.request.Request(url, "\n".join(lines).encode(), {"Authorization": f"Token {influx.token}"})
    with urllib.request.urlopen(request, timeout=30):
        pass
