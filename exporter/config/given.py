"""What was set, and where: on the command line, in the environment, in han.toml. Nothing is checked here.

This is the only place where settings are read. exporter.config.model checks what was found.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from exporter.config.basics import PREFIX, SettingsError

__all__ = ["Given", "collect"]

_CONFIG: Final = "HAN_CONFIG"
_OTHERS: Final = ("HAN_TEST_", "HAN_ALERT_", "HAN_GRAFANA_", "HAN_INIT_", "HAN_COMPOSE_")
"""Variables that begin with these are not the exporter's: the tests and the other services read them."""
_TOKENS: Final = ("influx_token", "influx_token_file")


@dataclass(frozen=True, slots=True)
class Given:
    """What was set, by name of the setting, before anything is checked.

    `options` are those of the command line. `environment` has the variable and its text for each that is not empty.
    `variables` are the names of all variables that should be settings, also of empty ones. `path` is the han.toml.
    """

    options: Mapping[str, Any]
    environment: Mapping[str, tuple[str, str]]
    variables: tuple[str, ...]
    path: Path | None

    def text(self, name: str) -> str | None:
        """The environment's text for a setting, None if it has none."""
        found = self.environment.get(name)
        return None if found is None else found[1]

    def read_file(self) -> dict[str, Any]:
        """What han.toml says. Raises SettingsError if it cannot be read."""
        if self.path is None:
            return {}
        found = _read_toml(self.path)
        if self.options.keys() & set(_TOKENS):  # one kind of token replaces the other kind
            for name in _TOKENS:
                found.pop(name, None)
        return found


def collect(overrides: Mapping[str, Any] | None = None, config: Path | None = None) -> Given:
    """Find out what was set. `overrides` are the command line's (None: not given), `config` is a han.toml.

    Without `config` it is the file that HAN_CONFIG names, else `han.toml` in the current folder if it exists.
    A variable counts in small letters too (`han_source`), but only HAN_ in capitals must be a setting.
    """
    path = config or (Path(os.environ[_CONFIG]) if os.environ.get(_CONFIG) else None)
    if path is None and Path("han.toml").is_file():
        path = Path("han.toml")
    ours = {
        name: text
        for name, text in os.environ.items()
        if name.upper().startswith(PREFIX) and not name.startswith(_OTHERS) and name != _CONFIG
    }
    return Given(
        options={name: value for name, value in (overrides or {}).items() if value is not None},
        environment={name[len(PREFIX) :].lower(): (name, text) for name, text in ours.items() if text},
        variables=tuple(name for name in ours if name.startswith(PREFIX)),
        path=path,
    )


def _read_toml(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # from tomllib, of text that is not UTF-8, of a number with thousands of digits
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"the settings file {path} is nested too deeply") from None
