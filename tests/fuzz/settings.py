"""Any environment and any han.toml: settings that can be used, or a SettingsError with a message.

The form of an input: lines NAME=VALUE of the environment (without HAN_), a line with `---`, then han.toml.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from exporter.config import PREFIX, Settings, SettingsError, load
from exporter.sources.contract import SourceError
from exporter.sources.open import open_source

_FOLDER: Final = tempfile.TemporaryDirectory(
    prefix="han-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None, ignore_cleanup_errors=True
)
FOLDER: Final = Path(_FOLDER.name)
_ENDLESS: Final = ("/dev/", "/proc/", "/sys/")


def run(given: bytes) -> None:
    """Load it."""
    environment, toml = split(given)
    path = FOLDER / "han.toml"
    path.write_bytes(toml)
    with _environment(environment):
        try:
            settings = load(config=path)
        except SettingsError as error:
            assert str(error)
            return
        use(settings)


def split(given: bytes) -> tuple[dict[str, str], bytes]:
    """The environment and the file."""
    head, _, toml = given.partition(b"---\n")
    variables = {}
    for line in os.fsdecode(head).split("\n"):
        name, _, value = line.partition("=")
        if name.isidentifier() and "\0" not in value:
            variables[PREFIX + name.upper()] = value
    return variables, toml


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    for name in before:
        del os.environ[name]
    # HAN_CONFIG is left out: only commands read it.
    os.environ.update({name: value for name, value in variables.items() if name != PREFIX + "CONFIG"})
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith(PREFIX)]:
            del os.environ[name]
        os.environ.update(before)


def use(settings: Settings) -> None:
    """Use accepted settings as `run` does."""
    assert settings.zone.key == settings.timezone
    assert settings.outbox_path
    assert settings.outbox_max >= 1 << 20
    steps = settings.capacity_steps_w
    assert steps
    assert all(map(math.isfinite, steps)), steps
    assert steps == sorted(set(steps))
    for meter_id in ("5706567100012345", *settings.meter):
        limits = settings.limits(meter_id)
        assert 0 < limits.main_fuse_a <= 1000
        assert limits.voltage_min > 0
    if settings.influx_token_file is None or not str(settings.influx_token_file).startswith(_ENDLESS):
        try:
            settings.token()
        except SettingsError as error:
            assert str(error)
    for url in settings.sources:
        try:
            open_source(url, zone=settings.zone)
        except SourceError as error:
            assert str(error)
