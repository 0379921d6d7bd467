"""Settings: command line over environment (HAN_*) over han.toml over defaults.

Importing pydantic takes longer than decoding a capture or asking a running service. So it is imported only where there
is something to check: `load` always checks, LazySettings as late as it can.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from zoneinfo import ZoneInfo

from exporter.config.basics import DEFAULT_ZONE, PREFIX, Limits, SettingsError, data_folder, outbox_path, time_zone
from exporter.config.given import collect

if TYPE_CHECKING:
    from exporter.config.model import MeterSettings, Settings
else:

    def __getattr__(name: str) -> object:
        """Import the checked settings when somebody asks for their class."""
        if name not in ("MeterSettings", "Settings"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from exporter.config import model

        return getattr(model, name)


__all__ = [
    "PREFIX",
    "LazySettings",
    "Limits",
    "MeterSettings",
    "Naming",
    "Settings",
    "SettingsError",
    "data_folder",
    "load",
]

_TEXTS: Final = frozenset({"timezone", "meter_id", "outbox"})
"""Settings that are text, for which no more has to be known than whether the time zone exists."""
_VARIABLES: Final = frozenset(PREFIX + name.upper() for name in _TEXTS)


class Naming(Protocol):
    """What readings are placed by: where the meter is, and the id of one that does not send any."""

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which meters keep their clocks."""
        ...

    @property
    def meter_id(self) -> str | None:
        """Id of a meter that does not send one."""
        ...


def load(overrides: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Read and check the settings. `overrides` are the command line's (None: not given), `config` is a han.toml.

    Without `config` it is the file that HAN_CONFIG names, else `han.toml` in the current folder if it exists. Raises
    SettingsError.
    """
    from exporter.config.model import check

    return check(collect(overrides, config))


class LazySettings:
    """The few settings that a quick command needs, as `load` gives them. Each may raise SettingsError.

    What only the environment says, or nothing does, is answered without importing pydantic; anything else by checking
    all settings.
    """

    def __init__(self, overrides: Mapping[str, Any] | None = None, config: Path | None = None) -> None:
        self._given = collect(overrides, config)
        self._named_file = config is not None

    def check(self) -> None:
        """Raise SettingsError if anything was set that cannot be used, whether this command needs it or not."""
        if not self._is_plain:
            _ = self._checked

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which meters keep their clocks."""
        return self._plain_zone if self._is_plain else self._checked.zone

    @property
    def meter_id(self) -> str | None:
        """Id of a meter that does not send one."""
        return self._given.text("meter_id") if self._is_plain else self._checked.meter_id

    @property
    def outbox_path(self) -> Path:
        """The file of the durable queue. Other settings are not looked at if only the environment can say it."""
        text = self._given.text("outbox")
        only_environment = self._given.path is None or (text is not None and not self._named_file)
        if self._given.options or not only_environment or not (text or "").isascii():
            return self._checked.outbox_path
        return outbox_path(Path(text) if text else None)

    @property
    def _plain_zone(self) -> ZoneInfo:
        return time_zone(self._given.text("timezone") or DEFAULT_ZONE)

    @cached_property
    def _is_plain(self) -> bool:
        """True if nothing was set but _TEXTS, in the environment, and they can be used."""
        given = self._given
        if given.options or given.path is not None:
            return False
        if not given.environment.keys() <= _TEXTS or not _VARIABLES.issuperset(given.variables):
            return False
        if not all(text.isascii() for _, text in given.environment.values()):
            return False  # it may hold bytes that are no text
        try:
            _ = self._plain_zone
        except ValueError:
            return False
        return True

    @cached_property
    def _checked(self) -> Settings:
        from exporter.config.model import check

        return check(self._given)
