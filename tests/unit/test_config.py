"""Settings: which source has priority, and what is reported about wrong values."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
import pytest

from exporter.config import Settings, SettingsError, load


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.upper().startswith("HAN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def toml(text: str) -> Path:
    path = Path("han.toml")
    path.write_text(text)
    return path


def test_defaults() -> None:
    settings = load()
    assert settings.sources == []
    assert settings.influx_url is None
    assert settings.influx_bucket == "han"
    assert settings.main_fuse_a == 40
    assert str(settings.zone) == "Europe/Oslo"
    assert settings.outbox_max == 1 << 30


def test_command_line_over_environment_over_file_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    toml('source = "sim:"\ninflux_bucket = "file"\nmain_fuse_a = 63\nmeter_id = "file"')
    monkeypatch.setenv("HAN_INFLUX_BUCKET", "environment")
    monkeypatch.setenv("HAN_METER_ID", "environment")
    settings = load({"meter_id": "command line", "influx_url": None})
    assert (settings.meter_id, settings.influx_bucket, settings.main_fuse_a) == ("command line", "environment", 63)
    assert settings.sources == ["sim:"]


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAN_INFLUX_URL", "")
    monkeypatch.setenv("HAN_MAIN_FUSE_A", "")
    monkeypatch.setenv("HAN_CONFIG", "")
    assert load().influx_url is None
    assert load().main_fuse_a == 40
    toml("main_fuse_a = 63")
    assert load().main_fuse_a == 63
    monkeypatch.setenv("HAN_SUORCE", "")
    with pytest.raises(SettingsError, match="HAN_SUORCE"):
        load()


def test_a_variable_in_small_letters_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("han_main_fuse_a", "25")
    assert load().main_fuse_a == 25
    monkeypatch.setenv("han_main_fuse_a", "-1")
    with pytest.raises(SettingsError, match=r"^han_main_fuse_a: "):
        load()


def test_han_config_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    toml("main_fuse_a = 63")
    Path("other.toml").write_text("main_fuse_a = 25")
    monkeypatch.setenv("HAN_CONFIG", "other.toml")
    assert load().main_fuse_a == 25
    assert load(config=Path("han.toml")).main_fuse_a == 63
    monkeypatch.setenv("HAN_CONFIG", "missing.toml")
    with pytest.raises(SettingsError, match=r"missing\.toml"):
        load()


@pytest.mark.parametrize("name", ["HAN_TEST_X", "HAN_ALERT_EMAIL", "HAN_GRAFANA_PORT", "HAN_INIT_X", "HAN_COMPOSE_X"])
def test_variables_of_other_programs_are_not_settings(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "anything")
    assert load() == Settings()


def test_several_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAN_SOURCE", " /dev/ttyUSB0  /dev/ttyUSB1?parity=E ")
    assert load().sources == ["/dev/ttyUSB0", "/dev/ttyUSB1?parity=E"]


def test_a_meter_can_have_its_own_limits() -> None:
    toml('main_fuse_a = 63\n[meter."5706567"]\nmain_fuse_a = 25\nvoltage_min = 215')
    settings = load()
    assert settings.meter["5706567"].main_fuse_a == 25
    own, other = settings.limits("5706567"), settings.limits("other")
    assert (own.main_fuse_a, own.voltage_min, own.voltage_max) == (25, 215, 253)
    assert (other.main_fuse_a, other.voltage_min, other.voltage_max) == (63, 207, 253)


def test_meters_in_the_environment_are_json_and_have_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    toml('[meter."1"]\nmain_fuse_a = 25\nvoltage_min = 215')
    monkeypatch.setenv("HAN_METER", '{"1": {"main_fuse_a": 32}, "2": {}}')
    limits = load().limits("1")
    assert (limits.main_fuse_a, limits.voltage_min) == (32, 215)
    monkeypatch.setenv("HAN_METER", "{")
    with pytest.raises(SettingsError, match=r"^HAN_METER: .*JSON"):
        load()


@pytest.mark.parametrize(
    ("text", "size"), [("500M", 500 << 20), ("2G", 2 << 30), ("2 GB", 2 << 30), ("1048576", 1 << 20)]
)
def test_sizes(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("HAN_OUTBOX_MAX", text)
    assert load().outbox_max == size


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("HAN_TIMEZONE", "Oslo", "Europe/Oslo"),
        ("HAN_TIMEZONE", "/etc/passwd", "Europe/Oslo"),
        ("HAN_OUTBOX_MAX", "much", "500M"),
        ("HAN_OUTBOX_MAX", "10", "1M"),
        ("HAN_INFLUX_URL", "localhost:8086", "http:// or https://"),
        ("HAN_MAIN_FUSE_A", "-5", "greater than 0"),
        ("HAN_MAIN_FUSE_A", "x", "number"),
        ("HAN_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value).startswith(f"{name}: ")
    assert allowed in str(caught.value)


def test_an_unknown_variable_is_reported_with_all_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAN_SUORCE", "sim:")
    with pytest.raises(SettingsError, match=r"^HAN_SUORCE: .*HAN_SOURCE"):
        load()


def test_errors_in_the_file_name_the_file() -> None:
    toml("soruce = 1")
    with pytest.raises(SettingsError, match=r"^soruce in han\.toml: .*source"):
        load()
    toml('[meter."1"]\nmain_fuse_a = 0')
    with pytest.raises(SettingsError, match=r"meter\.1\.main_fuse_a in han\.toml: "):
        load()
    toml('[meter."1"]\nmain_fuse = 25')
    with pytest.raises(SettingsError, match=r"meter\.1\.main_fuse in han\.toml: .*main_fuse_a"):
        load()
    toml("source = ")
    with pytest.raises(SettingsError, match=r"han\.toml .*TOML"):
        load()
    with pytest.raises(SettingsError, match=r"none\.toml "):
        load(config=Path("none.toml"))


def test_an_error_on_the_command_line_names_the_option() -> None:
    with pytest.raises(SettingsError, match=r"^--influx-url: .*http"):
        load({"influx_url": "x"})


def test_the_token_comes_from_a_variable_or_a_file_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAN_INFLUX_TOKEN", "very secret")
    settings = load()
    assert settings.token() == "very secret"
    assert "very secret" not in repr(settings) + str(settings)
    Path("token").write_text("from a file\n")
    with pytest.raises(SettingsError, match="not both"):
        load({"influx_token_file": "token"})
    monkeypatch.delenv("HAN_INFLUX_TOKEN")
    assert load({"influx_token_file": "token"}).token() == "from a file"
    with pytest.raises(SettingsError, match=r"HAN_INFLUX_TOKEN_FILE nowhere .*No such file"):
        load({"influx_token_file": "nowhere"}).token()


def test_a_secret_is_not_shown_in_a_message_about_another_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAN_INFLUX_TOKEN", "very secret")
    monkeypatch.setenv("HAN_INFLUX_TOKEN_FILE", "x")
    with pytest.raises(SettingsError) as caught:
        load()
    assert "very secret" not in str(caught.value)


def test_every_setting_of_the_command_line_is_a_setting() -> None:
    from exporter.cli.run import run

    options = {parameter.name for parameter in run.params} - {"config"}
    assert options <= set(Settings.model_fields)
    assert "influx_token" not in options  # others on the machine would see it


def test_the_defaults_in_the_help_are_those_of_the_settings() -> None:
    from exporter.cli.run import run

    shown = {
        option.name: found[1]
        for option in run.params
        if isinstance(option, click.Option) and (found := re.search(r"\[default: (\S+)\]", option.help or ""))
    }
    assert len(shown) >= 5
    assert Settings.model_validate(shown) == Settings()
