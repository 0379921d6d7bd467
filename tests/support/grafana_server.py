"""A real Grafana for the tests, on the project's own provisioning.

It is found by HAN_TEST_GRAFANA_HOME (the folder of an unpacked release, with bin/ and public/ in it), or else as
`grafana-server` or `grafana` on PATH. Without it, these tests are skipped with the reason NO_GRAFANA.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.influx_server import Influx, free_port

ROOT = Path(__file__).parents[2]
NO_GRAFANA = (
    "There is no Grafana to try this on: put grafana-server on PATH, or let HAN_TEST_GRAFANA_HOME name the folder of "
    "an unpacked release (9.3 or newer)."
)
_UP_S = 90.0
_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-([^${}]*))?\}")


class Refused(Exception):  # noqa: N818 - often it is what a test wants
    """Grafana answered with a status other than 2xx."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(f"{status}: {words}")
        self.status = status


class Grafana:
    """A Grafana that runs at `url`. `password` is the admin's, "" if it is not known."""

    def __init__(self, url: str, password: str = "") -> None:
        self.url = url.rstrip("/")
        self.password = password

    def api(self, method: str, path: str, content: Any = None, *, user: str | None = None) -> Any:
        """Call the API as a visitor or as `user` ("admin"); `content` is sent as JSON. Raises Refused."""
        request = urllib.request.Request(self.url + path, method=method)
        if user is not None:
            both = base64.b64encode(f"{user}:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {both}")
        if content is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(content).encode()
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as refused:
            raise Refused(refused.code, refused.read().decode("utf-8", "replace")[:500]) from None
        return json.loads(text) if text else None

    @property
    def version(self) -> str:
        """A version like 9.3.2; "unknown" without the admin's password."""
        settings = self.api("GET", "/api/frontend/settings", user="admin" if self.password else None)
        return str(settings["buildInfo"]["version"] or "unknown")


def find_grafana() -> Path | None:
    """The home of a Grafana on this machine, the folder with conf/ and public/; None if there is none."""
    given = os.environ.get("HAN_TEST_GRAFANA_HOME")
    homes = [Path(given)] if given else []
    for name in ("grafana-server", "grafana"):
        if not given and (program := shutil.which(name)):
            homes += [Path(program).resolve().parents[1], Path("/usr/share/grafana")]
    return next((home for home in homes if (home / "public").is_dir() and (home / "conf/defaults.ini").is_file()), None)


def _command(home: Path) -> list[str]:
    for found in (home / "bin/grafana-server", home / "bin/grafana"):
        if found.is_file():
            break
    else:
        found = Path(shutil.which("grafana-server") or shutil.which("grafana") or "grafana-server")
    return [str(found), *(["server"] if found.name == "grafana" else []), "--homepath", str(home)]


def compose_environment() -> dict[str, str]:
    """Grafana's environment in docker-compose.yml, with the defaults of all variables."""
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]["grafana"]
    return {name: _VARIABLE.sub(lambda found: found[2] or "", text) for name, text in service["environment"].items()}


class GrafanaServer(Grafana):
    """Grafana on the loopback address, with a copy of the project's provisioning and with `influx` as data source.

    `provisioning` and `dashboards` in its `folder` can be changed before `start`. Its settings are the stack's, then
    `environment` (GF_…). It can be stopped and started again with the same data.
    """

    def __init__(self, home: Path, folder: Path, influx: Influx, environment: Mapping[str, str] | None = None) -> None:
        self._port = free_port()
        super().__init__(f"http://127.0.0.1:{self._port}", secrets.token_hex(8))
        self._command = _command(home)
        self._process: subprocess.Popen[bytes] | None = None
        self.folder, self.log = folder, folder / "grafana.log"
        self.provisioning, self.dashboards = folder / "provisioning", folder / "dashboards"
        self._copy(influx)
        self.environment = self._stack() | self._own() | dict(environment or {})

    def _copy(self, influx: Influx) -> None:
        shutil.copytree(ROOT / "grafana/provisioning", self.provisioning)
        for name in ("datasources", "dashboards", "alerting", "notifiers", "plugins", "access-control"):
            (self.provisioning / name).mkdir(exist_ok=True)
        self.dashboards.mkdir()
        for path in (ROOT / "grafana/dashboards").glob("*.json"):
            shutil.copy(path, self.dashboards)
        token = self.folder / "influx-token"
        token.write_text(influx.token, "utf-8")
        _change(self.provisioning / "datasources/influxdb.yaml", _pointed(influx, token))
        where = {"options": {"path": str(self.dashboards)}}
        _change(self.provisioning / "dashboards/han.yaml", {"providers": [where]})

    def _stack(self) -> dict[str, str]:
        """The stack's settings with paths in this folder, without GF_…__FILE, which only the image can read."""
        found = {name: text for name, text in compose_environment().items() if not name.endswith("__FILE")}
        return {name: text.replace("/etc/grafana/dashboards", str(self.dashboards)) for name, text in found.items()}

    def _own(self) -> dict[str, str]:
        return {
            "GF_SERVER_HTTP_ADDR": "127.0.0.1",
            "GF_SERVER_HTTP_PORT": str(self._port),
            "GF_SECURITY_ADMIN_PASSWORD": self.password,
            "GF_PATHS_DATA": str(self.folder / "data"),
            "GF_PATHS_LOGS": str(self.folder / "logs"),
            "GF_PATHS_PLUGINS": str(self.folder / "plugins"),
            "GF_PATHS_PROVISIONING": str(self.provisioning),
            "GF_LOG_MODE": "console",
        }

    def start(self) -> None:
        """Start it, and wait for every dashboard of `dashboards`. Raises RuntimeError with the end of its log."""
        (self.folder / "plugins").mkdir(exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=os.environ | self.environment, stdout=output, stderr=output, cwd=self.folder
            )
        wanted = {json.loads(path.read_text("utf-8"))["uid"] for path in self.dashboards.glob("*.json")}
        deadline = time.monotonic() + _UP_S
        while not wanted <= self._served():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Grafana does not start: {self.log.read_text('utf-8', 'replace')[-3000:]}")
            time.sleep(0.1)

    def _served(self) -> set[str]:
        try:
            return {found["uid"] for found in self.api("GET", "/api/search?type=dash-db&limit=1000", user="admin")}
        except (OSError, Refused):
            return set()

    def stop(self) -> None:
        """Stop it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _pointed(influx: Influx, token: Path) -> dict[str, Any]:
    """The fields of the data source that depend on the server."""
    header = {"httpHeaderValue1": f"Token $__file{{{token}}}"}
    named = {"jsonData": {"dbName": influx.bucket}, "secureJsonData": header}
    return {"datasources": [{"url": influx.url, "database": influx.bucket} | named]}


def _change(path: Path, changes: dict[str, Any]) -> None:
    """Set some fields of a YAML file. Items of a list are matched by their position."""
    path.write_text(yaml.safe_dump(_merged(yaml.safe_load(path.read_text("utf-8")), changes)), "utf-8")


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: _merged(old.get(key), value) for key, value in new.items()}
    if isinstance(old, list) and isinstance(new, list):
        return [_merged(one, other) for one, other in zip(old, new, strict=True)]
    return new
