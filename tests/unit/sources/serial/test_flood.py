"""A device that floods is read slowly; one that sends frames never is."""

from __future__ import annotations

import pytest

from exporter.sources.serial.flood import ALLOWED, RATE, Flood


def paused(flood: Flood, chunk: int, count: int, *, frames: int = 0, now: float = 0.0) -> float:
    """Seconds of pauses while `count` chunks are taken as fast as possible."""
    began = now
    for _ in range(count):
        now += flood.heard(chunk, frames, now)
    return now - began


def test_what_a_meter_or_a_network_delivers_at_once_is_not_a_flood() -> None:
    assert paused(Flood(), 4096, 60) == 0
    assert paused(Flood(), 1, 4000) == 0


def test_a_flood_is_held_at_the_rate() -> None:
    seconds = paused(Flood(), 4096, 1000)
    assert 4096 * 1000 / seconds == pytest.approx(RATE, rel=0.1)


def test_many_small_chunks_cost_as_much_as_few_large_ones() -> None:
    seconds = paused(Flood(), 1, 100_000)
    assert 100_000 / seconds < RATE / 50


def test_a_frame_ends_a_flood() -> None:
    flood = Flood()
    assert paused(flood, 4096, 100) > 0
    assert flood.heard(4096, 1, 1000.0) == 0
    assert paused(flood, 4096, 60, now=1000.0) == 0
    assert paused(Flood(), 4096, 10_000, frames=1) == 0


def test_time_ends_a_flood() -> None:
    flood = Flood()
    paused(flood, 4096, 100)
    assert paused(flood, 4096, 60, now=1000.0) == 0


def test_a_slow_port_that_gives_byte_by_byte_is_not_a_flood() -> None:
    flood, now = Flood(), 0.0
    for _ in range(240 * 600):
        now += 1 / 240
        assert flood.heard(1, 0, now) == 0


def test_it_is_reported_once_until_frames_come() -> None:
    flood = Flood()
    paused(flood, 4096, 100)
    flood.reported = True
    paused(flood, 4096, 100, now=1000.0)
    assert flood.reported
    flood.heard(100, 1, 2000.0)
    assert not flood.reported
    assert ALLOWED > 100_000, "a burst of noise is not a flood"
