"""Settings: command line over environment (HAN_*) over han.toml over defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from exporter.few_settings import DEFAULT_ZONE, OTHERS, PREFIX, data_folder

__all__ = ["PREFIX", "Limits", "MeterSettings", "Settings", "SettingsError", "data_folder", "load"]

_SIZES: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
# Variables with the prefix that are not settings of `run`.
_NOT_SETTINGS: Final = frozenset({"HAN_CONFIG"})


class SettingsError(Exception):
    """Settings that cannot be used; the message names each, and what is allowed."""


Positive = Annotated[float, Field(gt=0, le=1e9)]
Percent = Annotated[float, Field(gt=0, le=1000)]
Fuse = Annotated[float, Field(gt=0, le=1000)]


class MeterSettings(BaseModel):
    """What can be given for one meter in han.toml, under `[meter."ID"]`: each None is the general setting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    main_fuse_a: Fuse | None = None
    fuse_warn_pct: Percent | None = None
    limit_power_w: Positive | None = None
    limit_hour_wh: Positive | None = None
    limit_unbalance_pct: Percent | None = None
    unbalance_from_pct: Percent | None = None
    voltage_min: Positive | None = None
    voltage_max: Positive | None = None
    limit_silence_s: Positive | None = None


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
    unbalance_from_pct: float = 50


class Settings(BaseSettings):
    """Everything that can be set. Field `influx_url` is HAN_INFLUX_URL and, in han.toml, `influx_url`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, hide_input_in_errors=True)

    source: str = ""
    """One or more sources, separated by blanks."""
    meter_id: str | None = None
    """Id of a meter that never names itself."""
    timezone: str = DEFAULT_ZONE
    outbox: Path | None = None
    """File of the durable queue; by default in the platform's data folder."""
    outbox_max: int = 1 << 30
    """Octets; written as 500M or 2G too."""
    influx_url: str | None = None
    influx_token: SecretStr | None = None
    influx_token_file: Path | None = None
    influx_org: str = ""
    influx_bucket: str = "han"
    influx_ca_cert: Path | None = None
    """Certificate of the authority that signed InfluxDB's, if it is one's own."""
    main_fuse_a: Fuse = 40
    fuse_warn_pct: Percent = 90
    limit_power_w: Positive = 10_000
    limit_hour_wh: Positive = 5_000
    """Upper bound of the capacity step that the house is to stay in; Norway's 2-5 kW."""
    limit_unbalance_pct: Percent = 40
    unbalance_from_pct: Percent = 50
    """A phase must take so much of the main fuse for unbalance to matter: at rest every house is unbalanced."""
    voltage_min: Positive = 207
    """EN 50160: 230 V less 10 %."""
    voltage_max: Positive = 253
    limit_silence_s: Positive = 300
    limit_backlog_s: Positive = 600
    capacity_steps_kw: str = "2,5,10,15,20,25,50,75,100"
    """Upper bounds of the steps of the capacity charge, rising."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    instance: str = ""
    """Name of this exporter in its own metrics; by default the machine's."""
    meter: Mapping[str, MeterSettings] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(  # noqa: D102 - pydantic's hook
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given = init_settings.init_kwargs if isinstance(init_settings, InitSettingsSource) else {}
        from_file = given.pop("_file", {})
        environment = EnvSettingsSource(settings_cls, env_ignore_empty=True)
        del env_settings
        return init_settings, environment, InitSettingsSource(settings_cls, from_file)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{value!r} is no time zone; write it like Europe/Oslo") from None
        return value

    @field_validator("outbox_max", mode="before")
    @classmethod
    def _size(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        text = value.strip().lower().removesuffix("b").removesuffix("i")
        unit = text[-1:] if text[-1:].isalpha() else ""
        number = text.removesuffix(unit).strip()
        if unit not in _SIZES or not number.isdecimal():
            raise ValueError("a size is octets, or a number with K, M or G, like 500M")
        return int(number) * _SIZES[unit]

    @field_validator("outbox_max")
    @classmethod
    def _size_enough(cls, value: int) -> int:
        if value < 1 << 20:
            raise ValueError("must be 1M at least")
        return value

    @field_validator("capacity_steps_kw")
    @classmethod
    def _rising(cls, value: str) -> str:
        try:
            steps = [float(step) for step in value.split(",")]
        except ValueError:
            steps = []
        # "nan" is a number, and neither above nor below any other
        possible = all(0 < step <= 1e6 for step in steps)
        if not steps or not possible or steps != sorted(set(steps)):
            raise ValueError("the upper bounds of the steps in kW, rising, like 2,5,10,15,20,25")
        return value

    @field_validator("influx_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://, like http://localhost:8086")
        return value

    @model_validator(mode="after")
    def _one_token(self) -> Settings:
        if self.influx_token is not None and self.influx_token_file is not None:
            raise ValueError("give HAN_INFLUX_TOKEN or HAN_INFLUX_TOKEN_FILE, not both")
        return self

    @model_validator(mode="after")
    def _voltages(self) -> Settings:
        if self.voltage_min >= self.voltage_max:
            raise ValueError("HAN_VOLTAGE_MIN must be below HAN_VOLTAGE_MAX")
        return self

    @property
    def capacity_steps_w(self) -> list[float]:
        """Upper bounds of the steps of the capacity charge, W."""
        return [float(step) * 1000 for step in self.capacity_steps_kw.split(",")]

    def limits(self, meter_id: str) -> Limits:
        """What counts as too much for this meter."""
        own = self.meter.get(meter_id)
        given = {} if own is None else own.model_dump(exclude_none=True)
        general = {field.name: getattr(self, field.name) for field in fields(Limits)}
        return Limits(**(general | given))

    @property
    def zone(self) -> ZoneInfo:
        """The time zone in which meters keep their clocks."""
        return ZoneInfo(self.timezone)

    @property
    def sources(self) -> list[str]:
        """The sources' URLs."""
        return self.source.split()

    @property
    def outbox_path(self) -> Path:
        """Where the durable queue is."""
        return self.outbox or data_folder() / "outbox.sqlite"

    def token(self) -> str:
        """The token for InfluxDB, "" for none. Raises SettingsError when its file cannot be read."""
        if self.influx_token is not None:
            return self.influx_token.get_secret_value()
        if self.influx_token_file is None:
            return ""
        try:
            return self.influx_token_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:  # no UTF-8, or a NUL in its name
            words = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SettingsError(f"HAN_INFLUX_TOKEN_FILE {self.influx_token_file} cannot be read: {words}") from None


def load(overrides: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Read the settings. `overrides` are the command line's (None = not given), `config` a han.toml.

    Without `config` it is HAN_CONFIG, else `han.toml` in this folder if there is one. Raises SettingsError.
    """
    path = config or (Path(os.environ["HAN_CONFIG"]) if os.environ.get("HAN_CONFIG") else None)
    if path is None and Path("han.toml").is_file():
        path = Path("han.toml")
    from_file = {} if path is None else _read_toml(path)
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    if given.keys() & {"influx_token", "influx_token_file"}:  # one kind of token on top of the other kind
        for name in ("influx_token", "influx_token_file"):
            from_file.pop(name, None)
    _check_names()
    try:
        return Settings(_file=from_file, **given)  # type: ignore[call-arg]
    except ValidationError as error:
        told = [_told(problem, path, from_file, given) for problem in error.errors(include_input=False)]
        raise SettingsError("\n".join(told)) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # of tomllib, of text that is no UTF-8, of a number with thousands of digits
        raise SettingsError(f"the settings file {path} is not TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"the settings file {path} is nested too deep to be one") from None


def _check_names() -> None:
    """A misspelt HAN_ variable would be passed over in silence: name it instead."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | _NOT_SETTINGS
    unknown = [name for name in os.environ if name.startswith(PREFIX) and name not in known]
    unknown = [name for name in unknown if not name.startswith(OTHERS)]
    if unknown:
        raise SettingsError(
            f"{', '.join(sorted(unknown))}: no such setting; there are {', '.join(sorted(known - _NOT_SETTINGS))}"
        )


def _told(problem: ErrorDetails, path: Path | None, from_file: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    where = problem["loc"]
    name = str(where[0]) if where else ""
    if not name:
        return problem["msg"].removeprefix("Value error, ")
    if name in given:
        label = f"--{name.replace('_', '-')}"
    elif PREFIX + name.upper() in os.environ:
        label = PREFIX + name.upper()
    elif name in from_file:
        label = f"{'.'.join(map(str, where))} in {path}"
    else:
        label = name
    words = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        words = f"no such setting; there are {', '.join(sorted(Settings.model_fields))}"
    return f"{label}: {words}"
