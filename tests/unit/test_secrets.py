"""No key, token or password is in a file that is tracked; the image's releases are pinned by their hashes."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SECRETS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a token of InfluxDB 2": re.compile(r"(?<![\w/+-])[A-Za-z0-9_-]{86}=="),
    "a token of a service": re.compile(
        r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|github_pat_\w{22,}|glsa_\w{32,}|xox[abprs]-[\w-]{10,}"
        r"|sk-[A-Za-z0-9_-]{20,}|AIza[\w-]{35}|pypi-[\w-]{50,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.)"
    ),
    "a password in an address": re.compile(r"https?://[^\s/:@\"'{}<>$]+:(?P<value>[^\s/:@\"'{}<>$]{4,})@"),
    "a password that is set": re.compile(
        r"""(?ix)\b[\w-]*(?:password|passwd|secret|token|api_?key)["']?\s*[=:]\s*["'](?P<value>[^"'\s{}$]{12,})["']"""
    ),
}
HARMLESS = re.compile(
    r"(?i)^(?:.*(?:example|wrong|secret|password|token|file|influx|test|dummy).*|/.*|[a-z_]+|[A-Z_]+|-+.*)$"
)
"""Values that are said to be none: words, names of settings, paths."""


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout: what is tracked is not known")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def secrets_in(text: str) -> list[str]:
    """What looks like a secret, by its kind; never the secret itself."""
    found = []
    for kind, pattern in SECRETS.items():
        for match in pattern.finditer(text):
            value = match.groupdict().get("value")
            if value is None or not HARMLESS.match(value):
                found.append(f"{kind} in line {text.count(chr(10), 0, match.start()) + 1}")
    return found


def test_no_secret_is_tracked() -> None:
    found = []
    for path in tracked():
        if path.is_file() and b"\0" not in (octets := path.read_bytes())[:4096]:
            found += [f"{path.relative_to(ROOT)}: {what}" for what in secrets_in(octets.decode("utf-8", "replace"))]
    assert found == []


def test_no_file_of_secrets_is_tracked() -> None:
    names = {path.name for path in tracked()}
    assert not {name for name in names if re.search(r"\.(pem|key|p12|pfx|kdbx|sqlite|db|bolt)$|^\.env$|^id_", name)}
    assert ".env" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN EC " + "PRIVATE KEY-----",
        "Authorization: Token " + "aB3_" * 21 + "xY==",
        "ghp_" + "a1B2" * 9,
        "http://admin:" + "hunter22@influx:8086",
        "password" + ' = "Tr0ub4dor&3xyz"',
        '"influx_token"' + ': "q83hf-93hfk2"',
    ],
)
def test_a_secret_would_be_seen(text: str) -> None:
    assert secrets_in(text)


# The image


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Release and hashes of each project in a lock."""
    text = (ROOT / "exporter" / name).read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found: dict[str, tuple[str, list[str]]] = {}
    for line in lines:
        pin, *hashes = line.split()
        project, _, release = pin.partition("==")
        assert release, f"{line!r} is no pin"
        found[canonicalize_name(project)] = (release, [one for one in hashes if one.startswith("--hash=")])
    return found


@pytest.mark.parametrize("name", ["requirements.lock", "build.lock"])
def test_every_release_is_pinned_by_sha256(name: str) -> None:
    for project, (_, hashes) in locked(name).items():
        assert hashes, project
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), project


def test_the_locks_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = {
        "requirements.lock": project["project"]["dependencies"],
        "build.lock": project["build-system"]["requires"],
    }
    for name, requirements in wanted.items():
        there = locked(name)
        for requirement in map(Requirement, requirements):
            assert requirement.specifier.contains(there[canonicalize_name(requirement.name)][0]), requirement


def test_the_image_takes_nothing_else() -> None:
    docker = (ROOT / "exporter" / "Dockerfile").read_text("utf-8")
    installs = re.findall(r"(?:pip --python \S+|pip) (?:install|wheel)[^&\n]*", docker)
    assert len(installs) == 4
    for command in installs:
        pinned = "--require-hashes" in command and "--only-binary :all:" in command
        alone = "--no-deps" in command and ("--no-index" in command or "--no-build-isolation" in command)
        assert pinned or alone, command
