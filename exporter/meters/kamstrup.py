"""Kamstrup OMNIPOWER: a flat structure of version, then OBIS + value pairs, without scalers.

Source: Kamstrup HAN-NVE interface description rev. 3.1; Swedish and CT meters by their captures (domain.md, "The three
lists"). Objects that a meter does not measure are left out, or two nulls stand in place of the pair.
"""

from __future__ import annotations

import re
from typing import Final

from exporter.meters.entries import Listing, Scaler, clock_of, entries, names_of, octets_of
from exporter.meters.text import safe_text
from exporter.model.obis import ObisCode, describe
from exporter.model.reading import ClockHabit, Meter
from exporter.protocol.apdu import Notification
from exporter.protocol.axdr import Tag

MAKER: Final = "Kamstrup"
_SWEDISH: Final = re.compile(r".*09\d")
"""Type of a Swedish meter (...090, ...092), whose registers are Wh, not 10 Wh."""
_CURRENT_TRANSFORMER: Final = "685"
"""Start of the type of a meter behind current transformers, whose currents are 0.001 A, not 0.01 A."""
_NO_VOLTS: Final = 1000
"""Some firmware sends voltage in 0.01 V without a word (captures of types ...BN244101011 and ...BN243101010): above
this a number cannot be volts, below it cannot be hundredths."""


def read(notification: Notification) -> Listing | None:
    """Read any Kamstrup list; None when it is not one."""
    value = notification.value
    if value.tag is not Tag.STRUCTURE or not isinstance(value.content, tuple) or not value.content:
        return None
    version = octets_of(value.content[0])
    if version is None or not version.startswith(b"Kamstrup"):
        return None
    found = tuple(entries(value))
    names = names_of(found)
    return Listing(
        Meter(names.meter_id, MAKER, names.meter_type),
        safe_text(version),
        found,
        lambda code: _scaler(code, names.meter_type or ""),
        ClockHabit.STANDARD,
        clock_of(found),
        named_by=names.named_by,
    )


def _scaler(code: ObisCode, meter_type: str) -> Scaler:
    quantity = describe(code)
    if quantity is None:
        return 0
    if quantity.is_register:
        return 0 if _SWEDISH.fullmatch(meter_type) else 1
    if quantity.name == "current":
        return -3 if meter_type.startswith(_CURRENT_TRANSFORMER) else -2
    if quantity.name == "voltage":
        return _scaler_of_voltage
    return -2 if quantity.name == "power_factor" else 0


def _scaler_of_voltage(number: float) -> int:
    return -2 if number > _NO_VOLTS else 0
