"""Dashboards in a real browser: opens them, waits until they are complete, and finds panels with an error.

Needs playwright (`pip install -e '.[browser]'`) and a Chromium or Chrome.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from playwright.sync_api import Browser, FloatRect, Page, Request, Response, ViewportSize, sync_playwright

ROW: Final = 38
"""Pixels of a row of Grafana's grid, including the gap below it."""
_PHONE: Final = 769
"""With fewer pixels of width, Grafana puts every panel below the one before."""
_QUIET_S: Final = 1.0
_PATIENCE_S: Final = 60.0
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# What is drawn, what still loads, and which panels show an error: selectors of Grafana 9.3, then of 10 to 12.
_STATE: Final = """() => {
  const panelOf = e => { const p = e.closest('[data-panelid], [data-viz-panel-key]');
                         return p ? (p.dataset.panelid || p.dataset.vizPanelKey) : '?'; };
  const all = s => [...document.querySelectorAll(s)];
  const NOTHING = /(^|\\n)\\s*(No data|no reading|Data is missing|Data does not|No numeric)/;
  const BROKEN = /(^|\\n)\\s*(Panel plugin not found|Plugin not found|Error loading|Unable to)/;
  const panels = all('[data-panelid], [data-viz-panel-key]');
  return {
    panels: panels.length,
    drawn: all('canvas, svg, table, [role=table], [data-testid*="Bar gauge"]').filter(e => panelOf(e) !== '?').length,
    loading: all('.panel-loading__spinner, [aria-label="Panel loading bar"]').length,
    errors: all('.panel-info-corner--error, [aria-label="Panel status"], [data-testid*="Panel status error"]')
      .concat(panels.filter(p => BROKEN.test(p.innerText))).map(panelOf),
    empty: panels.filter(p => NOTHING.test(p.innerText)).map(panelOf),
    bottom: Math.max(0, ...panels.map(p => p.getBoundingClientRect().bottom)),
    higher: Math.max(0, ...all('.scrollbar-view, .view, #page-scrollbar').map(e => e.scrollHeight - e.clientHeight)),
  };
}"""


@dataclass
class Seen:
    """A dashboard as it was shown: what is wrong, as text, and the titles of the panels that have no data."""

    wrong: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    panels: int = 0
    seconds: float = 0.0


def find_chromium() -> str | None:
    """The program: HAN_TEST_CHROMIUM, or a Chromium or Chrome on PATH; None if there is none."""
    given = os.environ.get("HAN_TEST_CHROMIUM")
    return given or next((found for name in _NAMES if (found := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser without a window. Raises LookupError if there is no browser."""
    program = find_chromium()
    if program is None:
        raise LookupError("no browser found: install chromium, or set HAN_TEST_CHROMIUM to one")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--disable-gpu"])
        try:
            yield found
        finally:
            found.close()


class Dashboard:
    """One dashboard of the Grafana at `base`, as a visitor sees it."""

    def __init__(self, base: str, uid: str) -> None:
        self.base = base.rstrip("/")
        with urllib.request.urlopen(f"{self.base}/api/dashboards/uid/{uid}", timeout=30) as answer:
            content = json.load(answer)
        self.path = str(content["meta"]["url"])
        self.board: Mapping[str, Any] = content["dashboard"]
        self.titles = {str(panel["id"]): str(panel["title"]) for panel in self.board["panels"]}

    def look(
        self,
        browser: Browser,
        *,
        meter: str = "",
        width: int = 1400,
        theme: str = "dark",
        picture: Path | None = None,
        height: int = 0,
    ) -> Seen:
        """Show it for one meter until all panels are complete. `picture` is written as PNG, cut at `height` if set."""
        places = [panel["gridPos"] for panel in self.board["panels"]]
        rows = sum(at["h"] for at in places) if width < _PHONE else max(at["y"] + at["h"] for at in places)
        context = browser.new_context(viewport={"width": width, "height": rows * ROW + 80}, reduced_motion="reduce")
        try:
            page = context.new_page()
            query = {"orgId": "1", "theme": theme} | ({"var-meter": meter} if meter else {})
            return _Visit(page, self.titles).go(f"{self.base}{self.path}?{urlencode(query)}&kiosk", picture, height)
        finally:
            context.close()


class _Visit:
    """A page that is loading, with the requests that it makes."""

    def __init__(self, page: Page, titles: Mapping[str, str]) -> None:
        self._page, self._titles = page, titles
        self._open: set[Request] = set()
        self._answers: list[Response] = []
        self._failures: list[str] = []
        page.on("request", self._started)
        page.on("requestfinished", self._ended)
        page.on("requestfailed", self._ended)
        page.on("response", self._got)
        page.on("pageerror", lambda error: self._failures.append(f"the page fails: {error}"))

    def _started(self, request: Request) -> None:
        if "/api/ds/query" in request.url or "/api/datasources/" in request.url:
            self._open.add(request)

    def _ended(self, request: Request) -> None:
        self._open.discard(request)

    def _got(self, answer: Response) -> None:
        self._answers.append(answer)  # its body cannot be read in this callback

    def go(self, url: str, picture: Path | None, height: int) -> Seen:
        begun = time.monotonic()
        self._page.goto(url, wait_until="domcontentloaded")
        state = self._until_quiet()
        seen = Seen(self._failures, panels=state["panels"], seconds=time.monotonic() - begun - _QUIET_S)
        for answer in self._answers:
            seen.wrong += _errors(answer)
        seen.wrong += [f"panel {self._title(panel)} has an error" for panel in state["errors"]]
        seen.empty = [self._title(panel) for panel in state["empty"]]
        if state["panels"] < len(self._titles):
            seen.wrong.append(f"{state['panels']} of {len(self._titles)} panels are shown")
        if picture is not None:
            self._picture(picture, height or round(state["bottom"]) + 8)
        return seen

    @property
    def _size(self) -> ViewportSize:
        size = self._page.viewport_size
        assert size is not None, "the context has one"
        return size

    def _until_quiet(self) -> dict[str, Any]:
        """Wait until nothing is loaded or drawn any more; make the page as high as the dashboard."""
        since: float | None = None
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            self._page.wait_for_timeout(100)
            state: dict[str, Any] = self._page.evaluate(_STATE)
            if state["higher"] > 8 and state["drawn"]:
                size = self._size
                self._page.set_viewport_size({"width": size["width"], "height": size["height"] + state["higher"]})
                since = None
            elif self._open or state["loading"] or not state["drawn"]:
                since = None
            elif since is None:
                since = time.monotonic()
            elif time.monotonic() - since >= _QUIET_S:
                return state
        raise TimeoutError(f"{self._page.url} still loads after {_PATIENCE_S:g} s")

    def _title(self, panel: str) -> str:
        number = panel.removeprefix("panel-")
        return self._titles.get(number, number)

    def _picture(self, picture: Path, height: int) -> None:
        size = self._size
        self._page.mouse.move(size["width"] - 1, 1)
        clip = FloatRect(x=0, y=0, width=size["width"], height=min(size["height"], height))
        self._page.screenshot(path=picture, clip=clip)


def _errors(answer: Response) -> list[str]:
    """The errors in the answer to a query."""
    if "/api/" not in answer.url:
        return []
    if answer.status >= 400:
        return [f"{answer.status} {answer.url}"]
    if "query" not in answer.url:
        return []
    content = answer.json()
    results = content.get("results", []) if isinstance(content, dict) else []
    each = results.values() if isinstance(results, dict) else results
    return [f"{one['error']} {answer.url}" for one in each if isinstance(one, dict) and one.get("error")]
