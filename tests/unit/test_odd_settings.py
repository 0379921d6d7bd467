"""Settings that nobody would write, and a damaged file may hold: each is named, none is a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config import SettingsError, load
from exporter.sources.contract import SourceError
from exporter.sources.open import open_source


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (f"main_fuse_a = {'1' * 5000}", "is not TOML"),
        (f"meter = {'[' * 3000}", "nested too deep"),
        ('capacity_steps_kw = "nan"', "rising"),
        ('capacity_steps_kw = "2,nan"', "rising"),
        ('capacity_steps_kw = "2,inf"', "rising"),
    ],
)
def test_a_file_that_cannot_be_meant(tmp_path: Path, toml: str, words: str) -> None:
    path = tmp_path / "han.toml"
    path.write_text(toml, encoding="utf-8")
    with pytest.raises(SettingsError, match=words):
        load(config=path)


def test_a_token_file_whose_name_has_a_nul_in_it(tmp_path: Path) -> None:
    path = tmp_path / "han.toml"
    path.write_text('influx_token_file = "a\\u0000b"', encoding="utf-8")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(config=path).token()


def test_a_port_whose_path_no_system_takes_is_no_file_and_may_be_opened_in_vain() -> None:
    assert open_source("/dev/" + "x" * 5000).name
    with pytest.raises(SourceError, match="there is no file and no port"):
        open_source("x" * 5000)


@pytest.mark.parametrize("url", ["hwgrep://[", "loop://[x", "socket://[", "rfc2217://[::1"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(SourceError):
        open_source(url)
