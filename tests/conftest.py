"""What holds for every test: how properties are tried, what is rare, and the fixtures of a real InfluxDB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from exporter.simulator import meter
from exporter.simulator.household import Household
from tests.support.examples import RARE, use_profile
from tests.support.influx_server import Influx, Store, serve
from tests.support.years import shared_household

use_profile()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose what is rare, or what is not. In the rare group every property comes again, and what has a longer form."""
    chosen: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        is_property = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if RARE and (is_property or item.get_closest_marker("longer")):
            item.add_marker(pytest.mark.rare)
        (chosen if (item.get_closest_marker("rare") is not None) == RARE else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = chosen


@pytest.fixture(scope="session", autouse=True)
def one_household_for_all() -> Iterator[None]:
    """Simulated meters of the same kind share a household, which adds up the years before only once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meter, "Household", shared_household)
        yield


def _serve(tmp_path_factory: pytest.TempPathFactory) -> Influx:
    try:
        return serve(tmp_path_factory.mktemp("influxd"))
    except LookupError as missing:
        pytest.fail(str(missing))


@pytest.fixture
def influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    """A real InfluxDB with an empty database, which the test may stop and start."""
    server = _serve(tmp_path_factory)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shared_influx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Influx]:
    """A real InfluxDB that is never stopped: ask for a `store` in it."""
    server = _serve(tmp_path_factory)
    yield server
    server.stop()


@pytest.fixture
def store(shared_influx: Influx) -> Store:
    """An empty database in an InfluxDB that other tests use too."""
    return Store(shared_influx)


@pytest.fixture
def own_households(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each simulated meter has a household of its own, as after a restart."""
    monkeypatch.setattr(meter, "Household", Household)
