"""The command line: one module for each command, imported only when the command is called."""

from __future__ import annotations

import importlib
from typing import Any, Final

import click

# Command -> one line of help. It is here so that `--help` imports no command.
COMMANDS: Final = {
    "run": "Read the meter and write to InfluxDB, until stopped.",
    "watch": "Show a meter live in the terminal; needs no server.",
    "decode": "Show what the frames of a capture mean.",
    "capture": "Record a source as time-stamped hex.",
    "import": "Write captures to InfluxDB.",
    "probe": "Find port, speed and parity by listening.",
    "init": "Prepare a fresh InfluxDB 2.",
    "check": "Test everything that has to work, and say what to do.",
    "report": "Print hours, days and the month, to compare with the bill.",
    "rejected": "Show what InfluxDB refused, and send it again.",
    "forget": "Delete all data of a meter.",
}
_MODULES: Final = {"import": "import_"}


class _Commands(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which a user needs them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of a command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"exporter.cli.{_MODULES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, _MODULES.get(cmd_name, cmd_name))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click, but an error about an unknown command lists the commands."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.message} The commands are: {', '.join(COMMANDS)}.", ctx) from None


def _print_version(ctx: click.Context, _option: click.Parameter, requested: bool) -> None:
    """Like click's own option, which would look up the version for every command."""
    if not requested or ctx.resilient_parsing:
        return
    from exporter import __version__

    click.echo(f"han-exporter, version {__version__}")
    ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
def main(**_: Any) -> None:
    """Read a smart electricity meter's HAN port and write every value to InfluxDB.

    Without a meter, try: han-exporter watch sim:
    """
