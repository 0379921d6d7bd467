"""What a command loads: a start is quick by what it leaves out. Modules are counted here; times, by the benchmarks."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.cli import COMMANDS
from exporter.config import SettingsError, load
from exporter.few_settings import FewSettings, few_settings, plain_outbox

CAPTURE = Path(__file__).parents[2] / "captures" / "kamstrup-1phase-norway.hex"
HEAVY = frozenset(
    {"asyncio", "influxdb_client", "pydantic", "pydantic_settings", "rich", "serial", "tenacity", "urllib3"}
)
RUN = """
import atexit, sys
atexit.register(lambda: print(*(name for name in sys.modules if "." not in name), file=sys.stderr))
from exporter.cli import main
main()
"""

NAMES = ("HAN_TIMEZONE", "HAN_METER_ID", "HAN_OUTBOX", "HAN_SOURCE", "han_timezone", "HAN_NO_SUCH", "HAN_TEST_X")
VALUES = ("", " ", "Europe/Stockholm", "UTC", "../etc/passwd", "Nowhere/At_All", "5706567271533207", "é", "12 3")


def loaded(folder: Path, *arguments: str) -> set[str]:
    """The outermost names of what a command has loaded when it ends."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("HAN_")}
    command = [sys.executable, "-c", RUN, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without settings, and a folder without a han.toml."""
    for name in [name for name in os.environ if name.upper().startswith("HAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_nothing_heavy(command: str, tmp_path: Path) -> None:
    assert not loaded(tmp_path, *command.split(), "--help") & HEAVY


def test_the_version_is_looked_up_by_who_asks(tmp_path: Path) -> None:
    show = "import sys, exporter.cli; print('importlib.metadata' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", show], text=True) == "False\n"


@pytest.mark.parametrize("form", ["text", "json", "lp"])
def test_decode_loads_nothing_heavy(form: str, tmp_path: Path) -> None:
    assert not loaded(tmp_path, "decode", "--format", form, str(CAPTURE)) & HEAVY


def settled() -> FewSettings | None:
    """What `load` makes of the same two settings; None when it finds fault."""
    try:
        settings = load()
    except SettingsError:
        return None
    return FewSettings(settings.timezone, settings.meter_id)


@given(given_=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES)))
def test_few_settings_are_those_of_all(given_: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith("HAN_")]:
            patch.delenv(name)
        for name, value in given_.items():
            patch.setenv(name, value)
        patch.chdir(tmp_path_factory.getbasetemp())
        few = few_settings()
        assert few is None or few == settled()


def test_few_settings_are_had_where_nothing_else_is_set(environment: pytest.MonkeyPatch) -> None:
    assert few_settings() == FewSettings("Europe/Oslo", None)
    environment.setenv("HAN_TIMEZONE", "Europe/Stockholm")
    environment.setenv("HAN_METER_ID", "123")
    assert few_settings() == FewSettings("Europe/Stockholm", "123") == settled()
    Path("han.toml").write_text('meter_id = "456"')
    assert few_settings() is None


def test_the_outbox_is_known_where_the_environment_says_it(environment: pytest.MonkeyPatch) -> None:
    assert plain_outbox({"outbox": None}, None) == load().outbox_path
    environment.setenv("HAN_OUTBOX", "here.sqlite")
    environment.setenv("HAN_SOURCE", "sim:")
    Path("han.toml").write_text('outbox = "there.sqlite"')
    assert plain_outbox({}, None) == load().outbox_path == Path("here.sqlite")
    environment.delenv("HAN_OUTBOX")
    assert plain_outbox({}, None) is None
    assert plain_outbox({"outbox": "other.sqlite"}, None) is None
    assert plain_outbox({}, Path("han.toml")) is None
