"""What commands have in common: settings, messages on standard error, exit codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from exporter.config import LazySettings, SettingsError, load

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.sinks.influx.client import Client

EXIT_OK: Final = 0
EXIT_REJECTED: Final = 1
"""The command worked, but something in its input did not."""
EXIT_UNUSABLE: Final = 2
"""The input or the settings cannot be used (click's own exit code for a wrong command line)."""

F = TypeVar("F", bound=Callable[..., Any])


def say(message: str) -> None:
    """Print a message for the user on standard error; standard output is for the result."""
    click.echo(message, err=True)


def give_up(message: str, code: int = EXIT_UNUSABLE) -> NoReturn:
    """Say what is wrong and exit."""
    say(message)
    raise SystemExit(code)


@contextmanager
def exit_on_wrong_settings() -> Iterator[None]:
    """Turn a SettingsError into a message and exit code 2."""
    try:
        yield
    except SettingsError as error:
        give_up(f"Wrong setting: {error}")


def settings_or_exit(config: Path | None = None, **overrides: Any) -> Settings:
    """The settings; exits with a message and code 2 if any of them is wrong.

    Loading them takes longer than most commands need otherwise, so it is done here and not for `--help`.
    """
    with exit_on_wrong_settings():
        return load(overrides, config)


def naming_or_exit() -> LazySettings:
    """Time zone and meter id; exits with a message and code 2 if any setting is wrong.

    Like `settings_or_exit()`, but quick if nothing else is set.
    """
    settings = LazySettings()
    with exit_on_wrong_settings():
        settings.check()
    return settings


def client_or_exit(settings: Settings, timeout: float = 10.0) -> Client:
    """A client for the InfluxDB of the settings; exits with a message and code 2 if a setting is missing or wrong."""
    from exporter.sinks.influx.client import Client

    if settings.influx_url is None:
        give_up(
            "No InfluxDB is configured: set HAN_INFLUX_URL (or --influx-url), for example to http://localhost:8086."
        )
    try:
        return Client(
            settings.influx_url,
            bucket=settings.influx_bucket,
            token=settings.token(),
            org=settings.influx_org,
            ca_cert=settings.influx_ca_cert,
            timeout=timeout,
        )
    except (SettingsError, ValueError) as error:
        give_up(str(error))


def config_option(command: F) -> F:
    """Add `--config FILE` to a command."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Settings file. [default: HAN_CONFIG, else han.toml in the current folder if it exists]",
    )(command)


_OPTIONS: Final = (
    ("--source", "Where the bytes come from: a port, socket://HOST:PORT, file:PATH, sim:. Several: blanks between."),
    ("--meter-id", "Id of a meter that does not send one."),
    ("--timezone", "Time zone of the meter. [default: Europe/Oslo]"),
    ("--outbox", "File of the durable queue. [default: in your data folder]"),
    ("--outbox-max", "How large the outbox may become, like 500M. [default: 1G]"),
    ("--influx-url", "InfluxDB, like http://localhost:8086."),
    ("--influx-token-file", "File with the token (InfluxDB 1.8: user:password)."),
    ("--influx-org", "Organisation (InfluxDB 2)."),
    ("--influx-bucket", "Bucket; with InfluxDB 1.8 database/policy. [default: han]"),
    ("--influx-ca-cert", "Certificate of your own authority, for https."),
    ("--main-fuse-a", "Main fuse, A. [default: 40]"),
    ("--instance", "Name of this exporter in its own metrics. [default: the machine's name]"),
    ("--log-level", "debug, info, warning or error. [default: info]"),
)
_WHERE_INFLUX_IS: Final = frozenset(name for name, _ in _OPTIONS if name.startswith("--influx"))


def settings_options(command: F) -> F:
    """Add an option for each setting that can be given on the command line.

    A token cannot be given there, because other users of the machine would see it.
    """
    return _with_options(command, {name for name, _ in _OPTIONS})


def influx_options(command: F) -> F:
    """Add the options that say where InfluxDB is, and whose readings these are."""
    return _with_options(command, _WHERE_INFLUX_IS | {"--meter-id", "--timezone", "--outbox"})


def outbox_options(command: F) -> F:
    """Add the options that say where the outbox is, and in which time zone times are shown."""
    return _with_options(command, {"--timezone", "--outbox"})


def _with_options(command: F, names: Set[str]) -> F:
    for name, help_text in reversed(_OPTIONS):
        if name in names:
            command = click.option(name, default=None, metavar="TEXT", help=help_text)(command)
    return command
