"""Opens any source that HAN_SOURCE, or the SOURCE of a command, can name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from exporter.sources.contract import Source, SourceError

__all__ = ["open_source"]

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]+):", re.IGNORECASE)
_KNOWN: Final = "a port (/dev/ttyUSB0), socket://HOST:PORT, rfc2217://HOST:PORT, file:PATH or sim:kamstrup"


def _file(url: str, _: Mapping[str, Any]) -> Source:
    from exporter.sources.capture.file_source import FileSource

    return FileSource.from_url(url)


def _simulated(url: str, context: Mapping[str, Any]) -> Source:
    from exporter.sources.sim import SimSource

    return SimSource.from_url(url, context.get("zone") or ZoneInfo("Europe/Oslo"))


def _serial(url: str, _: Mapping[str, Any]) -> Source:
    from exporter.sources.serial.serial_port import SerialSource

    return SerialSource(url)


_SCHEMES: Final[Mapping[str, Callable[[str, Mapping[str, Any]], Source]]] = {"file": _file, "sim": _simulated}
"""A new source is one module and one line here. Any other scheme with `://` is opened by pyserial."""


def open_source(url: str, **context: Any) -> Source:
    """The source that a setting means; nothing is opened yet.

    `url` is one source (the caller splits HAN_SOURCE at blanks): `sim:…`, `file:PATH`, `-` for standard input, an
    existing file, a device path, or any pyserial URL. `context` is what else a source may need: `zone`, the ZoneInfo of
    HAN_TIMEZONE. Raises SourceError that says what is allowed.
    """
    if not url.strip():
        raise SourceError(f"no source given; a source is {_KNOWN}")
    scheme = _SCHEME.match(url)
    if scheme is not None and scheme[1].lower() in _SCHEMES:
        return _SCHEMES[scheme[1].lower()](url, context)
    if url == "-":
        return _file("file:-", context)
    if "://" in url:
        return _serial(url, context)
    if scheme is not None and not _exists(url):
        raise SourceError(f"{url}: {scheme[0]} is not known; a source is {_KNOWN}")
    return _path(url, context)


def _path(url: str, context: Mapping[str, Any]) -> Source:
    if _exists(url) and Path(url).is_file():
        from exporter.sources.capture.file_source import FileSource

        return FileSource(url)  # used as it is written: no query, no %20
    path = url.partition("?")[0]
    if "/" not in path and not _exists(path):
        # A port may appear later, but a name without a directory is a mistake.
        device = f"/dev/{path}"
        known = f"did you mean {device}?" if _exists(device) else f"a source is {_KNOWN}"
        raise SourceError(f"there is no file and no port named {path}; {known}")
    return _serial(url, context)


def _exists(path: str) -> bool:
    """False also for a path that this user may not look at or that no file can have; opening it gives the reason."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
