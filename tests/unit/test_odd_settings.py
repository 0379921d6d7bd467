"""Settings that nobody would write but a damaged file may contain: each is reported, none ends in a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config import SettingsError, load
from exporter.sources.contract import SourceError
from exporter.sources.open import open_source


@pytest.mark.parametrize(
    ("toml", "reported"),
    [
        (f"main_fuse_a = {'1' * 5000}", "han.toml .*TOML"),
        (f"meter = {'[' * 3000}", "han.toml .*nested"),
        ('capacity_steps_kw = "nan"', "capacity_steps_kw"),
        ('capacity_steps_kw = "2,nan"', "capacity_steps_kw"),
        ('capacity_steps_kw = "2,inf"', "capacity_steps_kw"),
    ],
)
def test_a_file_that_makes_no_sense(tmp_path: Path, toml: str, reported: str) -> None:
    path = tmp_path / "han.toml"
    path.write_text(toml, encoding="utf-8")
    with pytest.raises(SettingsError, match=reported):
        load(config=path)


def test_a_token_file_whose_name_contains_a_nul(tmp_path: Path) -> None:
    path = tmp_path / "han.toml"
    path.write_text('influx_token_file = "a\\u0000b"', encoding="utf-8")
    with pytest.raises(SettingsError, match="HAN_INFLUX_TOKEN_FILE"):
        load(config=path).token()


def test_a_path_that_is_too_long_for_the_system() -> None:
    assert open_source("/dev/" + "x" * 5000).name
    with pytest.raises(SourceError, match="xxx"):
        open_source("x" * 5000)


@pytest.mark.parametrize("url", ["hwgrep://[", "loop://[x", "socket://[", "rfc2217://[::1"])
def test_an_address_that_is_not_one(url: str) -> None:
    with pytest.raises(SourceError):
        open_source(url)
