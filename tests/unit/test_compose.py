"""docker-compose.yml keeps its promises: who reaches what, as whom, with which secret."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.cli.init import init
from exporter.config import PREFIX, Settings, load
from exporter.sources.open import open_source

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text("utf-8")
EXAMPLE = (ROOT / ".env.example").read_text("utf-8")
VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?P<default>:-[^${}]*)?\}")
SERVICES = ("influxdb", "init", "exporter", "admin", "grafana")
STAYING = ("influxdb", "init", "exporter", "grafana")
OF_THE_STACK = {
    "outbox",
    "influx_url",
    "influx_org",
    "influx_bucket",
    "influx_ca_cert",
    "influx_token",
    "influx_token_file",
}
ONLY_IN_HAN_TOML = {"meter"}
OF_OTHERS = ("HAN_GRAFANA_", "HAN_ALERT_", "HAN_COMPOSE_")


def stack(**given: str) -> dict[str, Any]:
    """The file as an engine would see it with these variables set, and no others."""
    text = VARIABLE.sub(lambda found: given.get(found["name"], "") or (found["default"] or ":-")[2:], TEXT)
    content = yaml.safe_load(text)
    assert isinstance(content, dict)
    return content


def services(**given: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = stack(**given)["services"]
    return found


def mounts(service: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """What is mounted: source -> (place, read only)."""
    parts = [volume.split(":") for volume in service["volumes"]]
    return {part[0]: (part[1], part[2:] == ["ro"]) for part in parts}


def example() -> dict[str, str]:
    """Each variable that .env.example offers, with its last example."""
    lines = re.findall(r"^#?([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE)
    return dict(lines)


def test_it_is_a_compose_file() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    outcome = subprocess.run([*command, ROOT / "docker-compose.yml"], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_compose_1_29_and_2_both_read_it() -> None:
    """1.29 refuses `name` and newer keys, and knows no variable inside a default; 2 calls `version` obsolete."""
    content = stack()
    assert {key for key in content if not key.startswith("x-")} == {"services", "networks", "volumes"}
    assert TEXT.count("${") == len(VARIABLE.findall(TEXT))
    newer = {"develop", "annotations", "attach", "models", "post_start", "pre_stop", "provider", "configs", "secrets"}
    for service in content["services"].values():
        assert not newer & service.keys()
        for condition in service.get("depends_on", {}).values():
            assert condition.keys() == {"condition"}
        assert not {"start_interval"} & service.get("healthcheck", {}).keys()


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_locked_down(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert "/tmp" in service["tmpfs"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid", "ipc", "devices", "env_file"} & service.keys()
    assert not any("docker.sock" in volume for volume in service["volumes"])


def test_nobody_but_init_is_root_or_has_a_capability() -> None:
    found = services()
    assert {name: service["user"] for name, service in found.items()} == {
        "influxdb": "1000:1000",
        "init": "0:0",
        "exporter": "10001:10001",
        "admin": "10001:10001",
        "grafana": "472:0",
    }
    assert {name: service["cap_add"] for name, service in found.items() if "cap_add" in service} == {
        "init": ["CHOWN", "FOWNER"]
    }
    assert "\nUSER 10001:10001\n" in (ROOT / "exporter" / "Dockerfile").read_text("utf-8")


@pytest.mark.parametrize("name", STAYING)
def test_every_service_comes_back_and_bounds_its_log(name: str) -> None:
    service = services()[name]
    assert service["restart"] == ("on-failure:5" if name == "init" else "unless-stopped")
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}


def test_one_port_and_only_for_this_computer() -> None:
    found = services()
    assert {name: service["ports"] for name, service in found.items() if "ports" in service} == {
        "grafana": ["127.0.0.1:3000:3000"]
    }
    opened = services(HAN_GRAFANA_BIND="0.0.0.0", HAN_GRAFANA_PORT="8080")
    assert opened["grafana"]["ports"] == ["0.0.0.0:8080:3000"]


def test_influxdb_has_no_way_out_and_no_way_in_but_by_the_stack() -> None:
    """Flux, which whoever sees a dashboard may use through Grafana, can ask other servers and read SQLite files."""
    content = stack()
    assert content["networks"] == {"database": {"internal": True}, "default": {}}
    assert {name: service["networks"] for name, service in content["services"].items()} == {
        "influxdb": ["database"],
        "init": ["database"],
        "admin": ["database"],
        "exporter": ["database", "default"],
        "grafana": ["database", "default"],
    }
    environment = content["services"]["influxdb"]["environment"]
    for name in ("REPORTING_DISABLED", "HARDENING_ENABLED", "METRICS_DISABLED", "PPROF_DISABLED"):
        assert environment[f"INFLUXD_{name}"] == "true"


def test_nothing_of_the_host_is_mounted_but_what_is_read() -> None:
    allowed = {"./grafana/start", "./grafana/provisioning", "./grafana/dashboards", "/dev", "/dev/null"}
    for name, service in services().items():
        of_the_host = {source: only for source, (_, only) in mounts(service).items() if source.startswith((".", "/"))}
        assert of_the_host.keys() <= allowed, name
        assert all(of_the_host.values()), name


def test_no_secret_is_written_here() -> None:
    """Passwords and tokens come from files that init makes; InfluxDB's own set-up by environment is not used."""
    assert "DOCKER_INFLUXDB_INIT" not in TEXT
    for service in services().values():
        for name, value in service.get("environment", {}).items():
            if name == "HAN_ALERT_SMTP_PASSWORD":  # of a server that the owner names; there is none by itself
                assert value == example()[name] == ""
            elif re.search(r"PASSWORD|TOKEN|SECRET", name):
                assert name.endswith("_FILE"), name
                assert value.startswith("/run/han-exporter/"), name
    assert not re.search(r"PASSWORD|TOKEN|SECRET", EXAMPLE.replace("HAN_ALERT_SMTP_PASSWORD=\n", ""))


def test_each_secret_is_mounted_by_init_and_by_who_needs_it() -> None:
    by_volume = {
        volume: {name for name, service in services().items() if volume in mounts(service)}
        for volume in stack()["volumes"]
    }
    assert by_volume == {
        "influxdb-data": {"influxdb"},
        "influxdb-config": {"influxdb"},
        "exporter-data": {"exporter", "admin"},
        "grafana-data": {"grafana"},
        "secrets-operator": {"init", "admin"},
        "secrets-exporter": {"init", "exporter"},
        "secrets-grafana": {"init", "grafana"},
    }
    for name in ("exporter", "grafana"):
        assert mounts(services()[name])[f"secrets-{name}"] == ("/run/han-exporter", True)


def test_init_gives_each_secret_to_its_reader() -> None:
    service = services()["init"]
    command = service["command"]
    assert command[0] == init.name
    options = init.make_context("init", command[1:]).params
    places = {name: place for name, (place, _) in mounts(service).items()}
    wanted = {
        "operator_token": ("secrets-operator", "influx-token", 10001),
        "write_token": ("secrets-exporter", "influx-token", 10001),
        "read_token": ("secrets-grafana", "influx-token", 472),
        "grafana_password": ("secrets-grafana", "admin-password", 472),
    }
    for secret, (volume, file, user) in wanted.items():
        assert options[f"{secret}_file"] == Path(places[volume], file)
        assert options[f"{secret}_owner"] == (user, 0), "the group of init, which has no right to read past a mode"
    assert options["mode"] == 0o440
    grafana = services()["grafana"]["environment"]
    assert grafana["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/han-exporter/admin-password"
    assert services()["exporter"]["environment"]["HAN_INFLUX_TOKEN_FILE"] == "/run/han-exporter/influx-token"


def test_order_of_starting() -> None:
    found = services()
    assert found["init"]["depends_on"] == {"influxdb": {"condition": "service_healthy"}}
    assert "healthcheck" in found["influxdb"]
    for name in ("exporter", "grafana"):
        assert found[name]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}


def test_what_is_shown_without_a_password_is_only_shown() -> None:
    environment = services()["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert environment["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert environment["GF_METRICS_ENABLED"] == "false"
    assert environment["GF_SNAPSHOTS_EXTERNAL_ENABLED"] == "false"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in environment, "by file only"
    assert not any("EMBEDDING" in name or "COOKIE" in name or name == "GF_INSTALL_PLUGINS" for name in environment)
    closed = services(HAN_GRAFANA_ANONYMOUS="false")
    assert closed["grafana"]["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"


def test_an_adapter_may_be_unplugged_and_plugged_in_again() -> None:
    exporter = services()["exporter"]
    assert mounts(exporter)["/dev"] == ("/dev", True)
    assert "/dev/shm" in exporter["tmpfs"], "the host's shared memory is none of the exporter's business"
    allowed = {rule.removesuffix(" rw") for rule in exporter["device_cgroup_rules"]}
    assert allowed == {"c 188:*", "c 166:*", "c 204:*", "c 4:64", "c 4:65", "c 4:66", "c 4:67"}
    assert exporter["group_add"] == ["20"]
    assert services(HAN_COMPOSE_DIALOUT_GID="986")["exporter"]["group_add"] == ["986"]


def test_grafana_and_its_files() -> None:
    grafana = services()["grafana"]
    for source, (_, read_only) in mounts(grafana).items():
        if source.startswith("./"):
            assert read_only and (ROOT / source).is_dir(), source
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert mounts(grafana)["./grafana/dashboards"] == (str(home.parent), True)
    assert (ROOT / "grafana" / "dashboards" / home.name).is_file()
    assert re.fullmatch(r"grafana/grafana:\d+\.\d+\.\d+", grafana["image"]), "pinned"
    assert grafana["environment"]["GF_DATE_FORMATS_DEFAULT_TIMEZONE"] == "Europe/Oslo"


def _settings(monkeypatch: pytest.MonkeyPatch, **given: str) -> Settings:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    for name, value in services(**given)["exporter"]["environment"].items():
        monkeypatch.setenv(name, value)
    return load()


def test_without_any_setting_a_simulated_meter_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = _settings(monkeypatch)
    assert settings.sources == ["sim:kamstrup?backfill=1"]
    assert open_source(settings.source, zone=settings.zone).live
    assert settings.influx_url == "http://influxdb:8086"


def test_env_example_can_be_used_as_it_stands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = _settings(monkeypatch, **example())
    assert settings.sources == ["/dev/ttyUSB0?parity=E"]
    told = {name.removeprefix(PREFIX).lower() for name in example()} & Settings.model_fields.keys()
    for field in told - {"source", "meter_id", "instance"}:
        assert getattr(settings, field) == Settings.model_fields[field].default, field


def test_every_setting_is_passed_on_and_explained() -> None:
    """A setting that the container does not get, or a variable that nobody reads, would be passed over in silence."""
    wanted = {PREFIX + field.upper() for field in Settings.model_fields.keys() - OF_THE_STACK - ONLY_IN_HAN_TOML}
    read = {found["name"] for found in VARIABLE.finditer(TEXT)}
    assert {name for name in read if not name.startswith(OF_OTHERS)} == wanted
    assert read == example().keys()
    assert {name for name in read if name.startswith("HAN_ALERT_")} <= services()["grafana"]["environment"].keys()
    environment = services()["exporter"]["environment"]
    assert wanted <= environment.keys()
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    assert environment.keys() <= known


def test_defaults_are_told_as_they_are() -> None:
    told = example()
    for found in VARIABLE.finditer(TEXT):
        default = (found["default"] or ":-")[2:]
        if default and found["name"] not in ("HAN_SOURCE", "HAN_COMPOSE_CONFIG"):
            assert told[found["name"]] == default, found["name"]


def test_only_the_wheel_goes_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert lines[1] == "*"
    assert {line for line in lines if line.startswith("!")} == {
        "!pyproject.toml",
        "!README.md",
        "!LICENSE",
        "!exporter",
    }
    docker = (ROOT / "exporter" / "Dockerfile").read_text("utf-8")
    assert not re.search(r"https?://", docker), "where packages come from is the builder's choice"


def test_admin_is_never_started_by_up_and_may_read() -> None:
    admin = services()["admin"]
    assert admin["profiles"] == ["admin"]
    assert admin["restart"] == "no"
    assert admin["command"] == ["report"]
    assert "secrets-operator" in mounts(admin)


def test_admin_reaches_the_outbox_as_the_exporter_does() -> None:
    """`forget` finds its socket and its lock where the exporter has them, and may use them."""
    admin, exporter = services()["admin"], services()["exporter"]
    assert mounts(admin)["exporter-data"] == mounts(exporter)["exporter-data"] == ("/var/lib/han-exporter", False)
    assert admin["user"] == exporter["user"]
    assert "HAN_OUTBOX=/var/lib/han-exporter/" in (ROOT / "exporter" / "Dockerfile").read_text("utf-8")
    assert "HAN_OUTBOX" not in {*admin["environment"], *exporter["environment"]}
