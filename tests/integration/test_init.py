"""First set-up, with a fake of the InfluxDB 2.8 API that answers as a real 2.8.0 does."""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

from exporter.cli.init import init
from exporter.sinks.influx.client import Answer, Http
from exporter.sinks.influx.setup import Owner, Plan, SecretFile, SetupError, prepare
from tests.support.influx_server import free_port

Reply = tuple[int, Any]
UNAUTHORIZED: Reply = (401, {"code": "unauthorized", "message": "unauthorized access"})


class FakeInflux2:
    """The state of an InfluxDB 2 and its answers."""

    def __init__(self) -> None:
        self.org = ""
        self.buckets: dict[str, dict[str, Any]] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.password = ""
        self.ill = 0
        """So many requests are answered with 503."""
        self.requests: list[str] = []

    def answer(self, method: str, path: str, query: dict[str, str], token: str, content: Any) -> Reply:
        self.requests.append(f"{method} {path}")
        if self.ill:
            self.ill -= 1
            return 503, {"code": "unavailable", "message": "starting"}
        if path == "/api/v2/setup":
            return self._setup(method, content)
        holder = next((one for one in self.tokens.values() if one["token"] == token), None)
        if holder is None:
            return UNAUTHORIZED
        if path == "/api/v2/write":
            return self._write(query, holder)
        if path.startswith("/api/v2/authorizations"):
            return self._authorizations(method, path, content)
        if path == "/api/v2/buckets":
            return self._buckets(method, query, holder, content)
        found = query.get("org", self.org) == self.org
        missing = (404, {"code": "not found", "message": f'organization name "{query.get("org")}" not found'})
        return (200, {"orgs": [{"id": "0rg", "name": self.org}]}) if found else missing

    def _setup(self, method: str, content: Any) -> Reply:
        if method == "GET":
            return 200, {"allowed": not self.org}
        if self.org:
            return 422, {"code": "conflict", "message": "onboarding has already been completed"}
        self.org, self.password = content["org"], content["password"]
        self._add_bucket(content["bucket"], content["retentionPeriodSeconds"])
        self._add_token(content["token"], f"{content['username']}'s Token", [])
        return 201, {"org": {"id": "0rg"}}

    def _write(self, query: dict[str, str], holder: dict[str, Any]) -> Reply:
        if query["org"] != self.org or query["bucket"] not in self.buckets:
            return 404, {"code": "not found", "message": f'bucket "{query["bucket"]}" not found'}
        if not self._allowed(holder, "write", self.buckets[query["bucket"]]["id"]):
            return 403, {"code": "forbidden", "message": "insufficient permissions for write"}
        return 204, None

    def _authorizations(self, method: str, path: str, content: Any) -> Reply:
        if method == "GET":
            return 200, {"authorizations": list(self.tokens.values())}
        if method == "DELETE":
            del self.tokens[path.rpartition("/")[2]]
            return 204, None
        return 201, self._add_token(secrets.token_urlsafe(64), content["description"], content["permissions"])

    def _buckets(self, method: str, query: dict[str, str], holder: dict[str, Any], content: Any) -> Reply:
        if method == "POST":
            rules = content["retentionRules"]
            return 201, self._add_bucket(content["name"], rules[0]["everySeconds"] if rules else 0)
        bucket = self.buckets.get(query["name"])
        if bucket is None:
            return 404, {"code": "not found", "message": f'bucket "{query["name"]}" not found'}
        return 200, {"buckets": [bucket] if self._allowed(holder, "read", bucket["id"]) else []}

    def _allowed(self, holder: dict[str, Any], action: str, bucket: str) -> bool:
        rights = [(one["action"], one["resource"]["id"]) for one in holder["permissions"]]
        return not rights or (action, bucket) in rights

    def _add_bucket(self, name: str, seconds: int) -> dict[str, Any]:
        rules = [{"type": "expire", "everySeconds": seconds}]
        self.buckets[name] = {"id": secrets.token_hex(8), "name": name, "retentionRules": rules}
        return self.buckets[name]

    def _add_token(self, token: str, description: str, permissions: list[Any]) -> dict[str, Any]:
        key = secrets.token_hex(8)
        self.tokens[key] = {"id": key, "token": token, "description": description, "permissions": permissions}
        return self.tokens[key]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    influx: FakeInflux2


class Handler(BaseHTTPRequestHandler):
    def _handle(self) -> None:
        assert isinstance(self.server, Server)
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = json.loads(body) if self.headers.get("Content-Type") == "application/json" else None
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        token = self.headers.get("Authorization", "").removeprefix("Token ")
        status, answer = self.server.influx.answer(self.command, url.path, query, token, content)
        body = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def serve(port: int = 0) -> Server:
    server = Server(("127.0.0.1", port), Handler)
    server.influx = FakeInflux2()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = serve()
    yield server
    server.shutdown()
    server.server_close()


def plan_for(url: str, folder: Path) -> Plan:
    return Plan(
        url=url,
        org="home",
        bucket="han",
        user="admin",
        operator_token=SecretFile(folder / "operator" / "token"),
        operator_password=SecretFile(folder / "operator" / "password"),
        write_token=SecretFile(folder / "write" / "token"),
        read_token=SecretFile(folder / "read" / "token", mode=0o440),
        grafana_password=SecretFile(folder / "read" / "password"),
        wait_s=20,
    )


def quietly(message: str) -> None:
    """Print nothing."""


def secrets_in(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_fresh_server_is_prepared_and_a_second_run_changes_nothing(server: Server, tmp_path: Path) -> None:
    plan, messages = plan_for(url_of(server), tmp_path), list[str]()
    assert prepare(plan, messages.append) == 6
    made = secrets_in(tmp_path)
    assert set(made) == {"operator/token", "operator/password", "write/token", "read/token", "read/password"}
    assert all(len(secret) >= 40 and secret.strip() == secret for secret in made.values())
    assert len(set(made.values())) == 5
    assert not any(secret in " ".join(messages) for secret in made.values())
    influx = server.influx
    rights = {one["token"]: one["permissions"] for one in influx.tokens.values()}
    bucket = influx.buckets["han"]
    for action in ("write", "read"):
        resource = {"type": "buckets", "id": bucket["id"], "orgID": "0rg"}
        assert rights[made[f"{action}/token"]] == [{"action": action, "resource": resource}]
    assert bucket["retentionRules"][0]["everySeconds"] == 0
    assert influx.password == made["operator/password"]
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in made}
    assert modes == dict.fromkeys(made, 0o400) | {"read/token": 0o440}

    assert prepare(plan, messages.append) == 0
    assert len(messages) == 6
    assert secrets_in(tmp_path) == made
    assert len(influx.tokens) == 3


class Killed(BaseException):
    """The process is gone."""


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Be killed at the given step: before a request, after its answer, before a secret's rename, after it."""
    passed = 0

    def look() -> None:
        nonlocal passed
        passed += 1
        if passed == step:
            raise Killed

    request, rename = Http.request, Path.rename

    def dying_request(self: Http, *args: Any, **options: Any) -> Answer:
        look()
        answer = request(self, *args, **options)
        look()
        return answer

    def dying_rename(self: Path, target: Path) -> Path:
        look()
        renamed = rename(self, target)
        look()
        return renamed

    monkeypatch.setattr(Http, "request", dying_request)
    monkeypatch.setattr(Path, "rename", dying_rename)
    return lambda: passed


def test_a_run_killed_at_any_step_is_completed_by_the_next(tmp_path: Path) -> None:
    step = 0
    while True:
        step += 1
        server, folder = serve(), tmp_path / str(step)
        plan = plan_for(url_of(server), folder)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(step, patch)
            try:
                prepare(plan, quietly)
                survived = True
            except Killed:
                survived = False
        prepare(plan, quietly)
        made = secrets_in(folder)
        assert len(made) == 5, step  # and no half-written file beside them
        assert {one["token"] for one in server.influx.tokens.values()} == {
            made["operator/token"],
            made["write/token"],
            made["read/token"],
        }, step
        assert server.influx.password == made["operator/password"]
        assert prepare(plan, quietly) == 0
        server.shutdown()
        server.server_close()
        if survived:
            break
    assert step > 25  # it was killed at so many steps


def test_lost_or_dead_tokens_are_made_again(server: Server, tmp_path: Path) -> None:
    plan, messages = plan_for(url_of(server), tmp_path), list[str]()
    prepare(plan, quietly)
    made = secrets_in(tmp_path)
    (tmp_path / "read" / "token").unlink()
    write = next(key for key, one in server.influx.tokens.items() if one["token"] == made["write/token"])
    del server.influx.tokens[write]
    assert prepare(plan, messages.append) == 2
    assert "did not work" in messages[0]
    assert len(server.influx.tokens) == 3
    assert secrets_in(tmp_path)["operator/token"] == made["operator/token"]
    assert prepare(plan, quietly) == 0


def test_the_wrong_bucket_in_the_plan_gets_a_bucket_and_tokens_of_its_own(server: Server, tmp_path: Path) -> None:
    prepare(plan_for(url_of(server), tmp_path), quietly)
    other = replace(plan_for(url_of(server), tmp_path), bucket="other", retention_s=86400)
    assert prepare(other, quietly) == 3
    assert server.influx.buckets["other"]["retentionRules"][0]["everySeconds"] == 86400
    assert prepare(other, quietly) == 0


def test_a_server_set_up_by_someone_else_is_left_alone(server: Server, tmp_path: Path) -> None:
    prepare(plan_for(url_of(server), tmp_path / "theirs"), quietly)
    before = dict(server.influx.tokens)
    ours = plan_for(url_of(server), tmp_path / "ours")
    with pytest.raises(SetupError, match="no operator token"):
        prepare(ours, quietly)
    ours.operator_token.write("a token of another server")
    with pytest.raises(SetupError, match="not know the operator token"):
        prepare(ours, quietly)
    assert server.influx.tokens == before
    theirs = plan_for(url_of(server), tmp_path / "theirs")
    with pytest.raises(SetupError, match="--org"):
        prepare(replace(theirs, org="away"), quietly)


def test_owner_and_mode_are_set_and_corrected(server: Server, tmp_path: Path) -> None:
    plan = plan_for(url_of(server), tmp_path)
    me = Owner(os.getuid(), os.getgid())
    file = SecretFile(tmp_path / "write" / "token", me, 0o440)
    prepare(replace(plan, write_token=file), quietly)
    found = file.path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (me.uid, me.gid, 0o440)
    file.path.chmod(0o644)
    messages: list[str] = []
    assert prepare(replace(plan, write_token=file), messages.append) == 1
    assert "owner and mode" in messages[0]
    assert file.path.stat().st_mode & 0o777 == 0o440


def test_a_server_that_is_not_up_yet_is_waited_for(tmp_path: Path) -> None:
    port = free_port()
    started: list[Server] = []

    def start() -> None:
        started.append(serve(port))
        started[0].influx.ill = 2

    timer = threading.Timer(0.3, start)
    timer.start()
    plan = plan_for(f"http://127.0.0.1:{port}", tmp_path)
    assert prepare(plan, quietly) == 6
    started[0].shutdown()
    started[0].server_close()
    with pytest.raises(SetupError, match="cannot be reached"):
        prepare(replace(plan, wait_s=0.5), quietly)


def test_the_command(server: Server, tmp_path: Path) -> None:
    arguments = ["--url", url_of(server), "--org", "home", "--mode", "0440"]
    arguments += ["--operator-token-file", str(tmp_path / "o" / "token"), "--write-token-file", str(tmp_path / "w")]
    first = CliRunner().invoke(init, arguments)
    assert first.exit_code == 0, first.output
    assert first.output.endswith("done\n")
    assert (tmp_path / "o" / "token.password").stat().st_mode & 0o777 == 0o440
    second = CliRunner().invoke(init, arguments)
    assert second.exit_code == 0
    assert "nothing was changed" in second.output
    (tmp_path / "o" / "token").unlink()
    third = CliRunner().invoke(init, arguments)
    assert third.exit_code == 1
    assert "someone else" in third.stderr


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("--write-token-owner", "me:us", "10001:10001"),
        ("--mode", "rw", "0400"),
        ("--retention", "soon", "90d"),
        ("--retention", "0d", "forever"),
    ],
)
def test_wrong_options_are_named_with_what_is_allowed(option: str, value: str, kind: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(init, ["--operator-token-file", str(tmp_path / "t"), option, value])
    assert result.exit_code == 2
    assert kind in re.sub(r"\s+", " ", result.output)


def test_another_server_than_influxdb_2_is_named(tmp_path: Path) -> None:
    class Other(FakeInflux2):
        def answer(self, *_: Any) -> Reply:
            return 404, None

    server = serve()
    server.influx = Other()
    with pytest.raises(SetupError, match="CREATE DATABASE"):
        prepare(plan_for(url_of(server), tmp_path), quietly)
    server.shutdown()
    server.server_close()
    with pytest.raises(SetupError, match="HAN_INFLUX_URL"):
        prepare(plan_for("nonsense", tmp_path), quietly)
