"""start.sh, with a program in place of Grafana that records its environment and files."""

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
RECORDS = """#!/bin/sh
env -0 >"$OUTPUT/environment"
cp -R "$GF_PATHS_PROVISIONING" "$OUTPUT/provisioning"
printf '%s\\n' "$@" >"$OUTPUT/arguments"
"""


@dataclass(frozen=True)
class Started:
    """How Grafana would have been started: its environment and its provisioning; and the log for the owner."""

    environment: dict[str, str]
    provisioning: Path
    log: str
    folder: Path

    @property
    def files(self) -> set[str]:
        return {path.stem for path in (self.provisioning / "alerting").iterdir()}

    @property
    def alerting(self) -> dict[str, Any]:
        """The files besides the rules."""
        paths = [self.provisioning / f"alerting/{name}.yaml" for name in sorted(self.files - {"rules"})]
        return {path.stem: yaml.safe_load(path.read_text("utf-8")) for path in paths}

    @property
    def receivers(self) -> dict[str, dict[str, Any]]:
        """uid -> receiver, of every contact point."""
        found = [one for content in self.alerting.values() for one in content.get("contactPoints", [])]
        return {receiver["uid"]: receiver for one in found for receiver in one["receivers"]}

    @property
    def remembered(self) -> list[str]:
        path = self.folder / "data/han-alerts-to"
        return path.read_text("utf-8").split() if path.exists() else []


def start(folder: Path, *arguments: str, shell: str = SHELLS[0], answers: bool = False, **settings: str) -> Started:
    """Run it with these HAN_… settings. `answers`: Grafana answers, so it has read its files."""
    output, programs = folder / "output", folder / "bin"
    shutil.rmtree(output, ignore_errors=True)
    for made in (output, programs, folder / "tmp"):
        made.mkdir(exist_ok=True)
    for name, text in {
        "grafana": RECORDS,
        "wget": f"#!/bin/sh\nexit {0 if answers else 1}\n",
        "curl": "#!/bin/sh\nexit 1\n",
        "sleep": "#!/bin/sh\nkill $PPID\n",  # else it would try again for ten minutes
    }.items():
        (programs / name).write_text(text, "utf-8")
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TMPDIR": str(folder / "tmp"),
        "OUTPUT": str(output),
        "GF_PATHS_PROVISIONING": str(ROOT / "grafana/provisioning"),
        "GF_PATHS_DATA": str(folder / "data"),
        **{f"HAN_{name}": text for name, text in settings.items()},
    }
    command = [shell, *(["sh"] if shell == "busybox" else []), str(START / "start.sh"), "grafana", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr
    pairs = (output / "environment").read_text("utf-8").split("\0")
    assert (output / "arguments").read_text("utf-8").split() == list(arguments)
    return Started(dict(pair.split("=", 1) for pair in pairs if pair), output / "provisioning", done.stderr, folder)


@pytest.mark.parametrize("shell", SHELLS)
def test_without_settings_grafana_gets_the_stacks_files_and_no_contact_point(tmp_path: Path, shell: str) -> None:
    started = start(tmp_path, "--homepath", "/usr/share/grafana", shell=shell, ALERT_WEBHOOK="", ALERT_EMAIL=" ")
    assert started.receivers == {}
    assert started.files == {"rules"}
    for path in (ROOT / "grafana/provisioning").rglob("*.yaml"):
        copy = started.provisioning / path.relative_to(ROOT / "grafana/provisioning")
        assert copy.read_bytes() == path.read_bytes()
    for name in ("datasources", "dashboards", "alerting", "notifiers", "plugins"):
        assert (started.provisioning / name).is_dir(), "Grafana logs an error for each missing one"
    assert started.environment["GF_SERVER_ROOT_URL"] == "http://localhost:3000/"
    assert not [name for name in started.environment if name.startswith("GF_SMTP")]
    assert started.log == ""
    assert started.remembered == []


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
def test_the_kind_of_a_webhook_follows_from_its_address(
    tmp_path: Path, address: str, kind: str, sent_to: str, words: str
) -> None:
    started = start(tmp_path, ALERT_WEBHOOK=address)
    assert {uid: one["type"] for uid, one in started.receivers.items()} == {"han-webhook": kind}
    assert started.receivers["han-webhook"]["settings"]["url"] == "$HAN_ALERT_URL", "Grafana replaces it, once"
    assert started.environment["HAN_ALERT_URL"] == sent_to
    (policy,) = started.alerting["policy"]["policies"]
    (point,) = [one for content in started.alerting.values() for one in content.get("contactPoints", [])]
    assert policy["receiver"] == point["name"]
    assert words in started.log
    assert started.remembered == ["han-webhook"]


@pytest.mark.parametrize("address", ["ntfy.sh/house", "house", "ftp://x.example/a", "https://"])
def test_a_wrong_address_is_reported_and_left_out(tmp_path: Path, address: str) -> None:
    started = start(tmp_path, ALERT_WEBHOOK=address)
    assert started.receivers == {}
    assert "HAN_ALERT_WEBHOOK" in started.log


def test_mail_by_port_587_requires_tls_and_the_password_is_in_no_file(tmp_path: Path) -> None:
    started = start(
        tmp_path,
        ALERT_EMAIL="a@example.org, b@example.org",
        ALERT_SMTP_HOST="smtp.example.org",
        ALERT_SMTP_USER="me@example.org",
        ALERT_SMTP_PASSWORD="p$A${B}#;'\"%x",
    )
    assert started.receivers["han-email"]["settings"]["addresses"] == "$HAN_ALERT_EMAIL"
    assert started.environment["HAN_ALERT_EMAIL"] == "a@example.org, b@example.org"
    smtp = {name: text for name, text in started.environment.items() if name.startswith("GF_SMTP_")}
    assert smtp == {
        "GF_SMTP_ENABLED": "true",
        "GF_SMTP_HOST": "smtp.example.org:587",
        "GF_SMTP_USER": "$__env{HAN_ALERT_SMTP_USER}",
        "GF_SMTP_PASSWORD": "$__env{HAN_ALERT_SMTP_PASSWORD}",
        "GF_SMTP_FROM_ADDRESS": "me@example.org",
        "GF_SMTP_FROM_NAME": "han-exporter",
        "GF_SMTP_STARTTLS_POLICY": "MandatoryStartTLS",
    }
    assert started.environment["HAN_ALERT_SMTP_PASSWORD"] == "p$A${B}#;'\"%x"
    assert "example.org" not in started.log


@pytest.mark.parametrize(
    ("user", "sender", "expected"),
    [("", "", "a@example.org"), ("me", "", "a@example.org"), ("me", "han@example.org", "han@example.org")],
)
def test_a_mail_has_a_sender(tmp_path: Path, user: str, sender: str, expected: str) -> None:
    started = start(
        tmp_path,
        ALERT_EMAIL="a@example.org;b@example.org",
        ALERT_SMTP_HOST="h:25",
        ALERT_SMTP_USER=user,
        ALERT_SMTP_FROM=sender,
    )
    assert started.environment["GF_SMTP_FROM_ADDRESS"] == expected
    assert ("GF_SMTP_STARTTLS_POLICY" in started.environment) is bool(user), "a relay at home may not support TLS"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"ALERT_EMAIL": "a@example.org"}, "HAN_ALERT_SMTP_HOST"),
        ({"ALERT_EMAIL": "me", "ALERT_SMTP_HOST": "h:25"}, "HAN_ALERT_EMAIL"),
        (
            {"ALERT_EMAIL": "a@b.c", "ALERT_SMTP_HOST": "h:25", "ALERT_SMTP_FROM": "me"},
            "HAN_ALERT_SMTP_FROM",
        ),
        ({"ALERT_SMTP_HOST": "h:25", "ALERT_SMTP_USER": "me"}, ""),
    ],
)
def test_incomplete_settings_of_mail_are_reported_and_left_out(
    tmp_path: Path, given: dict[str, str], missing: str
) -> None:
    """Grafana does not start with a wrong sender address, or with a contact point without a receiver."""
    started = start(tmp_path, **given)  # type: ignore[arg-type]
    assert started.receivers == {}
    assert not [name for name in started.environment if name.startswith("GF_SMTP")]
    assert missing in started.log
    assert started.remembered == []


@pytest.mark.parametrize("shell", SHELLS)
def test_webhook_and_mail_are_one_contact_point(tmp_path: Path, shell: str) -> None:
    started = start(tmp_path, shell=shell, ALERT_WEBHOOK=SLACK, ALERT_EMAIL="a@example.org", ALERT_SMTP_HOST="h:465")
    assert set(started.receivers) == {"han-webhook", "han-email"}
    points = [one for content in started.alerting.values() for one in content.get("contactPoints", [])]
    assert len({one["name"] for one in points}) == 1
    assert started.remembered == ["han-webhook", "han-email"]


def test_what_was_added_is_removed_once_after_grafana_has_read_it(tmp_path: Path) -> None:
    start(tmp_path, ALERT_WEBHOOK=SLACK, ALERT_EMAIL="a@example.org", ALERT_SMTP_HOST="h:465")

    started = start(tmp_path, ALERT_WEBHOOK=SLACK, answers=True)
    gone = started.alerting["han-gone"]
    assert gone == {"apiVersion": 1, "deleteContactPoints": [{"orgId": 1, "uid": "han-email"}]}
    _eventually(started, ["han-webhook"])

    started = start(tmp_path)
    undone = started.alerting["han-gone"]
    assert undone["resetPolicies"] == [1]
    assert undone["deleteContactPoints"] == [{"orgId": 1, "uid": "han-webhook"}]
    assert undone["deleteTemplates"] == [{"orgId": 1, "name": "han"}]
    assert started.files == {"rules", "han-gone"}
    assert started.remembered == ["han-webhook"], "Grafana did not answer, so it is tried again at the next start"

    started = start(tmp_path, answers=True)
    assert "han-gone" in started.alerting
    _eventually(started, [])

    assert "han-gone" not in start(tmp_path).alerting, "policies belong to the owner now"


def _eventually(started: Started, remembered: list[str]) -> None:
    until(lambda: started.remembered == remembered, 5)


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
def test_links_begin_with_an_address_that_grafana_accepts(tmp_path: Path, url: str, root: str) -> None:
    started = start(tmp_path, GRAFANA_URL=url, GRAFANA_PORT="8080")
    assert started.environment["GF_SERVER_ROOT_URL"] == root
    assert ("HAN_GRAFANA_URL" in started.log) is (bool(url) and root != url)


def test_grafana_reads_the_files_without_changes() -> None:
    """Grafana replaces $NAME in a contact point, and $$ by $. Any other $ would be removed with what follows."""
    for path in START.glob("*.yaml"):
        content = yaml.safe_load(path.read_text("utf-8"))
        assert content["apiVersion"] == 1
        text = path.read_text("utf-8")
        assert {part.split()[0] for part in text.split("$")[1:]} <= {"HAN_ALERT_URL", "HAN_ALERT_EMAIL"}
        for point in content.get("contactPoints", []):
            for receiver in point["receivers"]:
                texts = " ".join(map(str, receiver["settings"].values()))
                assert '{{ template "han.message" . }}' in texts
                assert '{{ template "han.title" . }}' in texts
