"""Take the pictures of the documentation from a running stack.

    python -m grafana.screenshots.take [URL] [--meter ID] [--dashboard NAME]...

URL is http://localhost:3000 by default, and the meter the first of the list. Each picture is written into the folder of
this file, with the name of its dashboard. Needs `pip install -e '.[browser]'` and a Chromium or Chrome.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from PIL import Image

from grafana.screenshots.browser import Dashboard, browser

HERE: Final = Path(__file__).parent
WIDTH: Final = 1400
MOST_BYTES: Final = 150_000


def main() -> int:
    """Take them; exit code 1 if a dashboard has an error or a picture is too large."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", default="http://localhost:3000")
    parser.add_argument("--meter", default="")
    parser.add_argument(
        "--dashboard", action="append", choices=["now", "consumption", "balance", "capacity", "quality"]
    )
    parser.add_argument("--theme", default="dark", choices=["dark", "light"])
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--height", type=int, default=0, help="cut the pictures at this height [default: whole]")
    parser.add_argument("--folder", type=Path, default=HERE)
    given = parser.parse_args()
    failed = False
    with browser() as program:
        for name in given.dashboard or ["now", "balance"]:
            picture = given.folder / f"{name}.png"
            board = Dashboard(given.url, f"han-{name}")
            how = {"meter": given.meter, "width": given.width, "theme": given.theme, "height": given.height}
            seen = board.look(program, picture=picture, **how)
            _squeeze(picture)
            size = picture.stat().st_size
            print(f"{picture}: {seen.panels} panels after {seen.seconds:.1f} s, {size / 1000:.0f} kB")
            for words in [
                *seen.wrong,
                *([f"it is larger than {MOST_BYTES / 1000:.0f} kB"] if size > MOST_BYTES else []),
            ]:
                print(f"  {words}", file=sys.stderr)
                failed = True
    return int(failed)


def _squeeze(picture: Path) -> None:
    """Reduce the colours to a palette of 256."""
    with Image.open(picture) as full:
        small = full.convert("RGB").quantize(256)
    small.save(picture, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
