"""What commands have in common: settings, words on standard error, exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from exporter.few_settings import Naming, few_settings

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.sinks.influx.client import Client

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
    """The settings, or their faults in words and exit code 2.

    What checks them (pydantic) takes longer to load than most commands need, so it is loaded here and not for `--help`.
    """
    from exporter.config import SettingsError, load

    try:
        return load(overrides, config)
    except SettingsError as error:
        give_up(f"Wrong setting: {error}")


def naming_or_exit() -> Naming:
    """Time zone and meter id of the settings, or the settings' faults in words and exit code 2.

    As `settings_or_exit()`, and without loading what checks them where nothing else is set.
    """
    return few_settings() or settings_or_exit()


def client_or_exit(settings: Settings, timeout: float = 10.0) -> Client:
    """The InfluxDB of the settings, or words about what is missing and exit code 2."""
    from exporter.config import SettingsError
    from exporter.sinks.influx.client import Client

    if settings.influx_url is None:
        give_up("No InfluxDB is given: set HAN_INFLUX_URL (or --influx-url), for example to http://localhost:8086.")
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
        help="Settings file; by default HAN_CONFIG, else han.toml in this folder if there is one.",
    )(command)


_OPTIONS: Final = (
    ("--source", "Where the octets come from: a port, socket://HOST:PORT, file:PATH, sim:; several between blanks."),
    ("--meter-id", "Id of a meter that never names itself."),
    ("--timezone", "Where the meter is. [default: Europe/Oslo]"),
    ("--outbox", "File of the durable queue. [default: in your data folder]"),
    ("--outbox-max", "How large the outbox may grow, like 500M. [default: 1G]"),
    ("--influx-url", "InfluxDB, like http://localhost:8086."),
    ("--influx-token-file", "File with the token (InfluxDB 1.8: user:password)."),
    ("--influx-org", "Organisation (InfluxDB 2)."),
    ("--influx-bucket", "Bucket; with InfluxDB 1.8 database/policy. [default: han]"),
    ("--influx-ca-cert", "Certificate of your own authority, for https."),
    ("--main-fuse-a", "Main fuse, A. [default: 40]"),
    ("--instance", "Name of this exporter in its own metrics. [default: the machine's name]"),
    ("--log-level", "debug, info, warning or error. [default: info]"),
)


def settings_options(command: F) -> F:
    """Add an option for each setting that can be given on the command line (a token cannot: others would see it)."""
    for name, words in reversed(_OPTIONS):
        command = click.option(name, default=None, metavar="TEXT", help=words)(command)
    return command


def influx_options(command: F) -> F:
    """Only the options that say where InfluxDB is, and whose the readings are."""
    for name, words in reversed(_OPTIONS):
        if name.startswith("--influx") or name in ("--meter-id", "--timezone", "--outbox"):
            command = click.option(name, default=None, metavar="TEXT", help=words)(command)
    return command


def outbox_options(command: F) -> F:
    """Only the options that say where the outbox is, and what its times are in."""
    for name, words in reversed(_OPTIONS):
        if name in ("--timezone", "--outbox"):
            command = click.option(name, default=None, metavar="TEXT", help=words)(command)
    return command
