"""What a source found is stored with the frame by which it was found, and the next process begins with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from exporter.config import Settings
from exporter.outbox.queue import Outbox
from exporter.pipeline.link import Link
from exporter.service.source_worker import SourceWorker
from exporter.sources.contract import Chunk, Happened, Report, SourceEvent
from tests.support.octets import frames_of


class Finding:
    """A source that finds its settings with the first frame, unless it remembers them."""

    name, live = "ttyUSB0", True

    def __init__(self, finds: str) -> None:
        self.remembered = ""
        self.began_with = ""
        self._finds = finds

    def chunks(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        self.began_with = self.remembered
        report(SourceEvent(Happened.OPENED, "open"))
        yield Chunk(b"\x55" * 100, datetime.now(UTC))
        if self.remembered != self._finds:
            self.remembered = self._finds
            report(SourceEvent(Happened.FOUND, f"found: {self._finds or 'as configured'}"))
        yield Chunk(frames_of("kamstrup-1phase-norway")[0], datetime.now(UTC))


def began_with(folder: Path, finds: str) -> str:
    """Run one process; returns what its source remembered at the start."""
    outbox = Outbox(folder / "outbox.sqlite")
    try:
        source = Finding(finds)
        SourceWorker(source, Link(source.name, "/dev/ttyUSB0"), outbox, Settings(outbox=folder / "outbox.sqlite")).run(
            threading.Event()
        )
        assert outbox.status().depth_lines
        return source.began_with
    finally:
        outbox.close()


def test_what_was_found_is_known_to_the_next_process(tmp_path: Path) -> None:
    assert began_with(tmp_path, "parity=E") == ""
    assert began_with(tmp_path, "parity=E") == "parity=E"
    assert began_with(tmp_path, "") == "parity=E"
    assert began_with(tmp_path, "") == ""
