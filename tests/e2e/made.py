"""Frames made by hand for a meter with any id, in the form that Aidon uses."""

from __future__ import annotations

from tests.support.octets import array, frame, notification, obis, structure, u32

_WATT = structure(b"\x0f\x00", b"\x16\x1b")


def _string(data: bytes) -> bytes:
    length = bytes([len(data)]) if len(data) < 128 else b"\x82" + len(data).to_bytes(2, "big")
    return b"\x09" + length + data


def power(watts: int, meter_id: bytes | None = None) -> bytes:
    """A list with the imported power, and with the meter's id if there is one."""
    entries = [] if meter_id is None else [structure(obis("0-0:96.1.0"), _string(meter_id))]
    entries.append(structure(obis("1-0:1.7.0"), u32(watts), _WATT))
    return frame(notification(array(*entries)))


def frames_of_power(meter_id: str, watts: range) -> list[bytes]:
    """A list for each of these powers."""
    return [power(n, meter_id.encode()) for n in watts]
