"""When this computer's clock is not trusted, and which time a reading takes then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from exporter.model.reading import LATEST, Meter, Reading
from exporter.pipeline.host_clock import NOT_BEFORE, synchronised
from tests.support.pipeline import Corrected

NOW = NOT_BEFORE + timedelta(days=100)


class Time:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def reading(received: datetime | None) -> Reading:
    return Reading(Meter("A"), None, (), received=received)


def host(kernel: bool | None, time: Time | None = None) -> Corrected:
    return Corrected(kernel=lambda: kernel, monotonic=time or Time())


@pytest.mark.parametrize("kernel", [True, None])
def test_a_synchronised_clock_is_trusted_whatever_the_meter_says(kernel: bool | None) -> None:
    told = host(kernel)
    assert told.correct(reading(NOW), NOW + timedelta(hours=5)).received == NOW
    assert told.trusted


def test_an_unsynchronised_clock_near_the_meters_is_trusted() -> None:
    assert host(False).correct(reading(NOW), NOW + timedelta(minutes=4)).received == NOW


def test_a_meters_clock_that_no_influxdb_could_hold_is_no_help() -> None:
    """Year 9999 would end the reading of its source: the local day after has no date."""
    told = host(False)
    assert told.correct(reading(NOW), datetime(9999, 12, 31, 23, 59, tzinfo=UTC)).received == NOW
    assert told.correct(reading(NOW), LATEST - timedelta(minutes=1)).received == LATEST - timedelta(minutes=1)


def test_an_unsynchronised_clock_far_from_the_meters_is_not(caplog: pytest.LogCaptureFixture) -> None:
    time = Time()
    told = host(False, time)
    meter = NOW + timedelta(days=3)
    assert told.correct(reading(NOW), meter).received == meter
    assert not told.trusted
    time.now += 10
    assert told.correct(reading(NOW + timedelta(seconds=10)), None).received == meter + timedelta(seconds=10)
    assert [record.getMessage() for record in caplog.records if "is wrong" in record.getMessage()]
    later = meter + timedelta(seconds=20)
    assert told.correct(reading(later), later).received == later  # NTP has set it
    assert told.trusted


def test_before_this_version_was_made_no_clock_is_right(caplog: pytest.LogCaptureFixture) -> None:
    told = host(True)
    early = datetime(1970, 1, 1, 0, 5, tzinfo=NOW.tzinfo)
    assert told.correct(reading(early), None).received == early  # nobody tells better
    assert not told.trusted
    assert "1970-01-01 00:05 UTC" in caplog.text
    assert told.correct(reading(early), NOW).received == NOW


def test_a_meter_in_the_year_2000_is_no_help() -> None:
    told = host(False)
    assert told.correct(reading(NOW), datetime(2000, 1, 1, tzinfo=NOW.tzinfo)).received == NOW
    assert told.trusted


def test_without_a_time_there_is_nothing_to_mend() -> None:
    assert host(False).correct(reading(None), NOW).received is None


def test_the_kernel_can_be_asked() -> None:
    assert synchronised() in (True, False, None)
