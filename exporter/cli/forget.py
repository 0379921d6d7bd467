"""`forget`: remove everything of a meter, from InfluxDB and from the outbox."""

from __future__ import annotations

import re
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from exporter.cli._common import (
    EXIT_REJECTED,
    client_or_exit,
    config_option,
    give_up,
    influx_options,
    say,
    settings_or_exit,
)
from exporter.cli._outbox import in_words, is_there
from exporter.model.point import replaced_key
from exporter.outbox.queue import Outbox, OutboxError, OutboxLockedError
from exporter.service.forgetting import Forgotten, meters_of
from exporter.service.forgetting import forget as forget_in
from exporter.service.status_socket import NotRunning, ask

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.sinks.influx.meters import Size, StoredMeters

_TIMEOUT_S: Final = 60.0
_RUN_TAKES_S: Final = 900.0
_HEARD_S: Final = 300.0
"""A meter that was read so lately is being read."""
_MAY_NOT: Final = re.compile(r"database not found|retention policy not set|not executed|not authorized|: 403 \(")
"""InfluxDB's words when the token may not do it: of what it may not read, 2.8 says that it is not there."""


class _Forget(click.Command):
    """A command whose argument may look like an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, and say how a meter is given whose id begins with a dash."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            advice = f"A METER whose id begins with - is given behind --: han-exporter forget -- {error.option_name}"
            raise click.UsageError(f"{error.format_message()} {advice}", ctx) from None


@click.command(cls=_Forget)
@click.argument("meter")
@click.option("--yes", is_flag=True, help="Do not ask whether you mean it; without a terminal nobody is asked.")
@influx_options
@config_option
def forget(meter: str, yes: bool, config: Path | None, **overrides: str | None) -> None:
    """Remove everything of METER: what InfluxDB has of it, and what the outbox of this computer keeps of it.

    METER is its id, as `report` and the dashboards show it; one that begins with - is given behind --. It is meant for
    the simulated meter that was there before your own, and for one that is gone. A `run` beside it goes on; what it
    reads of METER from then on is written again.
    There is no way back but a backup.

    Exit code 0: it is removed. 1: there is no such meter, or you said no. 2: it could not be done.
    """
    settings = settings_or_exit(config, **overrides)
    stored = _stored(settings)
    here = _Here.look(settings.outbox_path)
    in_influx = _in_influx(stored, settings)
    if meter not in in_influx | here.meters:
        give_up(_unknown(meter, in_influx | here.meters), EXIT_REJECTED)
    size = _size(stored, meter, settings) if meter in in_influx else None
    if not yes and sys.stdin.isatty():
        click.confirm(f"Remove everything of meter {meter}{_of(size)}?", abort=True, err=True)
    found = _from_outbox(here, meter)
    if found is not None:
        click.echo(
            f"Outbox: {found.entries} entries of what it remembers, {found.lines} lines that waited and ", nl=False
        )
        click.echo(f"{found.rejected} that were put aside are removed.")
    if stored is not None:
        _from_influx(stored, meter, size, settings)
    came_again = stored is not None and meter in _in_influx(stored, settings)
    _say_what_comes(here, meter, found, came_again)


# Whose data is meant is the argument; other ids and local time are no matter here.
forget.params = [option for option in forget.params if option.name not in ("meter_id", "timezone")]


@dataclass(frozen=True, slots=True)
class _Here:
    """The outbox of this computer: whether a service holds it, what that reads now, which meters are kept."""

    path: Path
    there: bool = False
    running: bool = False
    reads: dict[str, str] = field(default_factory=dict)
    meters: set[str] = field(default_factory=set)

    @classmethod
    def look(cls, path: Path) -> _Here:
        """See what is there; ends the command in words when it cannot be read."""
        if not is_there(path):
            say(f"Note: there is no outbox {path} here, so nothing is kept in it (it is given with HAN_OUTBOX).")
            return cls(path)
        reads: dict[str, str] = {}
        running = True
        try:
            for source in ask(path)["sources"]:
                if source["state"] != "ended":
                    reads |= {one: source["name"] for one, age in source["reading_age_s"].items() if age < _HEARD_S}
        except NotRunning:
            running = False
        try:
            with closing(Outbox(path, read_only=True)) as outbox:
                kept = meters_of(outbox.states(""))
        except OutboxError as error:
            give_up(in_words(error, path))
        return cls(path, True, running, reads, kept | reads.keys())


def _stored(settings: Settings) -> StoredMeters | None:
    from exporter.sinks.influx.meters import StoredMeters

    if settings.influx_url is None:
        say("Note: no InfluxDB is given (HAN_INFLUX_URL or --influx-url): only the outbox is looked at.")
        return None
    return StoredMeters(client_or_exit(settings, timeout=_TIMEOUT_S))


def _in_influx(stored: StoredMeters | None, settings: Settings) -> set[str]:
    from exporter.sinks.influx.client import QueryError

    try:
        return set() if stored is None else stored.ids()
    except QueryError as error:
        _refused(str(error), settings)


def _size(stored: StoredMeters | None, meter: str, settings: Settings) -> Size | None:
    from exporter.sinks.influx.client import QueryError

    try:
        return None if stored is None else stored.size(meter)
    except QueryError as error:
        _refused(str(error), settings)


def _of(size: Size | None) -> str:
    """How much it is, in words that follow a name."""
    if size is None:
        return ""
    points = "" if size.points is None else f", {size.points} points"
    return f" ({size.series} series{points} in InfluxDB)"


def _unknown(meter: str, there: set[str]) -> str:
    if meter.strip():
        no_such = f"There is no meter {meter}"
    else:
        no_such = "The id that was given is empty (is a variable of the shell not set?): give that of a meter"
    if not there:
        return f"{no_such}, nor any other." if meter.strip() else f"{no_such}; but there is none."
    return "\n".join([f"{no_such}. There are:", *(f"  {one}" for one in sorted(there))])


def _from_outbox(here: _Here, meter: str) -> Forgotten | None:
    """Have the running service remove it, or do it while none runs."""
    if not here.there:
        return None
    if here.running:
        return _by_run(here.path, meter)
    try:
        outbox = Outbox(here.path, key_of=replaced_key)
    except OutboxLockedError as error:
        give_up(f"{error}. A `han-exporter run` that starts or stops is over in some seconds: try again then.")
    except OutboxError as error:
        give_up(str(error))
    try:
        return forget_in(outbox, meter)
    except OutboxError as error:
        give_up(str(error))
    finally:
        outbox.close()


def _by_run(path: Path, meter: str) -> Forgotten:
    try:
        answer: dict[str, Any] = ask(path, _RUN_TAKES_S, {"forget": meter})
    except NotRunning as error:
        give_up(f"The running han-exporter did not say that it is done: {error}. Try again.")
    if "error" in answer:
        give_up(f"{answer['error']}. Nothing was removed from InfluxDB.")
    if "forgotten" not in answer:
        give_up("The running han-exporter is of another version, and cannot forget: restart it, then try again.")
    return Forgotten(**answer["forgotten"])


def _from_influx(stored: StoredMeters, meter: str, size: Size | None, settings: Settings) -> None:
    from exporter.sinks.influx.client import QueryError

    try:
        stored.remove(meter)
    except QueryError as error:
        if "no answer in time" in str(error):
            give_up(f"{error}. It may be deleting still: do this again in some minutes.")
        _refused(str(error), settings)
    if size is None:
        click.echo("InfluxDB: nothing was there.")
        return
    click.echo(f"InfluxDB: {size.series} series{'' if size.points is None else f', {size.points} points'} are removed.")


def _say_what_comes(here: _Here, meter: str, found: Forgotten | None, came_again: bool) -> None:
    """Say what brings the meter back."""
    if meter in here.reads:
        say(
            f"Note: {meter} is being read now, from {here.reads[meter]}: what comes from now on is written again. "
            "To be rid of it, set HAN_SOURCE to another source, restart `run`, and do this again."
        )
    elif found is not None and not found.settled:
        say("Note: lines are on their way to InfluxDB still: do this again in a minute.")
    elif came_again:
        say(f"Note: {meter} is there again already: does another exporter read it, or an import go on?")


def _refused(words: str, settings: Settings) -> NoReturn:
    """End in words about InfluxDB: which token, or what else to do."""
    if ": 401 (" in words:
        give_up(f"{words}. The token is not known there: set HAN_INFLUX_TOKEN_FILE to the file of one that is.")
    if _MAY_NOT.search(words):
        give_up(
            f"{words}. Either there is no bucket or database {settings.influx_bucket} (HAN_INFLUX_BUCKET), or the "
            "token may not both read and write it, as this needs: that of `run` may only write, Grafana's only read. "
            "Set HAN_INFLUX_TOKEN_FILE to the file of one that may (the operator's); with Docker: "
            "docker compose run --rm admin forget METER"
        )
    give_up(f"{words}. Is it running, and are HAN_INFLUX_URL and HAN_INFLUX_CA_CERT right?")
