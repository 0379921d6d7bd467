"""Values -> Reading: list layouts, scales, clock rules, one module a maker.

The maker is known by what the list says, never by a setting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from exporter.meters import aidon, generic, kaifa, kamstrup
from exporter.meters.clock import OSLO, to_utc
from exporter.meters.entries import Listing, octets_of, reading_of
from exporter.meters.text import safe_text
from exporter.model.reading import Reading, Zone
from exporter.protocol.apdu import Notification
from exporter.protocol.axdr import DecodeError

__all__ = ["OSLO", "interpret", "listing_of", "safe_text", "to_utc"]

_MAKERS: Final[tuple[Callable[[Notification], Listing | None], ...]] = (
    kamstrup.read,
    kaifa.read,
    aidon.read,
    generic.read,  # last: it reads whatever has OBIS codes
)


def interpret(notification: Notification, zone: Zone = OSLO) -> Reading:
    """Say what a list means, in SI units; `zone` is the one in which meters keep their clocks.

    Raises DecodeError when no maker's module knows the list and it carries no OBIS codes.
    """
    return reading_of(notification, listing_of(notification), zone)


def listing_of(notification: Notification) -> Listing:
    """Say which value of a list is what. Raises DecodeError as `interpret` does."""
    for read in _MAKERS:
        listing = read(notification)
        if listing is not None:
            return listing
    raise DecodeError(0, f"unknown list {_named(notification)}")


def _named(notification: Notification) -> str:
    """Words by which an owner, and we, can tell which list it was."""
    value = notification.value
    if not isinstance(value.content, tuple):
        return f"(a single {value.tag.name.lower()}, no list)"
    form = f"(a {value.tag.name.lower()} of {len(value.content)})"
    octets = next((o for o in map(octets_of, value.content) if o), None)
    name = None if octets is None else safe_text(octets)
    return f"{name} {form}" if name else form
