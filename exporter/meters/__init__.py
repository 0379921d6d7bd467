"""Values -> Reading: list layouts, scales and clock rules, with one module for each maker.

The maker is recognised by what the list says, never by a setting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from exporter.meters import aidon, generic, kaifa, kamstrup
from exporter.meters.clock import OSLO, to_utc
from exporter.meters.entries import Listing, bytes_of, reading_of
from exporter.meters.text import safe_text
from exporter.model.reading import Reading, Zone
from exporter.protocol.apdu import Notification
from exporter.protocol.axdr import DecodeError

__all__ = ["OSLO", "interpret", "listing_of", "safe_text", "to_utc"]

_MAKERS: Final[tuple[Callable[[Notification], Listing | None], ...]] = (
    kamstrup.read,
    kaifa.read,
    aidon.read,
    generic.read,  # last: it reads anything that has OBIS codes
)


def interpret(notification: Notification, zone: Zone = OSLO) -> Reading:
    """Say what a list means, in SI units. `zone` is the time zone of the meter's clock.

    Raises DecodeError when no maker's module knows the list and it has no OBIS codes.
    """
    return reading_of(notification, listing_of(notification), zone)


def listing_of(notification: Notification) -> Listing:
    """Say what each value of a list is. Raises DecodeError as `interpret` does."""
    for read in _MAKERS:
        listing = read(notification)
        if listing is not None:
            return listing
    raise DecodeError(0, f"unknown list {_named(notification)}")


def _named(notification: Notification) -> str:
    """A description by which the owner and the developers can recognise the list."""
    value = notification.value
    if not isinstance(value.content, tuple):
        return f"(a single {value.tag.name.lower()}, not a list)"
    form = f"(a {value.tag.name.lower()} of {len(value.content)})"
    first = next((text for text in map(bytes_of, value.content) if text), None)
    name = None if first is None else safe_text(first)
    return f"{name} {form}" if name else form
