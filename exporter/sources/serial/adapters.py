"""Which adapter a port name means, and where that adapter is now.

The kernel numbers USB adapters as they come: unplugged and plugged in again, /dev/ttyUSB0 can come back as
/dev/ttyUSB1, and another adapter can have its name. What stays is what the adapter says of itself (maker, product,
serial number) and, where it has no serial number, the USB socket that it is plugged into. So a name that was read once
is followed, for as long as this process runs; after a restart only the name is known. A name below /dev/serial/by-id
holds through restarts as well: udev makes it of the same facts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["Whereabouts", "serial_ports", "stable_path"]

log = logging.getLogger(__name__)

_NUMBERED: Final = re.compile(r"/dev/tty(USB|ACM)\d+")
"""Names that the kernel gives in the order of plugging in."""

_BY_ID: Final = Path("/dev/serial/by-id")

Ports = Callable[[], Iterable[Any]]
"""`serial_ports`, or in a test what stands in for it."""


def serial_ports() -> list[Any]:
    """The serial ports of this machine, as pyserial lists them; the likeliest first."""
    from serial.tools import list_ports

    for _ in range(2):
        try:
            # USB adapters first: a meter on a built-in port is rare.
            return sorted(list_ports.comports(), key=lambda port: (port.vid is None, port.device))
        except (OSError, TypeError, ValueError) as error:
            # An adapter that is pulled out while pyserial reads of it: int(None) is how that shows.
            log.debug("the list of ports changed while it was read: %s", error)
    return []


@dataclass(frozen=True, slots=True)
class _Adapter:
    """A USB port as pyserial lists it; `interface` tells the ports of one adapter apart, `socket` is where it is."""

    device: str
    kind: tuple[int, int]
    serial: str
    socket: str
    interface: str

    def is_same(self, other: _Adapter) -> bool:
        """True when nothing that lasts tells the two apart."""
        if (self.kind, self.serial, self.interface) != (other.kind, other.serial, other.interface):
            return False
        return bool(self.serial) or self.socket == other.socket


def _usb_ports(ports: Ports) -> list[_Adapter]:
    found = []
    for port in ports():
        if port.vid is not None and port.pid is not None:
            socket, _, interface = (port.location or "").partition(":")
            found.append(_Adapter(port.device, (port.vid, port.pid), port.serial_number or "", socket, interface))
    return found


class Whereabouts:
    """Follows the adapter that was read at `path`. A symlink, or no USB port at all, is never followed elsewhere."""

    def __init__(self, path: str | None, ports: Ports = serial_ports) -> None:
        self._path = path if path is not None and _NUMBERED.fullmatch(path) else None
        self._ports = ports
        self._known: _Adapter | None = None

    def opened(self, path: str) -> None:
        """`path` was opened: remember which adapter that is, if it can be told apart from all others."""
        if self._path is None or Path(self._path).is_symlink():
            return
        there = _usb_ports(self._ports)
        here = next((each for each in there if each.device == path), None)
        if here is not None and sum(here.is_same(each) for each in there) == 1:
            self._known = here

    def look(self) -> str | None:
        """The name that the adapter has now, if that is another than its own; None to open the port as it is set."""
        if self._known is None:
            return None
        found = [each.device for each in _usb_ports(self._ports) if each.is_same(self._known)]
        return found[0] if len(found) == 1 and found[0] != self._path else None


def stable_path(path: str | None) -> str | None:
    """The name by the adapter's serial number that udev gave the device, if it did and `path` is not that."""
    if path is None:
        return None
    device = Path(path).resolve()
    if path.startswith(str(_BY_ID)) or not _BY_ID.is_dir():
        return None
    return next((str(name) for name in sorted(_BY_ID.iterdir()) if name.resolve() == device), None)
