"""`run`: the service."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from exporter.cli._common import config_option, give_up, settings_options, settings_or_exit

if TYPE_CHECKING:
    from exporter.config import Settings


@click.command()
@settings_options
@config_option
def run(config: Path | None, **overrides: Any) -> None:
    """Read the meter and write to InfluxDB, until SIGTERM or Ctrl-C.

    Every option is also an environment variable (HAN_INFLUX_URL for --influx-url) and a key of han.toml (influx_url).
    A token is given by HAN_INFLUX_TOKEN or in a file.

    --source sim:kamstrup is a simulated meter. Test your alerts with sim:kamstrup?overload=L2: that phase has 70 A for
    the first five minutes.
    """
    settings = settings_or_exit(config, **overrides)
    start_logging(settings)
    if not settings.sources:
        give_up("No source is given: set HAN_SOURCE, for example to /dev/ttyUSB0, or to sim: for a simulated meter.")
    raise SystemExit(_run(settings))


def _run(settings: Settings) -> int:
    from exporter.config import SettingsError
    from exporter.outbox.queue import OutboxError
    from exporter.service.service import Service
    from exporter.sources.contract import SourceError
    from exporter.sources.open import open_source

    try:
        sources = [open_source(url, zone=settings.zone) for url in settings.sources]
        service = Service(settings, sources)
    except (SourceError, OutboxError, SettingsError, ValueError) as error:
        give_up(str(error))
    return service.run()


class LocalTime(logging.Formatter):
    """Formats with times in HAN_TIMEZONE, never in the zone of the machine. Each message is one line."""

    def __init__(self, zone: ZoneInfo) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._zone = zone

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line. Characters that could break or rewrite it are escaped."""
        if not record.message.isprintable():
            record.message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in record.message)
        return super().formatMessage(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging's name
        """The time as ISO 8601 with its offset."""
        del datefmt
        return datetime.fromtimestamp(record.created, self._zone).isoformat(timespec="seconds")


def start_logging(settings: Settings) -> None:
    """Log to standard error, from HAN_LOG_LEVEL on."""
    handler = logging.StreamHandler()
    handler.setFormatter(LocalTime(settings.zone))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    for chatty in ("urllib3", "influxdb_client", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
