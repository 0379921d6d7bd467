"""Some hours of a meter, as fast as the process reads them: a short form of the benchmark of days."""

from __future__ import annotations

import shutil

import pytest

from tests.benchmarks import days


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_every_point_of_three_hours_is_stored(capfd: pytest.CaptureFixture[str]) -> None:
    assert days.main(["0.125"]) == 0
    printed = capfd.readouterr().out
    assert "5400 frames sent, 5400 read" in printed
    assert "WRONG" not in printed
