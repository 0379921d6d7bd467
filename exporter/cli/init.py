"""`han-exporter init`: prepare a new InfluxDB 2, once. Run again, it changes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import click

from exporter.cli._common import say

_UNITS = {"h": 3600, "d": 86400, "w": 604800, "y": 31536000}


def _owner(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Parse `UID:GID`: numbers, because the names of users differ between a container and its host."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,9}):(\d{1,9})", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not two numbers like 10001:10001")
    return int(found[1]), int(found[2])


def _mode(_: click.Context, __: click.Parameter, value: str) -> int:
    """Parse the mode of a file, in octal."""
    if not re.fullmatch(r"0?[0-7]{3}", value):
        raise click.BadParameter(f"{value!r} is not an octal mode like 0400")
    return int(value, 8)


def _retention(_: click.Context, __: click.Parameter, value: str) -> int:
    """Parse how long points are kept, to seconds; 0 means forever."""
    if value in ("0", "forever"):
        return 0
    found = re.fullmatch(r"(\d{1,6})([hdwy])", value)
    if found is None or int(found[1]) == 0:
        raise click.BadParameter(f"{value!r} is not a time like 90d, 5y or forever")
    return int(found[1]) * _UNITS[found[2]]


_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--url", envvar="HAN_INFLUX_URL", default="http://localhost:8086", show_default=True, help="InfluxDB 2.")
@click.option("--org", envvar="HAN_INFLUX_ORG", default="home", show_default=True, help="Organisation.")
@click.option("--bucket", envvar="HAN_INFLUX_BUCKET", default="han", show_default=True, help="Bucket for the points.")
@click.option("--user", default="admin", show_default=True, help="InfluxDB's first user.")
@click.option(
    "--retention",
    callback=_retention,
    metavar="TIME",
    default="forever",
    show_default=True,
    help="How long to keep points, like 90d or 5y.",
)
@click.option("--operator-token-file", type=_FILE, required=True, help="File for the token that may do everything.")
@click.option("--operator-token-owner", callback=_owner, metavar="UID:GID", help="Owner of that file. [default: you]")
@click.option(
    "--operator-password-file",
    type=_FILE,
    help="File for the password of that user. [default: next to the operator token]",
)
@click.option("--write-token-file", type=_FILE, help="File for the token that may only write to the bucket (exporter).")
@click.option("--write-token-owner", callback=_owner, metavar="UID:GID", help="Owner of that file.")
@click.option("--read-token-file", type=_FILE, help="File for the token that may only read the bucket (Grafana).")
@click.option("--read-token-owner", callback=_owner, metavar="UID:GID", help="Owner of that file.")
@click.option("--grafana-password-file", type=_FILE, help="File for Grafana's admin password, which is generated.")
@click.option("--grafana-password-owner", callback=_owner, metavar="UID:GID", help="Owner of that file.")
@click.option("--mode", callback=_mode, metavar="MODE", default="0400", show_default=True, help="Mode of these files.")
@click.option("--ca-cert", type=_FILE, envvar="HAN_INFLUX_CA_CERT", help="Certificate of your own authority.")
@click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=120.0,
    show_default=True,
    help="Wait this many seconds for the server.",
)
def init(
    url: str,
    org: str,
    bucket: str,
    user: str,
    retention: int,
    operator_token_file: Path,
    operator_token_owner: tuple[int, int] | None,
    operator_password_file: Path | None,
    write_token_file: Path | None,
    write_token_owner: tuple[int, int] | None,
    read_token_file: Path | None,
    read_token_owner: tuple[int, int] | None,
    grafana_password_file: Path | None,
    grafana_password_owner: tuple[int, int] | None,
    mode: int,
    ca_cert: Path | None,
    wait: float,
) -> None:
    """Prepare a new InfluxDB 2: organisation, bucket, and a file with a token for each program that needs one.

    Secrets are generated here and not shown. The command can be run again at any time: what exists and works is kept,
    what is missing is created.
    """
    from exporter.sinks.influx.setup import Owner, Plan, SecretFile, SetupError, prepare

    def file(path: Path | None, owner: tuple[int, int] | None) -> SecretFile | None:
        return None if path is None else SecretFile(path, None if owner is None else Owner(*owner), mode)

    operator = SecretFile(operator_token_file, Owner(*operator_token_owner) if operator_token_owner else None, mode)
    password = operator_password_file or operator_token_file.with_name(f"{operator_token_file.name}.password")
    plan = Plan(
        url=url,
        org=org,
        bucket=bucket,
        user=user,
        operator_token=operator,
        operator_password=SecretFile(password, operator.owner, mode),
        write_token=file(write_token_file, write_token_owner),
        read_token=file(read_token_file, read_token_owner),
        grafana_password=file(grafana_password_file, grafana_password_owner),
        retention_s=retention,
        wait_s=wait,
        ca_cert=ca_cert,
    )
    try:
        changes = prepare(plan, click.echo)
    except SetupError as problem:
        say(f"init: {problem}")
        raise SystemExit(1) from None
    click.echo("done" if changes else "everything already exists; nothing was changed")
