"""Fixtures of tests that need an InfluxDB with something in it."""

from __future__ import annotations

import pytest

from tests.support.houses import fill
from tests.support.influx_server import Influx, Store


@pytest.fixture(scope="session")
def simulated(shared_influx: Influx) -> Store:
    """A database with two months of every house of tests/support/houses.py; read it only."""
    store = Store(shared_influx)
    fill(store)
    return store
