"""The command line: one module a command, loaded only when it is called."""

from __future__ import annotations

import importlib
from typing import Any, Final

import click

# command -> (module below this one, one line of help). The help stands here so that `--help` loads no command.
COMMANDS: Final = {
    "run": "Read the meter and write to InfluxDB, until stopped.",
    "watch": "Show a meter live in the terminal; needs no server.",
    "decode": "Say what the frames of a capture mean.",
    "capture": "Record a source as time-stamped hex.",
    "import": "Put captures into InfluxDB.",
    "probe": "Find port, speed and parity by listening.",
    "init": "Prepare a fresh InfluxDB 2.",
    "check": "Try each thing that must work and say what to do.",
    "report": "Print hours, days and the month beside the bill.",
    "rejected": "Show what InfluxDB refused; send it again.",
    "forget": "Remove everything of a meter.",
}
_MODULES: Final = {"import": "import_"}


class _Commands(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which a person meets them."""
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
        """As click does, and name the commands that there are when there is none such."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(f"{error.message} There are: {', '.join(COMMANDS)}.", ctx) from None


def _say_version(ctx: click.Context, _option: click.Parameter, asked: bool) -> None:
    """As click's own option does, which would have every other command look up the version, too."""
    if not asked or ctx.resilient_parsing:
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
    callback=_say_version,
    help="Show the version and exit.",
)
def main(**_: Any) -> None:
    """Read a smart electricity meter's HAN port and write every value to InfluxDB.

    Without a meter, try: han-exporter watch sim:
    """
