"""What the URL of a serial source says: where the port is, and how it is to be set.

    /dev/ttyUSB0   /dev/ttyUSB0?parity=E   /dev/ttyACM0?baud=115200   socket://10.0.0.5:2001   rfc2217://gw:2217?parity=E

`baud`, `bits`, `parity`, `stop` and `silence` are read here; the rest of the query is for pyserial.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Final
from urllib.parse import urlsplit

from exporter.sources.contract import SourceError

__all__ = ["SILENCE", "SerialSettings", "SerialUrl"]

SILENCE: Final = 60.0
"""Seconds without a byte after which a port counts as silent."""

_PARITIES: Final = ("N", "E", "O")
_STOP_BITS: Final = {"1": 1.0, "1.5": 1.5, "2": 2.0}
_NETWORK: Final = ("socket", "rfc2217")
_WITHOUT_WIRE: Final = (*_NETWORK, "loop")


@dataclass(frozen=True, slots=True)
class SerialSettings:
    """Baud rate, data bits, parity and stop bits. The default, 2400 8N1, is in the makers' documents."""

    baud: int = 2400
    bits: int = 8
    parity: str = "N"
    stop: float = 1.0

    def __str__(self) -> str:
        return f"{self.baud} {self.bits}{self.parity}{self.stop:g}"

    @property
    def byte_seconds(self) -> float:
        """Seconds that one byte takes on the wire: start bit, data bits, parity bit, stop bits."""
        return (1 + self.bits + (self.parity != "N") + self.stop) / self.baud

    @property
    def query(self) -> str:
        """The query of a URL with these settings; empty for 2400 8N1."""
        asked = [
            f"{each.name}={value:g}" if isinstance(value := getattr(self, each.name), float) else f"{each.name}={value}"
            for each in fields(self)
            if getattr(self, each.name) != each.default
        ]
        return "&".join(asked)


def _baud(text: str) -> int:
    if text.isascii() and text.isdigit() and 50 <= int(text) <= 4_000_000:
        return int(text)
    raise ValueError("a whole number from 50 to 4000000, such as 2400, 9600 or 115200")


def _bits(text: str) -> int:
    if text in ("5", "6", "7", "8"):
        return int(text)
    raise ValueError("5, 6, 7 or 8")


def _parity(text: str) -> str:
    if text.upper() in _PARITIES:
        return text.upper()
    raise ValueError("N (none), E (even) or O (odd)")


def _stop(text: str) -> float:
    if text in _STOP_BITS:
        return _STOP_BITS[text]
    raise ValueError("1, 1.5 or 2")


def _silence(text: str) -> float:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 86_400:
        return float(text)
    raise ValueError("whole seconds from 1 to 86400")


_KEYS: Final[dict[str, Callable[[str], int | float | str]]] = {
    "baud": _baud,
    "bits": _bits,
    "parity": _parity,
    "stop": _stop,
    "silence": _silence,
}


@dataclass(frozen=True, slots=True)
class SerialUrl:
    """The parts of a URL. `address` is what pyserial opens (a device path or a URL).

    `fixed` names the fields of `settings` that are in the URL; the others may be found by listening.
    """

    address: str
    settings: SerialSettings = field(default_factory=SerialSettings)
    silence: float = SILENCE
    fixed: frozenset[str] = field(default=frozenset(), compare=False)

    @classmethod
    def parse(cls, text: str) -> SerialUrl:
        """Split a URL into its parts. Raises SourceError that names the wrong part and what is allowed there."""
        address, _, query = text.partition("?")
        if not address:
            raise SourceError("the source has no port; write for example /dev/ttyUSB0 or socket://host:port")
        ours: dict[str, int | float | str] = {}
        rest = []
        for part in filter(None, query.split("&")):
            key, _, value = part.partition("=")
            if key in _KEYS:
                ours[key] = _read(text, key, value)
            else:
                rest.append(part)
        if rest and "://" not in address:
            raise SourceError(f"{text}: {rest[0]!r} is not known; a port takes {', '.join(_KEYS)}")
        silence = float(ours.pop("silence", SILENCE))
        whole = address + ("?" + "&".join(rest) if rest else "")
        # mypy cannot know that the reader of each key gives the type of that field.
        url = cls(whole, SerialSettings(**ours), silence, frozenset(ours))  # type: ignore[arg-type]
        url._check_network()
        return url

    def with_settings(self, settings: SerialSettings) -> SerialUrl:
        """The same port with other settings."""
        return replace(self, settings=settings)

    def at(self, path: str) -> SerialUrl:
        """The same URL for another device."""
        return replace(self, address=path)

    @property
    def scheme(self) -> str:
        """`socket`, `rfc2217`, `loop`, `spy`, `hwgrep`, …; empty for a device path."""
        return self.address.partition("://")[0].lower() if "://" in self.address else ""

    @property
    def is_network(self) -> bool:
        """True if the port is on another machine."""
        return self.scheme in _NETWORK

    @property
    def is_settable(self) -> bool:
        """True if baud rate and parity can be set from here; with a plain socket they are set at the far end."""
        return self.scheme not in ("socket", "loop")

    @property
    def byte_seconds(self) -> float:
        """Wire time of one byte; 0 if the bytes come over a network, where the time between them says nothing."""
        return 0.0 if self.scheme in _WITHOUT_WIRE else self.settings.byte_seconds

    @property
    def path(self) -> str | None:
        """The device path; None if it is not known before opening."""
        if not self.scheme:
            return self.address
        if self.scheme == "spy":
            return self.address.partition("://")[2].partition("?")[0]
        return None

    @property
    def name(self) -> str:
        """Short, and always the same: `ttyUSB0`, `10.0.0.5:2001`, `loop`."""
        if self.path is not None:
            return posixpath.basename(self.path.rstrip("/")) or self.path
        place = urlsplit(self.address)
        if self.is_network:
            return place.netloc.rpartition("@")[2]
        return place.netloc or self.scheme

    @property
    def text(self) -> str:
        """The URL of this port with these settings; `parse` reads it."""
        asked = [self.settings.query] if self.settings.query else []
        if self.silence != SILENCE:
            asked.append(f"silence={self.silence:g}")
        mark = "&" if "?" in self.address else "?"
        return self.address + (mark + "&".join(asked) if asked else "")

    def _check_network(self) -> None:
        try:
            place = urlsplit(self.address) if self.scheme else None
            complete = place is None or not self.is_network or bool(place.hostname and place.port)
        except ValueError as error:
            if not self.is_network:
                raise SourceError(f"{self.address} is not a URL: {error}") from None
            complete = False
        if not complete:
            raise SourceError(
                f"{self.address}: write {self.scheme}://HOST:PORT, for example {self.scheme}://10.0.0.5:2001"
            )


def _read(url: str, key: str, value: str) -> int | float | str:
    try:
        return _KEYS[key](value)
    except ValueError as allowed:
        raise SourceError(f"{url}: {key}={value} is wrong; {key} is {allowed}") from None
