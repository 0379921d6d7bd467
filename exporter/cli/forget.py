"""`forget`: delete all data of a meter from InfluxDB and from the outbox."""

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
from exporter.cli._outbox import explain, is_there
from exporter.counted import counted
from exporter.model.point import replaced_key
from exporter.model.state_keys import meters_of
from exporter.outbox.queue import Outbox, OutboxError, OutboxLockedError
from exporter.service.forgetting import Forgotten
from exporter.service.forgetting import forget as forget_in
from exporter.service.status_socket import NotRunning, ask

if TYPE_CHECKING:
    from exporter.config import Settings
    from exporter.sinks.influx.meters import Size, StoredMeters

_TIMEOUT_S: Final = 60.0
_RUN_TAKES_S: Final = 900.0
_RECENT_S: Final = 300.0
"""A meter whose last reading is newer than this is still being read."""
_MAY_NOT: Final = re.compile(r"database not found|retention policy not set|not executed|not authorized|: 403 \(")
"""What InfluxDB answers if the token may not do it. 2.8 says of what it may not read that it does not exist."""


class _Forget(click.Command):
    """A command whose argument may look like an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Like click, but the error says how to give an id that starts with a dash."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            advice = f"Give an id that starts with - after --: han-exporter forget -- {error.option_name}"
            raise click.UsageError(f"{error.format_message()} {advice}", ctx) from None


@click.command(cls=_Forget)
@click.argument("meter")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation. Without a terminal there is no question.")
@influx_options
@config_option
def forget(meter: str, yes: bool, config: Path | None, **overrides: str | None) -> None:
    """Delete all data of METER from InfluxDB and from the outbox of this computer.

    METER is the id, as `report` and the dashboards show it. Give an id that starts with - after --. The command is
    meant for the simulated meter that you used before your own, and for a meter that does not exist any more. `run` may
    be running meanwhile; what it reads of METER afterwards is written again.
    Only a backup brings the data back.

    Exit code 0: deleted. 1: there is no such meter, or you answered no. 2: it was not possible.
    """
    settings = settings_or_exit(config, **overrides)
    stored = _stored(settings)
    here = _Here.look(settings.outbox_path)
    in_influx = _in_influx(stored, settings)
    if meter not in in_influx | here.meters:
        give_up(_unknown(meter, in_influx | here.meters), EXIT_REJECTED)
    size = _size(stored, meter, settings) if meter in in_influx else None
    if not yes and sys.stdin.isatty():
        click.confirm(f"Delete all data of meter {meter}{_in_brackets(size)}?", abort=True, err=True)
    found = _from_outbox(here, meter)
    if found is not None:
        click.echo(
            f"Outbox: deleted {counted(found.lines, 'waiting line')}, {counted(found.rejected, 'rejected line')} and "
            f"{counted(found.entries, 'entry', 'entries')} of its state."
        )
    if stored is not None:
        _from_influx(stored, meter, size, settings)
    is_back = stored is not None and meter in _in_influx(stored, settings)
    _warn_if_it_comes_back(here, meter, found, is_back)


# The argument says which meter; the id of a meter that does not send one, and local time, do not matter.
forget.params = [option for option in forget.params if option.name not in ("meter_id", "timezone")]


@dataclass(frozen=True, slots=True)
class _Here:
    """The outbox of this computer: whether a service uses it, what that reads now, which meters have data in it."""

    path: Path
    exists: bool = False
    running: bool = False
    reads: dict[str, str] = field(default_factory=dict)
    meters: set[str] = field(default_factory=set)

    @classmethod
    def look(cls, path: Path) -> _Here:
        """Look at the outbox; exits with a message if it cannot be read."""
        if not is_there(path):
            say(
                f"Note: the outbox {path} does not exist, so it has no data of the meter (HAN_OUTBOX says where it is)."
            )
            return cls(path)
        reads: dict[str, str] = {}
        running = True
        try:
            for source in ask(path)["sources"]:
                if source["state"] != "ended":
                    reads |= {one: source["name"] for one, age in source["reading_age_s"].items() if age < _RECENT_S}
        except NotRunning:
            running = False
        try:
            with closing(Outbox(path, read_only=True)) as outbox:
                kept = meters_of(outbox.states(""))
        except OutboxError as error:
            give_up(explain(error, path))
        return cls(path, True, running, reads, kept | reads.keys())


def _stored(settings: Settings) -> StoredMeters | None:
    from exporter.sinks.influx.meters import StoredMeters

    if settings.influx_url is None:
        say("Note: no InfluxDB is configured (HAN_INFLUX_URL or --influx-url): only the outbox is searched.")
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


def _amount(size: Size) -> str:
    """How much InfluxDB has of the meter."""
    points = "" if size.points is None else f", {counted(size.points, 'point')}"
    return f"{size.series} series{points}"


def _in_brackets(size: Size | None) -> str:
    return "" if size is None else f" ({_amount(size)} in InfluxDB)"


def _unknown(meter: str, known: set[str]) -> str:
    if meter.strip():
        problem = f"There is no meter {meter}."
    else:
        problem = "The id is empty (is a variable of the shell not set?)."
    if not known:
        return f"{problem} There is no other meter either."
    return "\n".join([f"{problem} The meters are:", *(f"  {one}" for one in sorted(known))])


def _from_outbox(here: _Here, meter: str) -> Forgotten | None:
    """Ask the running service to delete it, or do it here if none is running."""
    if not here.exists:
        return None
    if here.running:
        return _by_run(here.path, meter)
    try:
        outbox = Outbox(here.path, key_of=replaced_key)
    except OutboxLockedError as error:
        give_up(f"{error}. If `han-exporter run` is starting or stopping, try again in a few seconds.")
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
        give_up(f"The running han-exporter did not answer that it is done: {error}. Try again.")
    if "error" in answer:
        give_up(f"{answer['error']}. Nothing was deleted from InfluxDB.")
    if "forgotten" not in answer:
        give_up("The running han-exporter has another version that cannot do this: restart it, then try again.")
    return Forgotten(**answer["forgotten"])


def _from_influx(stored: StoredMeters, meter: str, size: Size | None, settings: Settings) -> None:
    from exporter.sinks.influx.client import QueryError

    try:
        stored.remove(meter)
    except QueryError as error:
        if "no answer in time" in str(error):
            give_up(f"{error}. InfluxDB may still be deleting: run this again in a few minutes.")
        _refused(str(error), settings)
    if size is None:
        click.echo("InfluxDB: there was nothing to delete.")
        return
    click.echo(f"InfluxDB: deleted {_amount(size)}.")


def _warn_if_it_comes_back(here: _Here, meter: str, found: Forgotten | None, is_back: bool) -> None:
    """Say what writes the meter again."""
    if meter in here.reads:
        say(
            f"Note: {meter} is being read now, from {here.reads[meter]}: new readings are written again. To stop that, "
            "set HAN_SOURCE to another source, restart `run`, and run this again."
        )
    elif found is not None and not found.settled:
        say("Note: some lines are still being sent to InfluxDB: run this again in a minute.")
    elif is_back:
        say(f"Note: {meter} has data again already: is another exporter reading it, or is an import running?")


def _refused(error: str, settings: Settings) -> NoReturn:
    """Exit with what InfluxDB answered and which token is needed, or what else to do."""
    if ": 401 (" in error:
        give_up(f"{error}. InfluxDB does not know the token: set HAN_INFLUX_TOKEN_FILE to one that it knows.")
    if _MAY_NOT.search(error):
        give_up(
            f"{error}. Either there is no bucket or database {settings.influx_bucket} (HAN_INFLUX_BUCKET), or the "
            "token may not both read and write it, as needed here: that of `run` may only write, Grafana's only read. "
            "Set HAN_INFLUX_TOKEN_FILE to a token that may do both (the operator's); with Docker: "
            "docker compose run --rm admin forget METER"
        )
    give_up(f"{error}. Is it running, and are HAN_INFLUX_URL and HAN_INFLUX_CA_CERT right?")
