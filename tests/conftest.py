"""Fixtures of the tests that need a real InfluxDB."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.influx_server import Influx, Store, serve


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
