"""The simulator's encoder against frames that it did not make: what they say, encoded again, gives their bytes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from exporter.meters import OSLO
from exporter.simulator import aidon, kaifa, kamstrup
from exporter.simulator.encoder import local_clock, standard_time
from exporter.simulator.sample import Flows, Identity, PerPhase, Sample
from tests.support import real_captures
from tests.support.expected_rows import row_of_frame
from tests.support.made_captures import MADE, kamstrup_10s

Row = dict[str, Any]

# The example of Aidon's document v1.1A.
AIDON_LIST_2 = (
    "7ea0d24108831382d6e6e7000f40000000000109020209060101000281ff0a0b4149444f4e5f563030303102020906000060"
    "0100ff0a1037333539393932383930393431373432020209060000600107ff0a0436353135020309060100010700ff060000"
    "055202020f00161b020309060100020700ff060000000002020f00161b020309060100030700ff06000003e402020f00161d"
    "020309060100040700ff060000000002020f00161d0203090601001f0700ff10005d02020fff1621020309060100200700ff"
    "1209c402020fff1623e0c47e"
)


FLOWS = ("active_{}_import", "active_{}_export", "reactive_{}_import", "reactive_{}_export")


def flows(row: Row, kind: str, phase: str = "") -> Flows:
    return Flows(*(row[flow.format(kind) + phase] for flow in FLOWS))


def per_phase(row: Row, key: str) -> PerPhase:
    return row.get(f"{key}_l1"), row.get(f"{key}_l2"), row.get(f"{key}_l3")


def sample_of(row: Row) -> Sample:
    """The values of a row of expected.json that has more than power alone."""
    phases = None
    if "active_power_import_l1" in row:
        phases = (flows(row, "power", "_l1"), flows(row, "power", "_l2"), flows(row, "power", "_l3"))
    registers = flows(row, "energy") if "active_energy_import" in row else None
    return Sample(flows(row, "power"), per_phase(row, "current"), per_phase(row, "voltage"), phases, registers)


def encoded(name: str, row: Row) -> bytes:
    """The frame that the encoder of a capture's maker makes of a row."""
    maker = name.partition("-")[0]
    meter = Identity(str(row.get("meter_id", "")).encode(), str(row.get("meter_type", "")).encode())
    at = datetime.fromisoformat(row.get("clock_utc", "1970-01-01T00:00:00Z"))
    if "active_power_export" not in row:
        alone = Sample(Flows(row["active_power_import"], 0, 0, 0))
        return kaifa.list1(alone, kaifa.clock(at, OSLO)) if maker == "kaifa" else aidon.list1(alone)
    sample = sample_of(row)
    if maker == "kamstrup":
        encode = kamstrup.list1 if sample.registers is None else kamstrup.hourly
        return encode(meter, sample, kamstrup.clock(at, OSLO))
    if maker == "kaifa":
        return kaifa.list2(meter, sample, kaifa.clock(at, OSLO))
    if maker == "landisgyr":
        (i1, _, i3), (u1, _, u3) = sample.currents, sample.voltages
        zeros = Sample(sample.power, (i1, 0, i3), (u1, 0, u3))
        return aidon.list2(Identity(meter.id.ljust(16, b"\0"), meter.type.ljust(4, b"\0")), zeros, aidon.E350)
    if name.endswith("sweden"):
        return aidon.swedish(sample, replace(local_clock(standard_time(at, OSLO), deviation=None), status=None))
    return aidon.list3(meter, sample, aidon.clock(at, OSLO))


@pytest.mark.parametrize("name", sorted(MADE))
def test_what_a_made_frame_says_gives_its_bytes(name: str) -> None:
    for data, row in MADE[name].frames:
        assert encoded(name, row).hex() == data.hex()


@real_captures.needed
@pytest.mark.parametrize("name", real_captures.names())
def test_what_a_real_frame_says_gives_its_bytes(name: str) -> None:
    for data, row in zip(real_captures.frames_of(name), real_captures.expected()[name], strict=True):
        assert encoded(name, row).hex() == data.hex()


def test_a_10s_list_of_three_phases() -> None:
    made = kamstrup_10s()
    assert encoded("kamstrup", made.row) == made.frame


@real_captures.needed
def test_the_list_whose_owner_hid_the_id() -> None:
    data = real_captures.list_with_hidden_id("5706567000000000")
    assert encoded("kamstrup", row_of_frame(data)) == data


def test_the_example_of_aidon_s_document() -> None:
    power = Flows(1362, 0, 996, 0)
    meter = Identity(b"7359992890941742", b"6515")
    assert aidon.list2(meter, Sample(power, (9.3, None, None), (250.0, None, None))).hex() == AIDON_LIST_2
