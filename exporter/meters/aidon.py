"""The Aidon form: an array of structures {OBIS, value[, {scaler, unit}]}, each number with its own scale.

Source: Aidon HAN interface description v1.1A; Landis+Gyr E350 in Norway sends the same form with the list id
EMBRIQ_V1_1 (seen in captures; docs/protocol.md).
"""

from __future__ import annotations

from typing import Final

from exporter.meters.entries import Listing, clock_of, entries, names_of
from exporter.model.reading import ClockHabit, Meter
from exporter.protocol.apdu import Notification
from exporter.protocol.axdr import Tag

_LANDIS_GYR: Final = "Landis+Gyr"
_MAKERS: Final = {"AIDON": "Aidon", "EMBRIQ": _LANDIS_GYR}


def read(notification: Notification) -> Listing | None:
    """Read a list that names one of these makers; None otherwise (list 1 names no maker: generic.py reads it)."""
    if notification.value.tag is not Tag.ARRAY:
        return None
    found = tuple(entries(notification.value))
    names = names_of(found)
    maker = next((m for start, m in _MAKERS.items() if names.list_id and names.list_id.startswith(start)), None)
    if maker is None:
        return None
    return Listing(
        Meter(names.meter_id, maker, names.meter_type),
        names.list_id,
        found,
        lambda _code: 0,
        ClockHabit.STANDARD,
        clock_of(found),
        three_wire=maker == _LANDIS_GYR,
        named_by=names.named_by,
    )
