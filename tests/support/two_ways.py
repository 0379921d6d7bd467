"""The same bytes by the pipeline's quick way, and by its slow way, which defines what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

from fastcrc import crc16

from exporter.config import Settings
from exporter.meters import OSLO
from exporter.model.calendar import to_ms
from exporter.model.reading import Zone
from exporter.pipeline.decoder import Outcome
from exporter.pipeline.host_clock import HostClock
from exporter.pipeline.pipeline import Counts, NoState, Pipeline, Purpose
from exporter.sources.contract import Chunk

NOW = datetime(2026, 11, 23, tzinfo=UTC)
CLOCK = HostClock(lambda: NOW, lambda: 0.0, lambda: True)

Chunks: TypeAlias = Sequence[tuple[bytes, datetime | None]]


@dataclass(frozen=True)
class Given:
    """All that a way gives."""

    lines: list[str]
    keys: list[str]
    outcomes: list[Outcome]
    state: dict[str, str]
    now: list[str]
    counts: Counts
    left_out: int


def given(chunks: Chunks, purpose: Purpose, zone: Zone, fallback: str | None, *, quick: bool) -> tuple[Given, int]:
    """What one way gives, and how many messages went quickly."""
    settings = Settings(timezone=zone.key, meter_id=fallback)
    pipeline = Pipeline("a capture", settings, NoState(), CLOCK, purpose=purpose, quick=quick)
    all_fed = [pipeline.feed((Chunk(data, received),), more=True) for data, received in chunks]
    assert pipeline.counts.size == sum(len(data) for data, _ in chunks)
    all_fed += [pipeline.interrupted(), pipeline.end()]
    rows = [row for fed in all_fed for row in fed.rows]
    quickly, pipeline.counts.quick = pipeline.counts.quick, 0
    lines = sorted(line for row in rows for line in row.body.decode().split("\n"))
    assert all(lines)
    return Given(
        lines,
        [row.key for row in rows if row.key],
        [outcome for fed in all_fed for outcome in fed.outcomes],
        all_fed[-1].state,
        pipeline.now(to_ms(NOW)),
        pipeline.counts,
        pipeline.left_out,
    ), quickly


def same(chunks: Chunks, *, zone: Zone = OSLO, derived: bool = False, fallback: str | None = None) -> int:
    """Both ways give the same; how many messages went the quick one."""
    quickly = 0
    for purpose in (Purpose.IMPORT, Purpose.RUN) if derived else (Purpose.VALUES,):
        quick, quickly = given(chunks, purpose, zone, fallback, quick=True)
        slow, none = given(chunks, purpose, zone, fallback, quick=False)
        assert none == 0
        assert quick == slow
    return quickly


def at_once(frames: Iterable[bytes], received: datetime | None = None) -> Chunks:
    """Frames in one chunk."""
    return [(b"".join(frames), received)]


def with_check_sums(sent: bytes) -> bytes:
    """A frame with its FCS corrected, and its HCS if the header can be read."""
    frame, at = bytearray(sent), 3
    for _ in ("destination", "source"):
        while at < len(frame) - 8 and not frame[at] & 1:
            at += 1
        at += 1
    at += 1
    frame[at : at + 2] = crc16.ibm_sdlc(bytes(frame[1:at])).to_bytes(2, "little")
    frame[-3:-1] = crc16.ibm_sdlc(bytes(frame[1:-3])).to_bytes(2, "little")
    return bytes(frame)
