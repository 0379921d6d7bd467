"""The few settings that some commands need, without the library that checks all of them.

pydantic takes longer to load than a capture takes to decode, or a running service to be asked. So where only these few
are given, or only these matter, they are taken as they are; whatever is not plain (another setting, a han.toml, a value
that may be wrong) is left to `exporter.config.load`, which knows the rules and finds the words.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["DEFAULT_ZONE", "OTHERS", "PREFIX", "FewSettings", "Naming", "data_folder", "few_settings", "plain_outbox"]

PREFIX: Final = "HAN_"
DEFAULT_ZONE: Final = "Europe/Oslo"
OTHERS: Final = ("HAN_TEST_", "HAN_ALERT_", "HAN_GRAFANA_", "HAN_INIT_", "HAN_COMPOSE_")
"""Prefixes of variables that are read by others: the tests, the compose stack."""

_TIMEZONE, _METER_ID, _OUTBOX, _CONFIG = "HAN_TIMEZONE", "HAN_METER_ID", "HAN_OUTBOX", "HAN_CONFIG"


class Naming(Protocol):
    """What readings are placed by: where the meter is, and the id of one that never names itself."""

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which meters keep their clocks."""
        ...

    @property
    def meter_id(self) -> str | None:
        """Id of a meter that never names itself."""
        ...


@dataclass(frozen=True, slots=True)
class FewSettings:
    """As the fields of `exporter.config.Settings` of the same names."""

    timezone: str = DEFAULT_ZONE
    meter_id: str | None = None

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which meters keep their clocks."""
        return ZoneInfo(self.timezone)


def few_settings() -> FewSettings | None:
    """Time zone and meter id, when no other setting is given and these are plain; None: `load` must look."""
    if _has_file():
        return None
    given: dict[str, str] = {}
    for name, value in os.environ.items():
        if not name.upper().startswith(PREFIX) or name.startswith(OTHERS):
            continue
        if name not in (_TIMEZONE, _METER_ID, _CONFIG) or not value.isascii():
            return None
        if value:
            given[name] = value
    zone = given.get(_TIMEZONE, DEFAULT_ZONE)
    return FewSettings(zone, given.get(_METER_ID)) if _is_zone(zone) else None


def plain_outbox(overrides: Mapping[str, Any], config: Path | None) -> Path | None:
    """The outbox's file, when the environment alone says it or nothing does; None: `load` must look.

    What else is set does not matter to it, so that is not looked at.
    """
    if any(value is not None for value in overrides.values()) or any(
        name.upper() == _OUTBOX and name != _OUTBOX for name in os.environ
    ):
        return None
    if given := os.environ.get(_OUTBOX):
        return Path(given) if given.isascii() and config is None else None
    return None if config is not None or _has_file() else data_folder() / "outbox.sqlite"


def data_folder() -> Path:
    """Where a program of this user keeps its data on this platform."""
    home = Path.home()
    if sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return base / "han-exporter"


def _has_file() -> bool:
    return bool(os.environ.get(_CONFIG)) or Path("han.toml").is_file()


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
