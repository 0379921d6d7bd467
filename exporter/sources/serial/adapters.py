"""Which adapter a port name means, and which name that adapter has now.

The kernel numbers USB adapters in the order in which they appear. An adapter that was unplugged can come back as
/dev/ttyUSB1 instead of /dev/ttyUSB0, and another adapter can get its name. What does not change is what the adapter
says about itself (maker, product, serial number) and, if it has no serial number, the USB socket that it is plugged
into. So an adapter that was read once is followed to its new name while this process runs; after a restart only the
configured name is known. A name below /dev/serial/by-id stays the same over restarts too: udev makes it of the same
facts.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

__all__ = ["AdapterFollower", "serial_ports", "stable_path"]

log = logging.getLogger(__name__)

_NUMBERED: Final = re.compile(r"/dev/tty(USB|ACM)\d+")
"""Names that the kernel gives in the order in which adapters appear."""

_BY_ID: Final = Path("/dev/serial/by-id")

Ports = Callable[[], Iterable[Any]]
"""`serial_ports`, or what a test uses in its place."""


def serial_ports() -> list[Any]:
    """The serial ports of this machine, as pyserial lists them; the most likely ones first."""
    from serial.tools import list_ports

    for _ in range(2):
        try:
            # USB adapters first: a meter on a built-in port is rare.
            return sorted(list_ports.comports(), key=lambda port: (port.vid is None, port.device))
        except (OSError, TypeError, ValueError) as error:
            # pyserial calls int(None) if an adapter is unplugged while it reads the adapter's data.
            log.debug("the list of ports changed while it was read: %s", error)
    return []


@dataclass(frozen=True, slots=True)
class _Adapter:
    """A USB port as pyserial lists it. `interface` distinguishes the ports of one adapter, `socket` is where it is."""

    device: str
    kind: tuple[int, int]
    serial: str
    socket: str
    interface: str

    def is_same(self, other: _Adapter) -> bool:
        """True if nothing that does not change distinguishes the two."""
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


class AdapterFollower:
    """Follows the adapter that was read at `path`. A symlink, or a port that is not USB, is never followed."""

    def __init__(self, path: str | None, ports: Ports = serial_ports) -> None:
        self._path = path if path is not None and _NUMBERED.fullmatch(path) else None
        self._ports = ports
        self._known: _Adapter | None = None

    def opened(self, path: str) -> None:
        """`path` was opened: remember which adapter it is, if it can be distinguished from all others."""
        if self._path is None or Path(self._path).is_symlink():
            return
        present = _usb_ports(self._ports)
        here = next((each for each in present if each.device == path), None)
        if here is not None and sum(here.is_same(each) for each in present) == 1:
            self._known = here

    def new_path(self) -> str | None:
        """The name that the adapter has now; None if that is the configured name, or is not known."""
        if self._known is None:
            return None
        found = [each.device for each in _usb_ports(self._ports) if each.is_same(self._known)]
        return found[0] if len(found) == 1 and found[0] != self._path else None


def stable_path(path: str | None) -> str | None:
    """The name in /dev/serial/by-id of the device; None if it has none, or `path` is that name."""
    if path is None:
        return None
    device = Path(path).resolve()
    if path.startswith(str(_BY_ID)) or not _BY_ID.is_dir():
        return None
    return next((str(name) for name in sorted(_BY_ID.iterdir()) if name.resolve() == device), None)
