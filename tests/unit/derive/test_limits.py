"""The owner's limits as thresholds."""

from __future__ import annotations

from exporter.config import Limits
from exporter.derive.limits import Threshold, exporter_thresholds, thresholds


def test_every_limit_is_a_threshold() -> None:
    limits = Limits(
        main_fuse_a=25,
        fuse_warn_pct=85,
        limit_power_w=9000,
        limit_hour_wh=4500,
        limit_unbalance_pct=35,
        voltage_min=210,
        voltage_max=250,
        limit_silence_s=120,
        unbalance_from_pct=45,
    )
    assert thresholds(limits) == (
        Threshold("fuse_load", "max", 100),
        Threshold("fuse_load", "warn", 85),
        Threshold("current", "max", 25),
        Threshold("current", "warn", 21.25),
        Threshold("active_power", "max", 9000),
        Threshold("hour_energy", "max", 4500),
        Threshold("phase_unbalance", "max", 35),
        Threshold("phase_unbalance", "from", 45),
        Threshold("voltage", "min", 210),
        Threshold("voltage", "max", 250),
        Threshold("reading_age", "max", 120),
    )
    assert exporter_thresholds(600) == (Threshold("backlog_age", "max", 600),)
