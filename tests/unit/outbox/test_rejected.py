"""Ids as text, and what a running service answers."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from exporter.derive import points
from exporter.model import point
from exporter.outbox import rejected
from exporter.outbox.queue import Outbox
from tests.support.rows import rows


def test_ids_as_text() -> None:
    ids = [9, 3, 4, 5, 4]
    assert rejected.ranges(ids) == [(3, 5), (9, 9)]
    assert rejected.as_text(rejected.ranges(ids)) == "3-5,9"
    assert rejected.from_text("3-5, 9") == [(3, 5), (9, 9)]


@pytest.mark.parametrize("text", ["", "x", "1-", "-1", "1,,2", "1 OR 1=1", "٣"])
def test_what_is_not_an_id_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="ID"):
        rejected.from_text(text)


def test_what_the_service_answers(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.append(rows(["bad value=1 1", "worse value=1 1"]))
    batch = outbox.take(2, newest=False)
    assert batch is not None
    outbox.delete(batch, refused={0: "no", 1: "no"})
    commands = rejected.commands(outbox)
    assert commands["retry_rejected"]("1-1") == {"retried": {"lines": 1, "left": 0}}
    assert commands["drop_rejected"]("2") == {"dropped": 1}
    assert commands["retry_rejected"]("2") == {"retried": {"lines": 0, "left": 0}}
    assert commands["drop_rejected"]("x")["error"].startswith("'x'")
    assert outbox.status().depth_lines == 1
    outbox.close()
    assert "is closed" in commands["drop_rejected"]("2")["error"]


def test_many_thousand_lines_go_back_and_keep_their_order(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.db")
    lines = [f"bad value={n} {n}" for n in range(3500)]
    outbox.append(rows(lines))
    batch = outbox.take(5000, newest=False)
    assert batch is not None
    outbox.delete(batch, refused=dict.fromkeys(range(3500), "no"))
    assert rejected.retry(outbox, [(1, 10**6)]) == rejected.Retried(3500)
    batch = outbox.take(5000, newest=False)
    assert batch is not None
    assert list(batch.lines) == lines
    assert outbox.status().rejected_lines == 0
    outbox.close()


def test_which_points_have_versions() -> None:
    zone = ZoneInfo("Europe/Oslo")
    assert point.replaced_key(points.final_hour_line("A", "import", 1.0, 3_600_000, zone))
    assert not point.replaced_key(points.running_hour_line("A", "import", "so_far", 1.0, 3_600_001))
    assert not point.replaced_key("active_power,meter_id=day_energy\\ 3600000 value=1 3600000")
    assert not point.replaced_key("day_energy")


def test_a_newer_version_that_was_taken_removes_the_older_ones(tmp_path: Path) -> None:
    """... of the same point only: series and time."""
    outbox = Outbox(tmp_path / "outbox.db")
    old = [f"day_energy,meter_id=A value={n} 3600000" for n in (1, 2)]
    others = ["day_energy,meter_id=A value=1 7200000", "day_energy,meter_id=A\\ B value=1 3600000", "a value=1 3600000"]
    outbox.append(rows(old + others))
    batch = outbox.take(9, newest=False)
    assert batch is not None
    outbox.delete(batch, refused=dict.fromkeys(range(5), "no"))
    outbox.append(rows(["day_energy,meter_id=A value=3 3600000", "a value=2 3600000"]))
    batch = outbox.take(9, newest=False)
    assert batch is not None
    outbox.delete(batch)
    assert [one.line for one in outbox.refused()] == others[::-1]
    outbox.append(rows(["day_energy,meter_id=A value=9 7200000"]))
    assert rejected.retry(outbox, [(1, 99)]) == rejected.Retried(1, 2), "a newer one waits"
    outbox.close()
