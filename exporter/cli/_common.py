"""What commands have in common: settings, words on standard error, exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click

from exporter.config import Settings, SettingsError, load

EXIT_OK: Final = 0
EXIT_REJECTED: Final = 1
"""It worked, and something in it did not."""
EXIT_UNUSABLE: Final = 2
"""The input or the settings cannot be used (click's own exit code for a wrong command line)."""

F = TypeVar("F", bound=Callable[..., Any])


def say(words: str) -> None:
    """Tell the person at the terminal; standard output is for what was asked for."""
    click.echo(words, err=True)


def give_up(words: str, code: int = EXIT_UNUSABLE) -> NoReturn:
    """Say what is wrong and end."""
    say(words)
    raise SystemExit(code)


def settings_or_exit(config: Path | None = None, **overrides: Any) -> Settings:
    """The settings, or their faults in words and exit code 2."""
    try:
        return load(overrides, config)
    except SettingsError as error:
        give_up(f"Wrong setting: {error}")


def config_option(command: F) -> F:
    """Add `--config FILE` to a command."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Settings file; by default HAN_CONFIG, else han.toml in this folder if there is one.",
    )(command)
