"""Unbalance, fuse load and power factor, compared with calculations by hand."""

from __future__ import annotations

import pytest

from exporter.derive.phases import unbalance
from exporter.model.obis import ObisCode
from exporter.model.reading import Measurement, Meter, Reading
from tests.support.phases import current_unbalance, fuse_load, power_factors, voltage_unbalance


def reading(**values: float) -> Reading:
    """`P`, `P_out`, `Q`, `Q_out` and `PF` of the total; with 1, 2 or 3 after it, of a phase; I1 to I3, U1 to U3."""
    groups = {"P": (1, "W"), "P_out": (2, "W"), "Q": (3, "var"), "Q_out": (4, "var"), "PF": (13, "1")}
    groups |= {"I": (11, "A"), "U": (12, "V")}
    found = []
    for name, value in values.items():
        phase = int(name[-1]) if name[-1].isdigit() else 0
        c, unit = groups[name.rstrip("123")]
        found.append(Measurement(ObisCode(1, 0, c + 20 * phase, 7, 0), value, unit))
    return Reading(Meter("m"), None, tuple(found))


def test_unbalance_by_hand() -> None:
    assert unbalance([20, 16, 9]) == pytest.approx(40)  # mean 15; 9 differs most, by 6: 6 / 15
    assert unbalance([230, 232, 225]) == pytest.approx(100 * 4 / 229)
    assert unbalance([10, 6]) == pytest.approx(25)  # mean 8, by 2
    assert unbalance([7, 7, 7]) == 0
    assert unbalance([9, 0, 0]) == pytest.approx(200)  # mean 3, by 6


@pytest.mark.parametrize("values", [[], [5], [0, 0, 0], [3, -3]])
def test_no_unbalance_of_one_value_or_of_a_mean_of_0(values: list[float]) -> None:
    assert unbalance(values) is None


def test_current_unbalance_and_fuse_load_of_20_16_and_9_ampere() -> None:
    house = reading(I1=20, I2=16, I3=9, U1=230, U2=230, U3=230)
    assert current_unbalance(house) == pytest.approx(40)
    assert voltage_unbalance(house) == 0
    assert fuse_load(house, 25) == pytest.approx({"L1": 80, "L2": 64, "L3": 36})


def test_the_sign_of_a_current_is_ignored() -> None:
    """Some meters send the current of a phase that exports with a minus."""
    house = reading(I1=-20, I2=16, I3=-9)
    assert current_unbalance(house) == pytest.approx(40)
    assert fuse_load(house, 25) == pytest.approx({"L1": 80, "L2": 64, "L3": 36})


def test_an_it_net_with_two_measured_currents_has_two_fuse_loads() -> None:
    house = reading(I1=12, I3=8, U1=231, U3=229)
    assert current_unbalance(house) == pytest.approx(20)  # mean 10, by 2
    assert voltage_unbalance(house) == pytest.approx(100 / 230)
    assert list(fuse_load(house, 40)) == ["L1", "L3"]


def test_one_phase_has_no_unbalance() -> None:
    house = reading(I1=12, U1=231)
    assert current_unbalance(house) is None
    assert voltage_unbalance(house) is None
    assert fuse_load(house, 40) == pytest.approx({"L1": 30})


def test_no_unbalance_below_a_mean_of_one_ampere() -> None:
    assert current_unbalance(reading(I1=1.9, I2=0.5, I3=0.5)) is None  # mean 0.967
    assert current_unbalance(reading(I1=2.0, I2=0.5, I3=0.5)) == pytest.approx(100)  # mean 1


def test_a_reading_without_phases_gives_nothing() -> None:
    aidon_list_1 = reading(P=1362)
    assert current_unbalance(aidon_list_1) is None
    assert voltage_unbalance(aidon_list_1) is None
    assert fuse_load(aidon_list_1, 25) == {}
    assert power_factors(aidon_list_1) == {}


# Power factor


def test_power_factor_by_hand() -> None:
    assert power_factors(reading(P=300, P_out=0, Q=400, Q_out=0)) == pytest.approx({"": 0.6})  # S 500


def test_power_factor_of_the_net_of_import_and_export() -> None:
    sun = reading(P=0, P_out=1200, Q=100, Q_out=600)  # P -1200, Q -500, S 1300
    assert power_factors(sun) == pytest.approx({"": 12 / 13})


def test_power_factor_by_phase_where_both_powers_are_sent() -> None:
    swedish = reading(P=900, Q=0, P1=300, Q1=400, P2=500, P_out2=0, Q2=0, Q_out2=0, P3=100)
    assert power_factors(swedish) == pytest.approx({"": 1, "L1": 0.6, "L2": 1})


def test_no_power_factor_is_calculated_if_the_meter_sends_it() -> None:
    assert power_factors(reading(P=300, Q=400, PF=0.61)) == {}
    assert power_factors(reading(P=300, Q=400, P1=300, Q1=400, PF1=0.61)) == pytest.approx({"": 0.6})


def test_power_is_never_calculated_from_voltage_and_current() -> None:
    assert power_factors(reading(Q=400, Q1=400, U1=230, I1=2)) == {}


def test_no_power_has_no_power_factor() -> None:
    assert power_factors(reading(P=0, P_out=0, Q=0, Q_out=0)) == {}
    assert power_factors(reading(P=0, Q=50)) == {"": 0}


def test_a_value_with_another_unit_than_the_catalogues_is_not_a_current() -> None:
    odd = Reading(Meter("m"), None, (Measurement(ObisCode(1, 0, 31, 7, 0), 20, "V"),))
    assert fuse_load(odd, 25) == {}
