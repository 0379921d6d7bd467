"""Looks for known vulnerabilities in the releases that the image is built from; fails if one of them has a fix.

If no service can be reached, that is printed, and is not a failure: it says nothing about a change. A vulnerability
without a fix is printed too, and is not a failure: nothing can be done about it here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from exporter.counted import counted

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "build.lock")
SERVICES = ("pypi", "osv")
WAIT_S = 300


def main() -> int:
    """Audit each lock; return the exit code."""
    program = _installed()
    if program is None:
        print("audit: pip-audit cannot be installed here, so nothing was audited")
        return 0
    return max(_audit(program, lock) for lock in LOCKS)


def _installed() -> Path | None:
    folder = ROOT / "build" / "audit-venv"
    program = folder / "bin" / "pip-audit"
    if not program.exists():
        venv.create(folder, with_pip=True)
        command: list[str | Path] = [
            folder / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "pip-audit",
        ]
        if subprocess.run(command, timeout=WAIT_S, check=False).returncode:
            return None
    return program


def _audit(program: Path, lock: str) -> int:
    for service in SERVICES:
        found = _results(program, lock, service)
        audited = [one for one in found if "skip_reason" not in one]
        if audited:
            return _report(lock, service, audited, len(found))
    print(f"audit: {lock}: neither {' nor '.join(SERVICES)} can be reached, so nothing was audited")
    return 0


def _results(program: Path, lock: str, service: str) -> list[dict[str, Any]]:
    """What a service says of each release; [] if it cannot be reached."""
    command: list[str | Path] = [
        program,
        "--require-hashes",
        "--disable-pip",
        "--format",
        "json",
        "--progress-spinner",
        "off",
    ]
    command += ["--vulnerability-service", service, "--requirement", ROOT / "exporter" / lock]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return []
    return found


def _report(lock: str, service: str, audited: list[dict[str, Any]], count: int) -> int:
    faults = [(one, fault) for one in audited for fault in one["vulns"]]
    known, releases = counted(len(faults), "vulnerability", "vulnerabilities"), counted(count, "release")
    print(f"audit: {lock}: {service} knows {known} in {len(audited)} of {releases}")
    for one, fault in faults:
        fixed = ", ".join(fault["fix_versions"]) or "no release yet"
        print(f"  {one['name']} {one['version']}: {fault['id']}, fixed in {fixed}")
    return int(any(fault["fix_versions"] for _, fault in faults))


if __name__ == "__main__":
    sys.exit(main())
