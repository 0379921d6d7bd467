"""Asks whether a release that the image is built from has a known vulnerability; fails when there is one with a mend.

What cannot be asked is said, and is no failure: a change is not made worse by a service that is away. One that nobody
has mended is said, too: nothing could be done about it here.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

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
        command = [
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
        found = _asked(program, lock, service)
        audited = [one for one in found if "skip_reason" not in one]
        if audited:
            return _told(lock, service, audited, len(found))
    print(f"audit: {lock}: neither {' nor '.join(SERVICES)} can be asked from here, so nothing was audited")
    return 0


def _asked(program: Path, lock: str, service: str) -> list[dict[str, Any]]:
    """What a service says of each release; nothing when it cannot be reached."""
    command = [program, "--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command += ["--vulnerability-service", service, "--requirement", ROOT / "exporter" / lock]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return []
    return found


def _told(lock: str, service: str, audited: list[dict[str, Any]], count: int) -> int:
    faults = [(one, fault) for one in audited for fault in one["vulns"]]
    print(f"audit: {lock}: {service} knows {len(faults)} vulnerabilities in {len(audited)} of {count} releases")
    for one, fault in faults:
        mended = ", ".join(fault["fix_versions"]) or "nowhere yet"
        print(f"  {one['name']} {one['version']}: {fault['id']}, mended in {mended}")
    return int(any(fault["fix_versions"] for _, fault in faults))


if __name__ == "__main__":
    sys.exit(main())
