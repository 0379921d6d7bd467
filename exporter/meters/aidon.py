"""The Aidon form: an array of structures {OBIS, value[, {scaler, unit}]}, every number with its own scale.

Source: Aidon HAN interface description v1.1A; Landis+Gyr E350 in Norway speaks the same form under the list id
EMBRIQ_V1_1 (domain.md, "The three lists").
"""

from __future__ import annotations

from typing import Final

from exporter.meters.entries import clock_of, entries, measurements_of, names_of, reading_of
from exporter.meters.three_wire import without_unmeasured
from exporter.protocol.dlms import Notification, Tag
from exporter.reading import ClockHabit, Meter, Reading, Zone

_MAKERS: Final = {"AIDON": "Aidon", "EMBRIQ": "Landis+Gyr"}


def read(notification: Notification, zone: Zone) -> Reading | None:
    """Read a list that names one of these makers; None otherwise (list 1 names none, and is read as any OBIS list)."""
    if notification.value.tag is not Tag.ARRAY:
        return None
    found = list(entries(notification.value))
    names = names_of(found)
    maker = next((m for start, m in _MAKERS.items() if names.list_id and names.list_id.startswith(start)), None)
    if maker is None:
        return None
    measurements = measurements_of(found, lambda _code, _number: 0)
    if maker == "Landis+Gyr":
        measurements = without_unmeasured(measurements)
    meter = Meter(names.meter_id, maker, names.meter_type)
    return reading_of(notification, meter, names.list_id, measurements, clock_of(found), ClockHabit.STANDARD, zone)
