"""`rejected`: show the lines that InfluxDB refused, send them again, or remove them."""

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
from exporter.cli._outbox import in_words, is_there
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
_AT_ONCE: Final = 100
"""So many ranges fit what may be said to a running service."""
_SHOWN: Final = 5
"""Lines of each group, and ranges of ids; --json has all."""
_LONGEST: Final = 300


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID…]")
@click.option("--retry", is_flag=True, help="Put these lines back into the queue, once what was wrong is mended.")
@click.option("--drop", is_flag=True, help="Remove these lines for good.")
@click.option("--all", "everything", is_flag=True, help="Every line, for --retry and --drop.")
@click.option("--json", "as_json", is_flag=True, help="Show every line, whole, as one object.")
@click.option("--yes", is_flag=True, help="Do not ask before --drop; without a terminal nobody is asked.")
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
    """Show the lines that InfluxDB refused and `run` put aside: when, InfluxDB's words, and the line; newest first.

    Those with the same words stand together. When that is mended which the words tell of, --retry --all has them sent
    again. An ID is the number before a line, or several, like 7-12. It works beside a `run`, and without one.

    Exit code 0: done, also when there are none. 1: none of these is there, or you said no. 2: it could not be done.
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
    """The ids that were given; empty for all. Refuses what does not go together."""
    if retry and drop:
        raise click.UsageError("Give --retry or --drop, not both.")
    if as_json and (retry or drop):
        raise click.UsageError("--json shows lines: it goes with neither --retry nor --drop.")
    if (ids or everything) and not (retry or drop):
        raise click.UsageError("An ID, or --all, goes with --retry or --drop.")
    if (retry or drop) and bool(ids) == everything:
        raise click.UsageError("Say which lines: their IDs, or --all.")
    try:
        wanted = [one for said in ids for one in from_text(said)]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for first, last in wanted:
        if last < first:
            raise click.UsageError(f"{first}-{last} ends before it begins: did you mean {last}-{first}?")
    return wanted


# Showing


@dataclass(slots=True)
class _Group:
    """Lines of which InfluxDB said the same, newest first."""

    words: str
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
    """Every line that was put aside, newest first; ends the command in words when it cannot be read."""
    try:
        with closing(Outbox(settings.outbox_path, read_only=True)) as outbox:
            below = 1 << 62
            while some := outbox.refused(1000, below):
                yield from some
                below = some[-1].id
    except OutboxError as error:
        give_up(in_words(error, settings.outbox_path))


def _print_text(settings: Settings) -> None:
    groups: dict[str, _Group] = {}
    for one in _lines(settings):
        key = _alike(one)
        if key not in groups:
            groups[key] = _Group(re.sub(r"(?<=unable to parse )'.*'", "it", one.message), one.at)
        groups[key].add(one)
    if not groups:
        click.echo("No line is put aside.")
        return
    count = sum(len(group.ids) for group in groups.values())
    click.echo(f"{count} {'lines are' if count > 1 else 'line is'} put aside. When it is mended: --retry --all\n")
    click.echo("\n\n".join(_text(group, settings.zone) for group in groups.values()))


def _alike(one: RefusedLine) -> str:
    """InfluxDB's words without what differs from line to line: the line itself, texts out of it, and numbers."""
    return re.sub(r"\d+", "0", re.sub(r"(?<=unable to parse )'.*'|point \S+", "…", one.message))


def _text(group: _Group, zone: ZoneInfo) -> str:
    ids = ranges(group.ids)
    newest = sorted(ids, reverse=True)[:_SHOWN]
    said = as_text(sorted(newest))
    of_when = _when(group.newest, zone)
    if len(group.ids) > 1:
        of_when = f"{_when(group.oldest, zone)} to {of_when}"
    head = f"{len(group.ids)} × {_shown(group.words)}\n  {of_when}, IDs {'…,' if len(ids) > _SHOWN else ''}{said}"
    rows = [f"  {one.id:>6}  {_when(one.at, zone)}  {_shown(one.line)}" for one in group.shown]
    more = len(group.ids) - len(rows)
    return "\n".join([head, *rows, *([f"          and {more} more (--json shows them)"] if more else [])])


def _when(at: float, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(at, zone).isoformat(" ", timespec="seconds")


def _shown(text: str) -> str:
    """One line that changes nothing on a terminal, and is not too long."""
    whole = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
    return whole if len(whole) <= _LONGEST else f"{whole[:_LONGEST]}… ({len(whole)} characters)"


def _print_json(settings: Settings) -> None:
    """Line by line, since there may be many; nothing at all when they cannot all be read."""
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
            f"Note: {damaged} lines were damaged in the outbox's file, and may say what no meter sent: they stay. "
            "Give their IDs if you want them sent."
        )
    if not chosen:
        if wanted:
            give_up("No line that is put aside has such an ID: `han-exporter rejected` shows them.", EXIT_REJECTED)
        click.echo("No line is put aside." if not damaged else "There is no other line.")
        return
    count = sum(last - first + 1 for first, last in chosen)
    if ask_first:
        click.confirm(f"Remove {count} lines for good?", abort=True, err=True)
    done, left = _do(settings.outbox_path, chosen, retry)
    if retry:
        click.echo(f"{done} lines are in the queue again; `run` sends them. What is refused again comes back here.")
    else:
        click.echo(f"{done} lines are removed.")
    if left:
        say(
            f"Note: {left} energies of hours, days or months stay until nothing else waits for InfluxDB, since a newer "
            "one may wait there: let `run` send what waits, then do this again."
        )


def _chosen(lines: Iterable[RefusedLine], wanted: Ranges, retry: bool) -> tuple[list[tuple[int, int]], int]:
    """Ranges of ids that are there, and how many damaged lines are left out: of all, these are not sent."""
    ids, damaged = [], 0
    for one in lines:
        if retry and not wanted and one.message == DAMAGED_ROW:
            damaged += 1
        elif not wanted or any(first <= one.id <= last for first, last in wanted):
            ids.append(one.id)
    return ranges(ids), damaged


def _do(path: Path, chosen: list[tuple[int, int]], retry: bool) -> tuple[int, int]:
    """Have the running service do it, or do it while none runs; how many lines, and how many were left."""
    try:
        ask(path)
    except NotRunning:
        return _by_ourselves(path, chosen, retry)
    done = left = 0
    for start in range(0, len(chosen), _AT_ONCE):
        some = _by_run(path, chosen[start : start + _AT_ONCE], retry)
        done, left = done + some[0], left + some[1]
    return done, left


def _by_ourselves(path: Path, chosen: Ranges, retry: bool) -> tuple[int, int]:
    try:
        with closing(Outbox(path, key_of=replaced_key)) as outbox:
            if not retry:
                return outbox.drop_refused(chosen), 0
            retried = send_again(outbox, chosen)
            return retried.lines, retried.left
    except OutboxLockedError as error:
        give_up(f"{error}. A `han-exporter run` that starts or stops is over in some seconds: try again then.")
    except OutboxError as error:
        give_up(str(error))


def _by_run(path: Path, chosen: Ranges, retry: bool) -> tuple[int, int]:
    command = {"retry_rejected" if retry else "drop_rejected": as_text(chosen)}
    try:
        answer: dict[str, Any] = ask(path, _RUN_TAKES_S, command)
    except NotRunning as error:
        give_up(f"The running han-exporter did not say that it is done: {error}. Try again.")
    if "error" in answer:
        give_up(str(answer["error"]))
    if "retried" in answer:
        return answer["retried"]["lines"], answer["retried"]["left"]
    if "dropped" not in answer:
        give_up("The running han-exporter is of another version, and cannot do this: restart it, then try again.")
    return answer["dropped"], 0
