"""What a source found out is in the outbox with the frame that it was found by, and the next process begins with it."""

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


class Learning:
    """A source that finds its line with the first frame, unless it knows it."""

    name, live = "ttyUSB0", True

    def __init__(self, finds: str) -> None:
        self.learnt = ""
        self.began_with = ""
        self._finds = finds

    def chunks(self, stop: threading.Event, report: Report) -> Iterator[Chunk]:
        self.began_with = self.learnt
        report(SourceEvent(Happened.OPENED, "open"))
        yield Chunk(b"\x55" * 100, datetime.now(UTC))
        if self.learnt != self._finds:
            self.learnt = self._finds
            report(SourceEvent(Happened.FOUND, f"found: {self._finds or 'as it is set'}"))
        yield Chunk(frames_of("kamstrup-1phase-norway")[0], datetime.now(UTC))


def began_with(folder: Path, finds: str) -> str:
    """One process; what its source knew at the start."""
    outbox = Outbox(folder / "outbox.sqlite")
    try:
        source = Learning(finds)
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
