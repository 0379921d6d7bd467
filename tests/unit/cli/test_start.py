"""Which modules a command imports. It starts quickly if it imports few; the benchmarks measure the time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.cli import COMMANDS
from exporter.config import LazySettings, Settings, SettingsError, load
from exporter.service.status_socket import StatusServer

CAPTURE = Path(__file__).parents[2] / "captures" / "kamstrup-1phase-norway.hex"
HEAVY = frozenset({"asyncio", "influxdb_client", "pydantic", "rich", "serial", "tenacity", "urllib3"})
STATUS = {
    "version": "1",
    "pid": 1,
    "started": "now",
    "sources": [],
    "outbox": {"path": "x", "depth_lines": 0, "rejected_lines": 0, "dropped_lines": 0, "oldest_age_s": None},
    "influx": None,
}
RUN = """
import atexit, sys
atexit.register(lambda: print(*(name for name in sys.modules if "." not in name), file=sys.stderr))
from exporter.cli import main
main()
"""

NAMES = ("HAN_TIMEZONE", "HAN_METER_ID", "HAN_OUTBOX", "HAN_SOURCE", "han_timezone", "HAN_NO_SUCH", "HAN_TEST_X")
VALUES = ("", " ", "Europe/Stockholm", "UTC", "../etc/passwd", "Nowhere/At_All", "5706567100012345", "é", "12 3")


def imported(
    folder: Path, *arguments: str, code: int = 0, settings: Mapping[str, str] = MappingProxyType({})
) -> set[str]:
    """The top-level names of the modules that a command has imported at its end. `settings` are in its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("HAN_")}
    environment |= settings
    command = [sys.executable, "-c", RUN, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without settings, and a folder without a han.toml."""
    for name in [name for name in os.environ if name.upper().startswith("HAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    assert not imported(tmp_path, *command.split(), "--help") & HEAVY


def test_the_version_is_looked_up_only_for_version(tmp_path: Path) -> None:
    show = "import sys, exporter.cli; print('importlib.metadata' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", show], text=True) == "False\n"


@pytest.mark.parametrize("form", ["text", "json", "lp"])
def test_decode_imports_nothing_heavy(form: str, tmp_path: Path) -> None:
    assert not imported(tmp_path, "decode", "--format", form, str(CAPTURE)) & HEAVY
    settings = {"HAN_TIMEZONE": "Europe/Stockholm", "HAN_METER_ID": "123", "HAN_OUTBOX": "x", "HAN_TEST_X": "y"}
    assert not imported(tmp_path, "decode", "--format", form, str(CAPTURE), settings=settings) & HEAVY


def test_decode_checks_every_setting(tmp_path: Path) -> None:
    assert "pydantic" in imported(tmp_path, "decode", str(CAPTURE), settings={"HAN_MAIN_FUSE_A": "25"})
    imported(tmp_path, "decode", str(CAPTURE), code=2, settings={"HAN_MAIN_FUSE_A": "x"})
    imported(tmp_path, "decode", str(CAPTURE), code=2, settings={"HAN_SUORCE": ""})
    imported(tmp_path, "decode", str(CAPTURE), code=2, settings={"HAN_TIMEZONE": "Oslo"})
    (tmp_path / "han.toml").write_text("main_fuse_a = 0")
    imported(tmp_path, "decode", str(CAPTURE), code=2)


def test_the_health_check_imports_nothing_heavy(tmp_path: Path) -> None:
    outbox = tmp_path / "outbox.sqlite"
    # Whatever else is set: the service would not run if it were wrong.
    settings = {"HAN_OUTBOX": str(outbox), "HAN_SOURCE": "sim:", "HAN_MAIN_FUSE_A": "25"}
    server = StatusServer(outbox, lambda: STATUS)
    try:
        assert not imported(tmp_path, "check", "--running", settings=settings) & HEAVY
        assert not imported(tmp_path, "check", "--running", settings=settings | {"HAN_SUORCE": ""}) & HEAVY
    finally:
        server.close()
    assert not imported(tmp_path, "check", "--running", code=1, settings={"HAN_OUTBOX": str(outbox)}) & HEAVY
    imported(tmp_path, "check", "--running", code=2, settings=settings | {"HAN_SUORCE": ""})


Few = tuple[str, str | None, Path]


def few(settings: LazySettings | Settings) -> Few:
    return settings.zone.key, settings.meter_id, settings.outbox_path


def few_of_all() -> Few | None:
    """Time zone, meter id and outbox from all the settings; None if any is wrong."""
    try:
        return few(load())
    except SettingsError:
        return None


def few_checked() -> Few | None:
    """The same from lazy settings."""
    settings = LazySettings()
    try:
        settings.check()
    except SettingsError:
        return None
    return few(settings)


@given(variables=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES)))
def test_lazy_settings_are_those_that_load_gives(
    variables: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.upper().startswith("HAN_")]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.chdir(tmp_path_factory.getbasetemp())
        assert few_checked() == few_of_all()


def test_the_file_counts_for_lazy_settings(environment: pytest.MonkeyPatch) -> None:
    Path("han.toml").write_text('meter_id = "456"\ntimezone = "UTC"\noutbox = "there.sqlite"')
    assert few_checked() == few_of_all() == ("UTC", "456", Path("there.sqlite"))
    environment.setenv("HAN_TIMEZONE", "Europe/Stockholm")
    assert few_checked() == few_of_all() == ("Europe/Stockholm", "456", Path("there.sqlite"))
    environment.setenv("HAN_MAIN_FUSE_A", "x")
    assert few_checked() is few_of_all() is None


def test_the_outbox_is_known_before_the_other_settings_are_checked(environment: pytest.MonkeyPatch) -> None:
    assert LazySettings({"outbox": None}).outbox_path == load().outbox_path
    environment.setenv("HAN_OUTBOX", "here.sqlite")
    environment.setenv("HAN_MAIN_FUSE_A", "x")
    Path("han.toml").write_text('outbox = "there.sqlite"')
    settings = LazySettings()
    assert settings.outbox_path == Path("here.sqlite")
    with pytest.raises(SettingsError, match="HAN_MAIN_FUSE_A"):
        settings.check()
    # The command line and a file that it names have to be checked first.
    for wrong in (LazySettings({"outbox": "other.sqlite"}), LazySettings({}, Path("han.toml"))):
        with pytest.raises(SettingsError, match="HAN_MAIN_FUSE_A"):
            _ = wrong.outbox_path
    environment.delenv("HAN_MAIN_FUSE_A")
    assert LazySettings({"outbox": "other.sqlite"}).outbox_path == Path("other.sqlite")
    assert LazySettings({}, Path("han.toml")).outbox_path == Path("here.sqlite")
    environment.delenv("HAN_OUTBOX")
    assert LazySettings().outbox_path == Path("there.sqlite")
