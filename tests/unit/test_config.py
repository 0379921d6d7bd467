"""Settings: what goes over what, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.config import Settings, SettingsError, load


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("HAN_"):
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


def test_an_empty_variable_counts_as_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAN_INFLUX_URL", "")
    monkeypatch.setenv("HAN_MAIN_FUSE_A", "")
    assert load().influx_url is None


def test_several_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAN_SOURCE", " /dev/ttyUSB0  /dev/ttyUSB1?parity=E ")
    assert load().sources == ["/dev/ttyUSB0", "/dev/ttyUSB1?parity=E"]


def test_a_meter_of_its_own_in_the_file() -> None:
    toml('[meter."5706567"]\nmain_fuse_a = 25')
    assert load().meter["5706567"].main_fuse_a == 25


@pytest.mark.parametrize(
    ("text", "octets"), [("500M", 500 << 20), ("2G", 2 << 30), ("2 GB", 2 << 30), ("1048576", 1 << 20)]
)
def test_sizes(monkeypatch: pytest.MonkeyPatch, text: str, octets: int) -> None:
    monkeypatch.setenv("HAN_OUTBOX_MAX", text)
    assert load().outbox_max == octets


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HAN_TIMEZONE", "Oslo", "'Oslo' is no time zone; write it like Europe/Oslo"),
        ("HAN_TIMEZONE", "/etc/passwd", "is no time zone"),
        ("HAN_OUTBOX_MAX", "much", "like 500M"),
        ("HAN_OUTBOX_MAX", "10", "1M at least"),
        ("HAN_INFLUX_URL", "localhost:8086", "http:// or https://"),
        ("HAN_MAIN_FUSE_A", "-5", "greater than 0"),
        ("HAN_MAIN_FUSE_A", "x", "a valid number"),
        ("HAN_LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert str(caught.value).startswith(f"{name}: ")
    assert words in str(caught.value)


def test_an_unknown_variable_is_named_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAN_SUORCE", "sim:")
    with pytest.raises(SettingsError, match=r"HAN_SUORCE: no such setting; there are .*HAN_SOURCE"):
        load()


def test_faults_of_the_file_name_it() -> None:
    toml("soruce = 1")
    with pytest.raises(SettingsError, match=r"soruce in han\.toml: no such setting; there are .*source"):
        load()
    toml('[meter."1"]\nmain_fuse_a = 0')
    with pytest.raises(SettingsError, match=r"meter\.1\.main_fuse_a in han\.toml: "):
        load()
    toml("source = ")
    with pytest.raises(SettingsError, match=r"han\.toml is not TOML"):
        load()
    with pytest.raises(SettingsError, match=r"none\.toml cannot be read"):
        load(config=Path("none.toml"))


def test_a_fault_of_the_command_line_names_the_option() -> None:
    with pytest.raises(SettingsError, match=r"^--influx-url: must begin with http"):
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
    with pytest.raises(SettingsError, match="HAN_INFLUX_TOKEN_FILE nowhere cannot be read: No such file"):
        load({"influx_token_file": "nowhere"}).token()


def test_a_secret_is_not_in_the_words_about_another_fault(monkeypatch: pytest.MonkeyPatch) -> None:
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
