"""Every setting with its type, default and rules. This imports pydantic, so it is only imported to check something."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from exporter.config.basics import DEFAULT_ZONE, PREFIX, Limits, SettingsError, outbox_path, time_zone
from exporter.config.given import Given

__all__ = ["MeterSettings", "Settings", "check"]

_SIZES: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

Positive = Annotated[float, Field(gt=0, le=1e9)]
Percent = Annotated[float, Field(gt=0, le=1000)]
Fuse = Annotated[float, Field(gt=0, le=1000)]


class MeterSettings(BaseModel):
    """What can be set for one meter in han.toml, under `[meter."ID"]`. None: the general setting applies."""

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


class Settings(BaseModel):
    """Everything that can be set. Field `influx_url` is HAN_INFLUX_URL and, in han.toml, `influx_url`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True)

    source: str = ""
    """One or more sources, separated by blanks."""
    meter_id: str | None = None
    """Id of a meter that does not send one."""
    timezone: str = DEFAULT_ZONE
    outbox: Path | None = None
    """File of the durable queue; by default in the platform's data folder."""
    outbox_max: int = 1 << 30
    """Bytes. Can be written like 500M or 2G."""
    influx_url: str | None = None
    influx_token: SecretStr | None = None
    influx_token_file: Path | None = None
    influx_org: str = ""
    influx_bucket: str = "han"
    influx_ca_cert: Path | None = None
    """Certificate of your own authority, if one signed InfluxDB's certificate."""
    main_fuse_a: Fuse = 40
    fuse_warn_pct: Percent = 90
    limit_power_w: Positive = 10_000
    limit_hour_wh: Positive = 5_000
    """Upper bound of the capacity step that the house should stay in; Norway's 2-5 kW."""
    limit_unbalance_pct: Percent = 40
    unbalance_from_pct: Percent = 50
    """Unbalance matters only while a phase takes this much of the main fuse: without load every house is unbalanced."""
    voltage_min: Positive = 207
    """EN 50160: 230 V minus 10 %."""
    voltage_max: Positive = 253
    """EN 50160: 230 V plus 10 %."""
    limit_silence_s: Positive = 300
    limit_backlog_s: Positive = 600
    capacity_steps_kw: str = "2,5,10,15,20,25,50,75,100"
    """Upper bounds of the steps of the capacity charge, in ascending order."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    instance: str = ""
    """Name of this exporter in its own metrics; by default the name of the machine."""
    meter: Mapping[str, MeterSettings] = Field(default_factory=dict)

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        time_zone(value)
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
            raise ValueError("a size is a number of bytes, or a number with K, M or G, like 500M")
        return int(number) * _SIZES[unit]

    @field_validator("outbox_max")
    @classmethod
    def _size_enough(cls, value: int) -> int:
        if value < 1 << 20:
            raise ValueError("must be at least 1M")
        return value

    @field_validator("capacity_steps_kw")
    @classmethod
    def _rising(cls, value: str) -> str:
        try:
            steps = [float(step) for step in value.split(",")]
        except ValueError:
            steps = []
        # "nan" is a number for Python, but neither above nor below any other
        possible = all(0 < step <= 1e6 for step in steps)
        if not steps or not possible or steps != sorted(set(steps)):
            raise ValueError("must be the upper bounds of the steps in kW, in ascending order, like 2,5,10,15,20,25")
        return value

    @field_validator("influx_url")
    @classmethod
    def _http(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://, like http://localhost:8086")
        return value

    @model_validator(mode="after")
    def _one_token(self) -> Settings:
        if self.influx_token is not None and self.influx_token_file is not None:
            raise ValueError("set HAN_INFLUX_TOKEN or HAN_INFLUX_TOKEN_FILE, not both")
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
        own_limits = {} if own is None else own.model_dump(exclude_none=True)
        general = {field.name: getattr(self, field.name) for field in fields(Limits)}
        return Limits(**(general | own_limits))

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
        """The file of the durable queue."""
        return outbox_path(self.outbox)

    def token(self) -> str:
        """The token for InfluxDB, "" if there is none. Raises SettingsError if its file cannot be read."""
        if self.influx_token is not None:
            return self.influx_token.get_secret_value()
        if self.influx_token_file is None:
            return ""
        try:
            return self.influx_token_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:  # ValueError: it is not UTF-8, or its name contains a NUL
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise SettingsError(f"HAN_INFLUX_TOKEN_FILE {self.influx_token_file} cannot be read: {reason}") from None


def check(given: Given) -> Settings:
    """The settings, from what was set and the defaults. Raises SettingsError."""
    from_file = given.read_file()
    _check_names(given.variables)
    from_environment: dict[str, Any] = {
        name: _from_json(*found) if name == "meter" else found[1]
        for name, found in given.environment.items()
        if name in Settings.model_fields
    }
    try:
        return Settings.model_validate(_merged(from_file, from_environment, given.options))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise SettingsError("\n".join(_describe(problem, given, from_file) for problem in problems)) from None


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping of several; the later ones have priority, also inside tables."""
    found: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            tables = isinstance(value, Mapping) and isinstance(found.get(name), Mapping)
            found[name] = _merged(found[name], value) if tables else value
    return found


def _from_json(variable: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise SettingsError(f"{variable}: is not JSON; write it in han.toml instead") from None


def _check_names(variables: tuple[str, ...]) -> None:
    """A misspelt HAN_ variable would have no effect and nobody would notice, so it is an error."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = set(variables) - known
    if unknown:
        raise SettingsError(f"{', '.join(sorted(unknown))}: no such setting; there are {', '.join(sorted(known))}")


def _describe(problem: ErrorDetails, given: Given, from_file: Mapping[str, Any]) -> str:
    where = problem["loc"]
    name = str(where[0]) if where else ""
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        model = Settings if len(where) == 1 else MeterSettings
        message = f"no such setting; there are {', '.join(sorted(model.model_fields))}"
    if not name:
        return message
    if name in given.options:
        return f"--{name.replace('_', '-')}: {message}"
    if name in given.environment:
        return f"{given.environment[name][0]}: {message}"
    if name in from_file:
        return f"{'.'.join(map(str, where))} in {given.path}: {message}"
    return f"{name}: {message}"
