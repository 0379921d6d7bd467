"""Lists that name no meter and have no time: nothing tells how long they have waited but their number."""

from __future__ import annotations

from exporter.meters import OSLO
from exporter.model.obis import ObisCode
from exporter.model.reading import Measurement, Meter, Reading
from tests.support.pipeline import Placer

NAMELESS = Reading(Meter(), None, (Measurement(ObisCode.parse("1-0:1.7.0"), 1.0, "W"),))
NAMED = Reading(Meter("m"), None, NAMELESS.measurements)


def test_a_thousand_wait_and_then_none() -> None:
    placer = Placer("raw", zone=OSLO, state={})
    assert all(placer.place(NAMELESS) == [] for _ in range(999))
    given_up = placer.place(NAMELESS)
    assert [placed.meter_id for placed in given_up] == ["unknown-raw"] * 1000
    assert not placer.waits
    assert [placed.meter_id for placed in placer.place(NAMELESS)] == ["unknown-raw"]


def test_a_name_that_comes_in_time_is_theirs() -> None:
    placer = Placer("raw", zone=OSLO, state={})
    assert all(placer.place(NAMELESS) == [] for _ in range(999))
    assert [placed.meter_id for placed in placer.place(NAMED)] == ["m"] * 1000
