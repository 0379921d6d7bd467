"""Fixtures of the end-to-end tests; the minute in real time begins first and goes on behind the others."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.alerting import Webhook
from tests.e2e.harness import Home, Meter
from tests.e2e.minute import Minute
from tests.e2e.overload import Overload
from tests.support.grafana_server import find_grafana

IN_REAL_TIME = "test_in_real_time.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for the minute comes last of all, so that the minute costs (nearly) no time."""
    items.sort(key=lambda item: item.path.name == IN_REAL_TIME)


@pytest.fixture(scope="session", autouse=True)
def minute(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Minute]:
    """What takes a minute, begun with the first end-to-end test, if a test will ask for it."""
    going_on = Minute(tmp_path_factory)
    if any(item.path.name == IN_REAL_TIME for item in request.session.items):
        going_on.begin()
    yield going_on
    going_on.end()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A user of the command."""
    made = Home(tmp_path)
    yield made
    made.end()


@pytest.fixture
def plug(tmp_path: Path) -> Iterator[Callable[[str], Meter]]:
    """Gives a meter on a port of some name."""
    made: list[Meter] = []

    def plug(name: str) -> Meter:
        made.append(Meter(tmp_path / name))
        return made[-1]

    yield plug
    for meter in made:
        meter.unplug()


@pytest.fixture
def meter(plug: Callable[[str], Meter]) -> Meter:
    """A meter on a port called ttyHAN0."""
    return plug("ttyHAN0")


@pytest.fixture
def mark() -> str:
    """Six digits for ids of this test's own."""
    return f"{secrets.randbelow(10**6):06d}"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """Something that alerts can be sent to."""
    made = Webhook()
    yield made
    made.close()


@pytest.fixture(scope="session")
def overload(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Overload]:
    """The simulator's overload, begun with the first test that asks for it."""
    home = find_grafana()
    assert home is not None
    going_on = Overload(home, tmp_path_factory.mktemp("overload"))
    yield going_on
    going_on.close()
