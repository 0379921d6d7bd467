"""start.sh, with something in Grafana's place that tells what it was given."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.patience import HANG_S, until

ROOT = Path(__file__).parents[3]
START = ROOT / "grafana/start"
SHELLS = [shell for shell in ("dash", "busybox", "bash") if shutil.which(shell)] or ["sh"]
SLACK = "https://hooks.slack.com/services/T0/B0/x"
TEXTS = "%7B%7B.title%7D%7D&m=%7B%7B.message%7D%7D"
TELLS = """#!/bin/sh
env -0 >"$TOLD/environment"
cp -R "$GF_PATHS_PROVISIONING" "$TOLD/provisioning"
printf '%s\\n' "$@" >"$TOLD/arguments"
"""


@dataclass(frozen=True)
class Told:
    """What Grafana would have had: its environment, its provisioning, and what the owner read in the log."""

    environment: dict[str, str]
    provisioning: Path
    log: str
    folder: Path

    @property
    def files(self) -> set[str]:
        return {path.stem for path in (self.provisioning / "alerting").iterdir()}

    @property
    def alerting(self) -> dict[str, Any]:
        """What was added to the rules."""
        paths = [self.provisioning / f"alerting/{name}.yaml" for name in sorted(self.files - {"rules"})]
        return {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in paths}

    @property
    def receivers(self) -> dict[str, dict[str, Any]]:
        """uid -> what it is, of every contact point."""
        found = [one for content in self.alerting.values() for one in content.get("contactPoints", [])]
        return {receiver["uid"]: receiver for one in found for receiver in one["receivers"]}

    @property
    def remembered(self) -> list[str]:
        path = self.folder / "data/han-alerts-to"
        return path.read_text("utf-8").split() if path.exists() else []


def start(folder: Path, *arguments: str, shell: str = SHELLS[0], answers: bool = False, **settings: str) -> Told:
    """Run it with these HAN_… settings; `answers` says whether Grafana answers as one that has read its files."""
    told, programs = folder / "told", folder / "bin"
    shutil.rmtree(told, ignore_errors=True)
    for made in (told, programs, folder / "tmp"):
        made.mkdir(exist_ok=True)
    for name, text in {
        "grafana": TELLS,
        "wget": f"#!/bin/sh\nexit {0 if answers else 1}\n",
        "curl": "#!/bin/sh\nexit 1\n",
        "sleep": "#!/bin/sh\nkill $PPID\n",  # it would go on asking for ten minutes
    }.items():
        (programs / name).write_text(text, "utf-8")
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TMPDIR": str(folder / "tmp"),
        "TOLD": str(told),
        "GF_PATHS_PROVISIONING": str(ROOT / "grafana/provisioning"),
        "GF_PATHS_DATA": str(folder / "data"),
        **{f"HAN_{name}": text for name, text in settings.items()},
    }
    command = [shell, *(["sh"] if shell == "busybox" else []), str(START / "start.sh"), "grafana", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr
    pairs = (told / "environment").read_text("utf-8").split("\0")
    assert (told / "arguments").read_text("utf-8").split() == list(arguments)
    return Told(dict(pair.split("=", 1) for pair in pairs if pair), told / "provisioning", done.stderr, folder)


@pytest.mark.parametrize("shell", SHELLS)
def test_with_nothing_set_grafana_gets_the_stacks_files_and_no_contact_point(tmp_path: Path, shell: str) -> None:
    told = start(tmp_path, "--homepath", "/usr/share/grafana", shell=shell, ALERT_WEBHOOK="", ALERT_EMAIL=" ")
    assert told.receivers == {}
    assert told.files == {"rules"}
    for path in (ROOT / "grafana/provisioning").rglob("*.yaml"):
        there = told.provisioning / path.relative_to(ROOT / "grafana/provisioning")
        assert there.read_bytes() == path.read_bytes()
    for name in ("datasources", "dashboards", "alerting", "notifiers", "plugins"):
        assert (told.provisioning / name).is_dir(), "Grafana complains of each that is not there"
    assert told.environment["GF_SERVER_ROOT_URL"] == "http://localhost:3000/"
    assert not [name for name in told.environment if name.startswith("GF_SMTP")]
    assert told.log == ""
    assert told.remembered == []


@pytest.mark.parametrize(
    ("address", "kind", "sent_to", "words"),
    [
        (SLACK, "slack", SLACK, "Slack"),
        ("https://discord.com/api/webhooks/1/x", "discord", "https://discord.com/api/webhooks/1/x", "Discord"),
        ("https://ptb.discord.com/api/webhooks/1/x", "discord", "https://ptb.discord.com/api/webhooks/1/x", "Discord"),
        ("http://ha.local:8123/api/webhook/x", "webhook", "http://ha.local:8123/api/webhook/x", "webhook"),
        (" https://x.example/a?b=$HOME&c='d'\n", "webhook", "https://x.example/a?b=$HOME&c='d'", "webhook"),
        ("https://x.example/{{.d}}", "webhook", "https://x.example/%7B%7B.d%7D%7D", "webhook"),
        ("https://x.example/ntfy.sh", "webhook", "https://x.example/ntfy.sh", "webhook"),
        ("https://ntfy.sh/house", "webhook", f"https://ntfy.sh/house?tpl=1&t={TEXTS}", "ntfy"),
        (
            "https://me:pw@ntfy.example.org/h?p=4",
            "webhook",
            f"https://me:pw@ntfy.example.org/h?p=4&tpl=1&t={TEXTS}",
            "ntfy",
        ),
        ("http://ntfy:80/house", "webhook", f"http://ntfy:80/house?tpl=1&t={TEXTS}", "ntfy"),
        ("https://ntfy.sh/h?template=grafana", "webhook", "https://ntfy.sh/h?template=grafana", "ntfy"),
        ("https://ntfy.sh/h?tpl=1&m={{.message}}", "webhook", "https://ntfy.sh/h?tpl=1&m=%7B%7B.message%7D%7D", "ntfy"),
    ],
)
def test_a_webhook_is_told_by_its_address(tmp_path: Path, address: str, kind: str, sent_to: str, words: str) -> None:
    told = start(tmp_path, ALERT_WEBHOOK=address)
    assert {uid: one["type"] for uid, one in told.receivers.items()} == {"han-webhook": kind}
    assert told.receivers["han-webhook"]["settings"]["url"] == "$HAN_ALERT_URL", "Grafana fills it in, once"
    assert told.environment["HAN_ALERT_URL"] == sent_to
    (policy,) = told.alerting["policy"]["policies"]
    (point,) = [one for content in told.alerting.values() for one in content.get("contactPoints", [])]
    assert policy["receiver"] == point["name"]
    assert words in told.log
    assert told.remembered == ["han-webhook"]


@pytest.mark.parametrize("address", ["ntfy.sh/house", "house", "ftp://x.example/a", "https://"])
def test_an_address_that_is_none_is_named_and_left_out(tmp_path: Path, address: str) -> None:
    told = start(tmp_path, ALERT_WEBHOOK=address)
    assert told.receivers == {}
    assert "HAN_ALERT_WEBHOOK must begin with http:// or https://" in told.log


def test_mail_by_port_587_asks_for_tls_and_the_password_is_not_written_out(tmp_path: Path) -> None:
    told = start(
        tmp_path,
        ALERT_EMAIL="a@example.org, b@example.org",
        ALERT_SMTP_HOST="smtp.example.org",
        ALERT_SMTP_USER="me@example.org",
        ALERT_SMTP_PASSWORD="p$A${B}#;'\"%x",
    )
    assert told.receivers["han-email"]["settings"]["addresses"] == "$HAN_ALERT_EMAIL"
    assert told.environment["HAN_ALERT_EMAIL"] == "a@example.org, b@example.org"
    smtp = {name: text for name, text in told.environment.items() if name.startswith("GF_SMTP_")}
    assert smtp == {
        "GF_SMTP_ENABLED": "true",
        "GF_SMTP_HOST": "smtp.example.org:587",
        "GF_SMTP_USER": "$__env{HAN_ALERT_SMTP_USER}",
        "GF_SMTP_PASSWORD": "$__env{HAN_ALERT_SMTP_PASSWORD}",
        "GF_SMTP_FROM_ADDRESS": "me@example.org",
        "GF_SMTP_FROM_NAME": "han-exporter",
        "GF_SMTP_STARTTLS_POLICY": "MandatoryStartTLS",
    }
    assert told.environment["HAN_ALERT_SMTP_PASSWORD"] == "p$A${B}#;'\"%x"
    assert "example.org" not in told.log


@pytest.mark.parametrize(
    ("user", "sender", "expected"),
    [("", "", "a@example.org"), ("me", "", "a@example.org"), ("me", "han@example.org", "han@example.org")],
)
def test_a_mail_has_a_sender(tmp_path: Path, user: str, sender: str, expected: str) -> None:
    told = start(
        tmp_path,
        ALERT_EMAIL="a@example.org;b@example.org",
        ALERT_SMTP_HOST="h:25",
        ALERT_SMTP_USER=user,
        ALERT_SMTP_FROM=sender,
    )
    assert told.environment["GF_SMTP_FROM_ADDRESS"] == expected
    assert ("GF_SMTP_STARTTLS_POLICY" in told.environment) is bool(user), "a relay at home may know no TLS"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"ALERT_EMAIL": "a@example.org"}, "HAN_ALERT_SMTP_HOST is not"),
        ({"ALERT_EMAIL": "me", "ALERT_SMTP_HOST": "h:25"}, "HAN_ALERT_EMAIL is no address"),
        (
            {"ALERT_EMAIL": "a@b.c", "ALERT_SMTP_HOST": "h:25", "ALERT_SMTP_FROM": "me"},
            "HAN_ALERT_SMTP_FROM is no address",
        ),
        ({"ALERT_SMTP_HOST": "h:25", "ALERT_SMTP_USER": "me"}, ""),
    ],
)
def test_mail_that_cannot_be_sent_is_named_and_grafana_starts_without(
    tmp_path: Path, given: dict[str, str], missing: str
) -> None:
    """Grafana does not start with a sender that is no address, nor with a contact point without a receiver."""
    told = start(tmp_path, **given)  # type: ignore[arg-type]
    assert told.receivers == {}
    assert not [name for name in told.environment if name.startswith("GF_SMTP")]
    assert missing in told.log
    assert told.remembered == []


@pytest.mark.parametrize("shell", SHELLS)
def test_webhook_and_mail_are_one_contact_point(tmp_path: Path, shell: str) -> None:
    told = start(tmp_path, shell=shell, ALERT_WEBHOOK=SLACK, ALERT_EMAIL="a@example.org", ALERT_SMTP_HOST="h:465")
    assert set(told.receivers) == {"han-webhook", "han-email"}
    points = [one for content in told.alerting.values() for one in content.get("contactPoints", [])]
    assert len({one["name"] for one in points}) == 1
    assert told.remembered == ["han-webhook", "han-email"]


def test_what_was_added_is_undone_once_and_only_after_grafana_has_read_it(tmp_path: Path) -> None:
    start(tmp_path, ALERT_WEBHOOK=SLACK, ALERT_EMAIL="a@example.org", ALERT_SMTP_HOST="h:465")

    told = start(tmp_path, ALERT_WEBHOOK=SLACK, answers=True)
    gone = told.alerting["han-gone"]
    assert gone == {"apiVersion": 1, "deleteContactPoints": [{"orgId": 1, "uid": "han-email"}]}
    _eventually(told, ["han-webhook"])

    told = start(tmp_path)
    undone = told.alerting["han-gone"]
    assert undone["resetPolicies"] == [1]
    assert undone["deleteContactPoints"] == [{"orgId": 1, "uid": "han-webhook"}]
    assert undone["deleteTemplates"] == [{"orgId": 1, "name": "han"}]
    assert told.files == {"rules", "han-gone"}
    assert told.remembered == ["han-webhook"], "Grafana did not come up: again next time"

    told = start(tmp_path, answers=True)
    assert "han-gone" in told.alerting
    _eventually(told, [])

    assert "han-gone" not in start(tmp_path).alerting, "policies are the owner's now"


def _eventually(told: Told, remembered: list[str]) -> None:
    until(lambda: told.remembered == remembered, 5)


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://192.168.1.20:3000", "http://192.168.1.20:3000"),
        ("https://example.org/grafana/", "https://example.org/grafana/"),
        ("http://[fe80::1]:3000/", "http://[fe80::1]:3000/"),
        ("", "http://localhost:8080/"),
        ("192.168.1.20:3000", "http://localhost:8080/"),
        ("http://host:port/", "http://localhost:8080/"),
        ("http://a b/", "http://localhost:8080/"),
    ],
)
def test_links_begin_with_an_address_that_grafana_takes(tmp_path: Path, url: str, root: str) -> None:
    told = start(tmp_path, GRAFANA_URL=url, GRAFANA_PORT="8080")
    assert told.environment["GF_SERVER_ROOT_URL"] == root
    assert ("HAN_GRAFANA_URL must be" in told.log) is (bool(url) and root != url)


def test_every_file_beside_it_is_read_by_grafana_as_it_stands() -> None:
    """Grafana fills in $NAME in a contact point, and takes $$ for $; what else has a $ would be emptied."""
    for path in START.glob("*.yaml"):
        content = yaml.safe_load(path.read_text("utf-8"))
        assert content["apiVersion"] == 1
        text = path.read_text("utf-8")
        assert {part.split()[0] for part in text.split("$")[1:]} <= {"HAN_ALERT_URL", "HAN_ALERT_EMAIL"}
        for point in content.get("contactPoints", []):
            for receiver in point["receivers"]:
                said = " ".join(map(str, receiver["settings"].values()))
                assert '{{ template "han.message" . }}' in said
                assert '{{ template "han.title" . }}' in said
