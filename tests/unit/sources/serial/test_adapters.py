"""Which adapter a name means, and where it is when the kernel has given it another number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import serial
from serial.tools import list_ports

from exporter.sources.contract import Happened
from exporter.sources.serial import adapters
from exporter.sources.serial.adapters import Whereabouts, serial_ports, stable_path
from tests.unit.sources.serial.test_serial_port import World, gone

ZERO, ONE, TWO = (f"/dev/ttyUSB{n}" for n in range(3))


@dataclass
class Usb:
    """What pyserial says of a port."""

    device: str
    serial_number: str | None = "A50285BI"
    location: str = "1-1.4"
    vid: int | None = 0x0403
    pid: int | None = 0x6001
    description: str = "FT232R"


def whereabouts(path: str, *before: Usb) -> tuple[Whereabouts, Callable[..., str | None]]:
    """One that has read `path` while those were there; and what it says when others are there."""
    there: list[Usb] = list(before)
    found = Whereabouts(path, lambda: there)
    found.opened(path)

    def look(*now: Usb) -> str | None:
        there[:] = now
        return found.look()

    return found, look


def test_an_adapter_is_followed_by_its_serial_number() -> None:
    _, look = whereabouts(ZERO, Usb(ZERO))
    assert look(Usb(ONE, location="1-1.2")) == ONE, "even into another socket"
    assert look(Usb(ZERO)) is None, "back under its own name"
    assert look() is None
    assert look(Usb(ONE, serial_number="B7")) is None, "another adapter"


def test_one_without_a_serial_number_is_followed_in_its_socket_only() -> None:
    _, look = whereabouts(ZERO, Usb(ZERO, None), Usb(ONE, None, "1-1.2"))
    assert look(Usb(TWO, None), Usb(ONE, None, "1-1.2")) == TWO
    assert look(Usb(ONE, None, "1-1.2")) is None, "that is the other one"
    assert look(Usb(TWO, None, "1-1.3")) is None


def test_names_that_were_exchanged() -> None:
    _, look = whereabouts(ZERO, Usb(ZERO, "A"), Usb(ONE, "B"))
    assert look(Usb(ZERO, "B"), Usb(ONE, "A")) == ONE


def test_what_cannot_be_told_apart_is_not_followed() -> None:
    _, look = whereabouts(ZERO, Usb(ZERO, "0000"), Usb(ONE, "0000", "1-1.2"))
    assert look(Usb(TWO, "0000")) is None
    _, look = whereabouts(ZERO, Usb(ZERO, "0000"))
    assert look(Usb(ONE, "0000"), Usb(TWO, "0000", "1-1.2")) is None


def test_the_ports_of_one_adapter_are_told_apart() -> None:
    four = [Usb(f"/dev/ttyUSB{n}", location=f"1-1.4:1.{n}") for n in range(4)]
    _, look = whereabouts(TWO, *four)
    assert look(*(Usb(f"/dev/ttyUSB{n + 4}", location=f"1-1.4:1.{n}") for n in range(4))) == "/dev/ttyUSB6"


@pytest.mark.parametrize("path", ["/dev/serial/by-id/usb-x", "/dev/ttyAMA0", "/dev/ttyS0", "/dev/ttyMETER", None])
def test_only_names_that_the_kernel_numbers_are_followed(path: str | None) -> None:
    there = [Usb(str(path))]
    found = Whereabouts(path, lambda: there)
    found.opened(str(path))
    there[:] = [Usb(ONE)]
    assert found.look() is None


def test_a_port_that_is_no_usb_is_not_followed() -> None:
    _, look = whereabouts(ZERO, Usb(ZERO, vid=None, pid=None))
    assert look(Usb(ONE)) is None


def test_pulled_out_while_the_list_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Exception | list[Usb]] = [
        TypeError("int() argument must be a string, not 'NoneType'"),
        [Usb(ONE), Usb("/dev/ttyS0", vid=None), Usb(ZERO)],
        OSError(19, "No such device"),
        TypeError("again"),
    ]

    def comports() -> list[Usb]:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(list_ports, "comports", comports)
    assert [port.device for port in serial_ports()] == [ZERO, ONE, "/dev/ttyS0"]
    assert serial_ports() == []


def test_the_name_that_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device, by_id = tmp_path / "ttyUSB1", tmp_path / "by-id"
    device.touch()
    monkeypatch.setattr(adapters, "_BY_ID", by_id)
    assert stable_path(str(device)) is None
    by_id.mkdir()
    (by_id / "usb-FTDI").symlink_to(device)
    assert stable_path(str(device)) == str(by_id / "usb-FTDI")
    assert stable_path(str(by_id / "usb-FTDI")) is None
    assert stable_path(None) is None


def test_a_source_goes_on_where_its_adapter_is(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [Usb(ZERO)]
    monkeypatch.setattr(list_ports, "comports", lambda: list(there))
    world = World([b"a", serial.SerialException("device reports readiness to read but returned no data")], [b"b"])
    opened = world.open

    def opener(address: str, **settings: object) -> object:
        if len(world.opened) == 1:
            there[:] = [Usb(ONE)]
        return opened(address, **settings)

    world.open = opener  # type: ignore[method-assign,assignment]
    world.script.insert(1, gone())
    assert len(world.run(ZERO)) == 2
    assert [each["address"] for each in world.opened[:3]] == [ZERO, ZERO, ONE]
    assert world.told == [Happened.OPENED, Happened.LOST, Happened.MISSING, Happened.OPENED]
    assert world.events[-1].words == (
        f"{ONE} (2400 8N1) is open, waiting for the meter; this is the adapter that was {ZERO}: "
        f"after a restart it is looked for as {ZERO}"
    )
