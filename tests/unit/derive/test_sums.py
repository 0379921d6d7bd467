"""Sums of days and months, compared with calculations by hand."""

from __future__ import annotations

from exporter.derive.sums import EnergySum, day_sums, month_sums
from tests.support.moments import OSLO, utc


def test_sums_of_days_and_months_have_their_number_of_hours() -> None:
    finals = {
        utc("2026-10-31 21:00"): 100.0,  # 22:00 of the 31st in Oslo, in winter time
        utc("2026-10-31 22:00"): 250.0,
        utc("2026-10-31 23:00"): 70.0,  # the first of November
        utc("2026-11-02 11:00"): 5.0,
    }
    october, first, second = utc("2026-10-30 23:00"), utc("2026-10-31 23:00"), utc("2026-11-01 23:00")
    assert day_sums(finals, OSLO) == {october: EnergySum(350, 2), first: EnergySum(70, 1), second: EnergySum(5, 1)}
    assert month_sums(finals, OSLO) == {utc("2026-09-30 22:00"): EnergySum(350, 2), first: EnergySum(75, 2)}
    assert day_sums({}, OSLO) == {}
