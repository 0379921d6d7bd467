"""Kamstrup OMNIPOWER: a flat structure of version, then OBIS + value pairs, without scalers.

Source: Kamstrup HAN-NVE interface description rev. 3.1. Swedish and CT meters: their captures. Objects that a meter
does not measure are left out, or are two nulls in place of the pair.
"""

from __future__ import annotations

import re
from typing import Final

from exporter.meters.entries import Listing, Scaler, bytes_of, clock_of, entries, names_of
from exporter.meters.text import safe_text
from exporter.model.obis import ObisCode, describe
from exporter.model.reading import ClockHabit, Meter
from exporter.protocol.apdu import Notification
from exporter.protocol.axdr import Tag

MAKER: Final = "Kamstrup"
_SWEDISH: Final = re.compile(r".*09\d")
"""Type of a Swedish meter (...090, ...092). Its registers are in Wh, not in 10 Wh."""
_CURRENT_TRANSFORMER: Final = "685"
"""Start of the type of a meter with current transformers. Its currents are in 0.001 A, not in 0.01 A."""
_LARGEST_VOLTAGE: Final = 1000
"""Some firmware sends voltage in 0.01 V and does not say so (captures of types ...BN244101011 and ...BN243101010). A
larger number cannot be V, a smaller one cannot be 0.01 V."""


def read(notification: Notification) -> Listing | None:
    """Read any Kamstrup list; None if it is not one."""
    value = notification.value
    if value.tag is not Tag.STRUCTURE or not isinstance(value.content, tuple) or not value.content:
        return None
    version = bytes_of(value.content[0])
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
    return -2 if number > _LARGEST_VOLTAGE else 0
