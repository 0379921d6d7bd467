"""What the settings are made of, as far as it needs no library that is slow to import."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["DEFAULT_ZONE", "PREFIX", "Limits", "SettingsError", "data_folder", "outbox_path", "time_zone"]

PREFIX: Final = "HAN_"
"""What the name of every environment variable for a setting begins with."""
DEFAULT_ZONE: Final = "Europe/Oslo"


class SettingsError(Exception):
    """Settings that cannot be used. The message names each of them, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What counts as too much for one meter: A, %, W, Wh, %, V, V, s, %."""

    main_fuse_a: float
    fuse_warn_pct: float
    limit_power_w: float
    limit_hour_wh: float
    limit_unbalance_pct: float
    voltage_min: float
    voltage_max: float
    limit_silence_s: float
    unbalance_from_pct: float


def time_zone(name: str) -> ZoneInfo:
    """The time zone of this name. Raises ValueError if there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not a time zone; write it like {DEFAULT_ZONE}") from None


def outbox_path(outbox: Path | None) -> Path:
    """The file of the durable queue, given what the setting `outbox` says."""
    return outbox or data_folder() / "outbox.sqlite"


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
