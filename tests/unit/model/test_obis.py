"""OBIS codes as text and as bytes, and what the catalogue says about them."""

from __future__ import annotations

import pytest

from exporter.model.obis import ObisCode, Quantity, describe


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1-0:1.7.0", ObisCode(1, 0, 1, 7, 0)),
        ("1-1:96.1.1", ObisCode(1, 1, 96, 1, 1)),
        ("1-0:1.8.0*101", ObisCode(1, 0, 1, 8, 0, 101)),
        ("0-0:255.255.255*0", ObisCode(0, 0, 255, 255, 255, 0)),
    ],
)
def test_a_code_is_read_and_written(text: str, code: ObisCode) -> None:
    assert ObisCode.parse(text) == code == ObisCode.from_bytes(bytes(code))
    assert str(code) == text


def test_group_f_of_a_present_value_is_optional_and_may_follow_a_full_stop() -> None:
    assert ObisCode.parse("1-0:1.7.0*255") == ObisCode.parse("1-0:1.7.0.255") == ObisCode(1, 0, 1, 7, 0)
    assert str(ObisCode(1, 0, 1, 7, 0, 255)) == "1-0:1.7.0"


@pytest.mark.parametrize("text", ["", "1.7.0", "1-0:1.7", "1-0:1.7.0*", "1-0:1.7.256", "999-0:1.7.0", " 1-0:1.7.0"])
def test_any_other_text_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(ValueError) as error:
        ObisCode.parse(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("data", [b"", b"\x01\x00\x01\x07\x00", bytes(7)])
def test_a_code_has_six_bytes(data: bytes) -> None:
    with pytest.raises(ValueError, match=str(len(data))):
        ObisCode.from_bytes(data)


@pytest.mark.parametrize(
    ("text", "quantity"),
    [
        ("1-0:1.7.0", ("active_power", "W", "", "import")),
        ("1-1:2.7.0", ("active_power", "W", "", "export")),
        ("1-0:3.7.0", ("reactive_power", "var", "", "import")),
        ("1-0:24.7.0", ("reactive_power", "var", "L1", "export")),
        ("1-0:29.7.0", ("apparent_power", "VA", "L1", "import")),
        ("1-0:31.7.0", ("current", "A", "L1", "")),
        ("1-0:52.7.0", ("voltage", "V", "L2", "")),
        ("1-0:73.7.0", ("power_factor", "1", "L3", "")),
        ("1-0:14.7.0", ("frequency", "Hz", "", "")),
        ("1-0:1.8.0", ("active_energy", "Wh", "", "import")),
        ("1-0:1.8.2", ("active_energy", "Wh", "", "import")),
        ("1-0:64.8.0", ("reactive_energy", "varh", "L3", "export")),
    ],
)
def test_what_a_code_measures(text: str, quantity: tuple[str, str, str, str]) -> None:
    found = describe(ObisCode.parse(text))
    assert found is not None
    assert (found.name, found.unit, found.phase, found.direction) == quantity
    assert found.is_register == (".8." in text)
    assert found.title


@pytest.mark.parametrize(
    "text",
    ["0-0:1.7.0", "1-0:1.7.0*101", "1-0:1.7.1", "1-0:11.7.0", "1-0:12.7.0", "1-0:34.7.0", "1-0:1.6.0", "1-0:99.7.0"],
)
def test_a_code_that_is_not_in_the_catalogue(text: str) -> None:
    assert describe(ObisCode.parse(text)) is None


def test_titles_are_for_one_code_each() -> None:
    found: dict[str, Quantity] = {}
    for c in range(256):
        for d in (7, 8):
            quantity = describe(ObisCode(1, 0, c, d, 0))
            if quantity is not None:
                assert quantity.title not in found
                found[quantity.title] = quantity
    assert len(found) == 4 * 13 + 3 * 2 + 1
