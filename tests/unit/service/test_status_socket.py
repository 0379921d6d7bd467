"""The socket on which a running service answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from exporter.service.status_socket import NotRunning, StatusServer, ask, socket_path


def test_a_request_that_fails_because_the_service_stops_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    servers: list[StatusServer] = []

    def status() -> Mapping[str, Any]:
        servers[0].close()
        raise RuntimeError("the outbox is closed")

    servers.append(StatusServer(tmp_path / "outbox.db", status))
    with pytest.raises(NotRunning):
        ask(tmp_path / "outbox.db")
    assert "please report" not in caplog.text


def test_a_request_that_fails_while_it_runs_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def status() -> Mapping[str, Any]:
        raise RuntimeError("a bug")

    server = StatusServer(tmp_path / "outbox.db", status)
    with pytest.raises(NotRunning):
        ask(tmp_path / "outbox.db")
    server.close()
    assert "please report" in caplog.text


def test_a_socket_that_cannot_be_created_is_an_error_and_one_that_cannot_be_removed_is_not(tmp_path: Path) -> None:
    outbox = tmp_path / "outbox.db"
    socket_path(outbox).mkdir()
    with pytest.raises(OSError, match=r"directory|permitted"):
        StatusServer(outbox, dict)
    socket_path(outbox).rmdir()
    server = StatusServer(outbox, dict)
    assert ask(outbox) == {}
    socket_path(outbox).unlink()
    socket_path(outbox).mkdir()
    server.close()
    assert socket_path(outbox).is_dir()
