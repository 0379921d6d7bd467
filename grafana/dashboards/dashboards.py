"""Dashboards and alert rules as code: writes every file that Grafana reads.

    python -m grafana.dashboards.dashboards            writes them
    python -m grafana.dashboards.dashboards --check    names the files that are not up to date; exit code 1 if any

Needs grafana-foundation-sdk, which `pip install -e '.[test]'` installs. Nothing here runs on the owner's machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.dashboards import alerts, balance, capacity, consumption, exporter_board, now, quality
from grafana.dashboards.frame import Page, page

HERE: Final = Path(__file__).parent
RULES: Final = HERE.parent / "provisioning" / "alerting" / "rules.yaml"
PAGES: Final[tuple[Page, ...]] = (
    now.PAGE,
    consumption.PAGE,
    balance.PAGE,
    capacity.PAGE,
    quality.PAGE,
    exporter_board.PAGE,
)


def dashboards() -> dict[Path, dict[str, Any]]:
    """Every dashboard: its file -> its content."""
    found = {}
    for one in PAGES:
        content = json.loads(JSONEncoder(sort_keys=True).encode(page(one)))
        for panel in content["panels"]:
            if "timeShift" in panel:  # the SDK has no builder for it; without it, Grafana shows "timeshift -1M"
                panel["hideTimeOverride"] = True
        found[HERE / f"{one.name}.json"] = content
    return found


def files() -> dict[Path, str]:
    """Every generated file: its path -> its text."""
    boards = dashboards()
    texts = {
        path: json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
        for path, content in boards.items()
    }
    return texts | {RULES: alerts.text(boards.values())}


def main() -> int:
    """Write, or check."""
    stale = [path for path, text in files().items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is not up to date: run python -m grafana.dashboards.dashboards", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(files()[path], encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
