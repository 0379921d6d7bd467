"""Any list that carries OBIS codes, whoever sent it: also the lists of known makers that name nobody."""

from __future__ import annotations

from exporter.meters.entries import clock_of, entries, measurements_of, names_of, reading_of
from exporter.protocol.dlms import Notification
from exporter.reading import ClockHabit, Meter, Reading, Zone


def read(notification: Notification, zone: Zone) -> Reading | None:
    """Read what has an OBIS code; None when nothing has. A number without a scaler is taken as it stands."""
    found = list(entries(notification.value))
    if not found:
        return None
    names = names_of(found)
    meter = Meter(names.meter_id, None, names.meter_type)
    measurements = measurements_of(found, lambda _code, _number: 0)
    return reading_of(notification, meter, names.list_id, measurements, clock_of(found), ClockHabit.STANDARD, zone)
