"""The socket by which a running service is asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from exporter.status_socket import NotRunning, StatusServer, ask


def test_a_question_that_comes_as_it_stops_is_no_fault_to_report(
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


def test_what_breaks_while_it_runs_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def status() -> Mapping[str, Any]:
        raise RuntimeError("a bug")

    server = StatusServer(tmp_path / "outbox.db", status)
    with pytest.raises(NotRunning):
        ask(tmp_path / "outbox.db")
    server.close()
    assert "please report" in caplog.text
