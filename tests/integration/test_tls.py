"""https to a real InfluxDB with a private authority: what is trusted, what is reported, and who gets the token."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from exporter.config import Settings
from exporter.outbox.queue import Outbox
from exporter.sinks.contract import Verdict, WriteResult
from exporter.sinks.influx.client import Client, Http, Unreachable
from exporter.sinks.writer import Writer
from exporter.sinks.writer_status import WriterState
from tests.integration.test_writer import empty, running
from tests.support.influx_server import Influx, Store
from tests.support.patience import until
from tests.support.rows import rows
from tests.support.tls import Authority, tls_door

LINE = f"power value=1 {int(time.time() * 1000)}"
OF_OTHERS = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class Doors(NamedTuple):
    """Ports of the same InfluxDB with different certificates, and the authorities that signed them."""

    right: int
    other_name: int
    expired: int
    self_signed: int
    own: Path
    stranger: Path


@pytest.fixture(scope="module")
def doors(shared_influx: Influx, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("certificates")
    own, stranger = Authority(folder / "own"), Authority(folder / "stranger", "A stranger")
    alone = folder / "alone.pem"
    alone.write_text(stranger.certificate.read_text() + (folder / "stranger" / "authority.key").read_text())
    parts = urlsplit(shared_influx.url)
    there = (parts.hostname or "", parts.port or 0)
    with (
        tls_door(own.sign("right"), there) as right,
        tls_door(own.sign("other", alternatives="DNS:influx.example"), there) as other_name,
        tls_door(own.sign("expired", days=-1), there) as expired,
        tls_door(alone, there) as self_signed,
    ):
        yield Doors(right, other_name, expired, self_signed, own.certificate, stranger.certificate)


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore what is set on this machine."""
    for name in OF_OTHERS:
        monkeypatch.delenv(name, raising=False)


def write(store: Store, port: int, ca_cert: Path | None, scheme: str = "https") -> WriteResult:
    url = f"{scheme}://127.0.0.1:{port}"
    with closing(Client(url, bucket=store.bucket, token=store.token, org=store.org, ca_cert=ca_cert)) as client:
        return client.write([LINE])


def ask(store: Store, port: int, ca_cert: Path | None) -> int:
    with closing(Http(f"https://127.0.0.1:{port}", store.token, ca_cert=ca_cert)) as http:
        return http.request("GET", "/ping").status


def test_the_right_authority_lets_it_write_and_ask(store: Store, doors: Doors) -> None:
    assert write(store, doors.right, doors.own) == WriteResult(Verdict.TAKEN)
    url = f"https://localhost:{doors.right}"
    with closing(Client(url, bucket=store.bucket, token=store.token, ca_cert=doors.own)) as client:
        assert client.query("SELECT value FROM power")[0].rows[0][1] == 1
        assert client.version()


@pytest.mark.parametrize(
    ("server", "authority", "kind"),
    [
        ("right", None, "unable to get local issuer certificate"),
        ("right", "stranger", "unable to get local issuer certificate"),
        ("other_name", "own", "is not valid for '127.0.0.1'"),
        ("expired", "own", "has expired"),
        ("self_signed", None, "self-signed certificate"),
        ("self_signed", "own", "self-signed certificate"),
    ],
)
def test_which_certificates_it_refuses(
    store: Store, doors: Doors, server: str, authority: str | None, kind: str
) -> None:
    port, ca_cert = getattr(doors, server), getattr(doors, authority) if authority else None
    result = write(store, port, ca_cert)
    assert result.verdict is Verdict.MISCONFIGURED
    assert kind in result.message.replace("self signed", "self-signed")
    assert ("renew" if server == "expired" else "HAN_INFLUX_") in result.message, "what to do"
    assert store.token.split(":")[-1] not in result.message
    with pytest.raises(Unreachable) as refused:
        ask(store, port, ca_cert)
    assert refused.value.permanent
    assert store.points() == set()


def test_each_fault_names_what_to_fix(store: Store, doors: Doors) -> None:
    assert "HAN_INFLUX_CA_CERT" in write(store, doors.right, None).message
    assert "HAN_INFLUX_CA_CERT" in write(store, doors.self_signed, None).message
    other = write(store, doors.other_name, doors.own).message
    assert "HAN_INFLUX_URL" in other
    assert "renew" in write(store, doors.expired, doors.own).message


def test_nothing_is_sent_to_a_server_that_is_not_trusted(
    store: Store, doors: Doors, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """... and http to that port is reported: an answer alone does not show that it is an InfluxDB."""
    with closing(Outbox(tmp_path / "outbox.db")) as outbox:
        outbox.append(rows([LINE]))
        for scheme, ca_cert in (("https", None), ("http", doors.own)):
            url = f"{scheme}://127.0.0.1:{doors.right}"
            writer = Writer(outbox, Client(url, bucket=store.bucket, ca_cert=ca_cert), pause=lambda _: 0.02)
            with running(writer, outbox):
                until(lambda writer=writer: writer.status().retries > 2)  # type: ignore[misc]
            assert outbox.status().depth_lines == 1
            assert outbox.status().rejected_lines == 0
            assert writer.status().state in (WriterState.MISCONFIGURED, WriterState.WAITING)
        assert "HAN_INFLUX_CA_CERT" in caplog.text
        url = f"https://127.0.0.1:{doors.right}"
        writer = Writer(outbox, Client(url, bucket=store.bucket, token=store.token, ca_cert=doors.own))
        with running(writer, outbox):
            until(empty(outbox))


def test_no_setting_turns_checking_off() -> None:
    assert [name for name in Settings.model_fields if "verif" in name or "insecure" in name or "ssl" in name] == []


def test_what_is_set_for_other_programs_does_not_turn_it_off(
    store: Store, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the variables of requests and curl, nor those of influxdb-client. A proxy is not used."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, "")
    for name in ("INFLUXDB_V2_VERIFY_SSL", "INFLUXDB_V2_SSL_CA_CERT", "PYTHONHTTPSVERIFY"):
        monkeypatch.setenv(name, "0" if name.startswith("PYTHON") else "false")
    assert write(store, doors.right, None).verdict is Verdict.MISCONFIGURED
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert write(store, doors.right, doors.own).verdict is Verdict.TAKEN
    assert ask(store, doors.right, doors.own) == 204


def test_with_a_private_authority_no_other_is_trusted(
    store: Store, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE replaces the system's authorities, as in any program. It does not add any to a private one."""
    monkeypatch.setenv("SSL_CERT_FILE", str(doors.own))
    assert write(store, doors.right, None).verdict is Verdict.TAKEN
    assert write(store, doors.right, doors.stranger).verdict is Verdict.MISCONFIGURED
    monkeypatch.setenv("SSL_CERT_FILE", os.devnull)
    assert write(store, doors.right, None).verdict is Verdict.MISCONFIGURED


# Redirects


class _Elsewhere(BaseHTTPRequestHandler):
    """Redirects every request to another address, and records what it got."""

    to, status, heard = "", 307, list[str]()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.heard.append(self.headers.get("Authorization", ""))
        self.send_response(self.status)
        if self.to:
            self.send_header("Location", self.to + self.path)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST  # noqa: N815 - the library's name

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def elsewhere(to: str, status: int) -> Iterator[tuple[str, list[str]]]:
    heard: list[str] = []
    handler = type("Handler", (_Elsewhere,), {"to": to, "status": status, "heard": heard})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", heard
        server.shutdown()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_the_token_nowhere(status: int) -> None:
    with (
        elsewhere("", 204) as (other, heard_there),
        elsewhere(other.replace("127.0.0.1", "localhost"), status) as (url, heard),
    ):
        with closing(Client(url, bucket="han", token="secret")) as client:
            result = client.write([LINE])
            assert result.verdict is Verdict.MISCONFIGURED
            assert "HAN_INFLUX_URL" in result.message
            assert not client.version()
        assert heard and all(one == "Token secret" for one in heard)
        assert heard_there == []
