"""`rejected`: shows the lines that InfluxDB refused, sends them again, or removes them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import click

from exporter.cli._common import (
    EXIT_REJECTED,
    config_option,
    give_up,
    outbox_options,
    say,
    settings_or_exit,
)
from exporter.cli._outbox import explain, is_there
from exporter.counted import counted
from exporter.model.point import replaced_key
from exporter.outbox.batch import RefusedLine
from exporter.outbox.queue import DAMAGED_ROW, Outbox, OutboxError, OutboxLockedError
from exporter.outbox.rejected import as_text, from_text, ranges
from exporter.outbox.rejected import retry as send_again
from exporter.outbox.rows import Ranges
from exporter.service.status_socket import NotRunning, ask

if TYPE_CHECKING:
    from exporter.config import Settings

_RUN_TAKES_S: Final = 300.0
_RANGES_AT_ONCE: Final = 100
"""So many ranges fit into one request to a running service."""
_SHOWN: Final = 5
"""Lines of each group, and ranges of ids, that are shown without --json."""
_LONGEST: Final = 300


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID…]")
@click.option("--retry", is_flag=True, help="Send these lines again, after the cause is fixed.")
@click.option("--drop", is_flag=True, help="Delete these lines.")
@click.option("--all", "everything", is_flag=True, help="All lines, for --retry and --drop.")
@click.option("--json", "as_json", is_flag=True, help="Show all lines, unshortened, as one JSON object.")
@click.option("--yes", is_flag=True, help="Do not ask before --drop. Without a terminal it never asks.")
@outbox_options
@config_option
def rejected(
    ids: tuple[str, ...],
    retry: bool,
    drop: bool,
    everything: bool,
    as_json: bool,
    yes: bool,
    config: Path | None,
    **overrides: str | None,
) -> None:
    """Show the lines that InfluxDB refused: when, why (InfluxDB's message), and the line; newest first.

    Lines with the same message are shown together. After the cause is fixed, --retry --all sends them again. An ID is
    the number before a line, or a range like 7-12. This works with or without a running `run`.

    Exit code 0: done, or there are no such lines. 1: no line has such an ID, or you answered no. 2: it failed.
    """
    wanted = _wanted(ids, retry, drop, everything, as_json)
    settings = settings_or_exit(config, **overrides)
    if not is_there(settings.outbox_path):
        give_up(f"There is no outbox {settings.outbox_path}: is HAN_OUTBOX (or --outbox) the one of `run`?")
    if retry or drop:
        _change(settings, wanted, retry=retry, ask_first=drop and not yes and sys.stdin.isatty())
    elif as_json:
        _print_json(settings)
    else:
        _print_text(settings)


def _wanted(ids: tuple[str, ...], retry: bool, drop: bool, everything: bool, as_json: bool) -> list[tuple[int, int]]:
    """Return the ids that were given; empty for all. Refuses options that exclude each other."""
    if retry and drop:
        raise click.UsageError("Give --retry or --drop, not both.")
    if as_json and (retry or drop):
        raise click.UsageError("--json shows lines: it cannot be used with --retry or --drop.")
    if (ids or everything) and not (retry or drop):
        raise click.UsageError("An ID or --all needs --retry or --drop.")
    if (retry or drop) and bool(ids) == everything:
        raise click.UsageError("Which lines? Give their IDs, or --all.")
    try:
        wanted = [one for text in ids for one in from_text(text)]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for first, last in wanted:
        if last < first:
            raise click.UsageError(f"{first}-{last} ends before it begins: did you mean {last}-{first}?")
    return wanted


# Showing


@dataclass(slots=True)
class _Group:
    """Lines with the same message of InfluxDB, newest first."""

    message: str
    newest: float
    shown: list[RefusedLine] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    oldest: float = 0.0

    def add(self, one: RefusedLine) -> None:
        self.ids.append(one.id)
        self.oldest = one.at
        if len(self.shown) < _SHOWN:
            self.shown.append(one)


def _lines(settings: Settings) -> Iterator[RefusedLine]:
    """Yield every refused line, newest first; ends the command with a message when they cannot be read."""
    try:
        with closing(Outbox(settings.outbox_path, read_only=True)) as outbox:
            below = 1 << 62
            while some := outbox.refused(1000, below):
                yield from some
                below = some[-1].id
    except OutboxError as error:
        give_up(explain(error, settings.outbox_path))


def _print_text(settings: Settings) -> None:
    groups: dict[str, _Group] = {}
    for one in _lines(settings):
        key = _alike(one)
        if key not in groups:
            groups[key] = _Group(re.sub(r"(?<=unable to parse )'.*'", "it", one.message), one.at)
        groups[key].add(one)
    if not groups:
        click.echo("There is no refused line.")
        return
    count = sum(len(group.ids) for group in groups.values())
    click.echo(f"{counted(count, 'line was', 'lines were')} refused. After the cause is fixed: --retry --all\n")
    click.echo("\n\n".join(_text(group, settings.zone) for group in groups.values()))


def _alike(one: RefusedLine) -> str:
    """Return InfluxDB's message without what differs from line to line: the line, texts out of it, and numbers."""
    return re.sub(r"\d+", "0", re.sub(r"(?<=unable to parse )'.*'|point \S+", "…", one.message))


def _text(group: _Group, zone: ZoneInfo) -> str:
    ids = ranges(group.ids)
    newest = sorted(ids, reverse=True)[:_SHOWN]
    shown = as_text(sorted(newest))
    of_when = _when(group.newest, zone)
    if len(group.ids) > 1:
        of_when = f"{_when(group.oldest, zone)} to {of_when}"
    head = f"{len(group.ids)} × {_shown(group.message)}\n  {of_when}, IDs {'…,' if len(ids) > _SHOWN else ''}{shown}"
    rows = [f"  {one.id:>6}  {_when(one.at, zone)}  {_shown(one.line)}" for one in group.shown]
    more = len(group.ids) - len(rows)
    return "\n".join([head, *rows, *([f"          and {more} more (--json shows them)"] if more else [])])


def _when(at: float, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(at, zone).isoformat(" ", timespec="seconds")


def _shown(text: str) -> str:
    """Return the text as printable characters on one line, shortened if it is long."""
    whole = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
    return whole if len(whole) <= _LONGEST else f"{whole[:_LONGEST]}… ({len(whole)} characters)"


def _print_json(settings: Settings) -> None:
    """Print line by line, since there may be many. Nothing is printed when they cannot all be read."""
    for _ in _lines(settings):
        pass
    click.echo('{"rejected": [', nl=False)
    for number, one in enumerate(_lines(settings)):
        when = datetime.fromtimestamp(one.at, settings.zone).isoformat(timespec="milliseconds")
        content = {"id": one.id, "at": when, "words": one.message, "line": one.line}
        click.echo(f"{',' if number else ''}\n  {json.dumps(content)}", nl=False)
    click.echo("\n]}")


# Changing


def _change(settings: Settings, wanted: list[tuple[int, int]], *, retry: bool, ask_first: bool) -> None:
    chosen, damaged = _chosen(_lines(settings), wanted, retry)
    if damaged:
        say(
            f"Note: {counted(damaged, 'line')} of a damaged outbox may have values that no meter sent. They are not "
            "sent again, unless you give their IDs."
        )
    if not chosen:
        if wanted:
            give_up("No refused line has such an ID: `han-exporter rejected` shows them.", EXIT_REJECTED)
        click.echo("There is no refused line." if not damaged else "There is no other refused line.")
        return
    count = sum(last - first + 1 for first, last in chosen)
    if ask_first:
        click.confirm(f"Delete {counted(count, 'line')}?", abort=True, err=True)
    done, left = _do(settings.outbox_path, chosen, retry)
    if retry:
        click.echo(
            f"{counted(done, 'line is', 'lines are')} in the queue again, and `run` sends them. What is refused again "
            "comes back here."
        )
    else:
        click.echo(f"{counted(done, 'line is', 'lines are')} deleted.")
    if left:
        say(
            f"Note: {counted(left, 'sum or peak stays', 'sums and peaks stay')} until no line waits for InfluxDB, "
            "since a newer value may be waiting. Let `run` send what waits, then repeat this."
        )


def _chosen(lines: Iterable[RefusedLine], wanted: Ranges, retry: bool) -> tuple[list[tuple[int, int]], int]:
    """Return the ranges of ids that exist, and how many damaged lines were left out: --all does not send these."""
    ids, damaged = [], 0
    for one in lines:
        if retry and not wanted and one.message == DAMAGED_ROW:
            damaged += 1
        elif not wanted or any(first <= one.id <= last for first, last in wanted):
            ids.append(one.id)
    return ranges(ids), damaged


def _do(path: Path, chosen: list[tuple[int, int]], retry: bool) -> tuple[int, int]:
    """Let the running service do it, or do it if none runs; return how many lines, and how many were left."""
    try:
        ask(path)
    except NotRunning:
        return _here(path, chosen, retry)
    done = left = 0
    for start in range(0, len(chosen), _RANGES_AT_ONCE):
        some = _by_run(path, chosen[start : start + _RANGES_AT_ONCE], retry)
        done, left = done + some[0], left + some[1]
    return done, left


def _here(path: Path, chosen: Ranges, retry: bool) -> tuple[int, int]:
    try:
        with closing(Outbox(path, key_of=replaced_key)) as outbox:
            if not retry:
                return outbox.drop_refused(chosen), 0
            retried = send_again(outbox, chosen)
            return retried.lines, retried.left
    except OutboxLockedError as error:
        give_up(f"{error}. If a `han-exporter run` is starting or stopping, try again in some seconds.")
    except OutboxError as error:
        give_up(str(error))


def _by_run(path: Path, chosen: Ranges, retry: bool) -> tuple[int, int]:
    command = {"retry_rejected" if retry else "drop_rejected": as_text(chosen)}
    try:
        answer: dict[str, Any] = ask(path, _RUN_TAKES_S, command)
    except NotRunning as error:
        give_up(f"The running han-exporter did not confirm it: {error}. Try again.")
    if "error" in answer:
        give_up(str(answer["error"]))
    if "retried" in answer:
        return answer["retried"]["lines"], answer["retried"]["left"]
    if "dropped" not in answer:
        give_up("The running han-exporter is another version, and cannot do this: restart it, then try again.")
    return answer["dropped"], 0
