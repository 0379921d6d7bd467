"""Any list that has OBIS codes, from any maker: also the lists of known makers that do not name the maker."""

from __future__ import annotations

from exporter.meters.entries import Listing, clock_of, entries, names_of
from exporter.model.reading import ClockHabit, Meter
from exporter.protocol.apdu import Notification


def read(notification: Notification) -> Listing | None:
    """Read the values that have OBIS codes; None if there are none. A number without a scaler is not scaled."""
    found = tuple(entries(notification.value))
    if not found:
        return None
    names = names_of(found)
    meter = Meter(names.meter_id, None, names.meter_type)
    return Listing(
        meter,
        names.list_id,
        found,
        lambda _code: 0,
        ClockHabit.STANDARD,
        clock_of(found),
        named_by=names.named_by,
    )
