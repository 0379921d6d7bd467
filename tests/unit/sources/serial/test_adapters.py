"""Which adapter a name means, and its new name when the kernel has given it another number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import serial
from serial.tools import list_ports

from exporter.sources.contract import Happened
from exporter.sources.serial import adapters
from exporter.sources.serial.adapters import AdapterFollower, serial_ports, stable_path
from tests.unit.sources.serial.test_serial_port import World, gone

ZERO, ONE, TWO = (f"/dev/ttyUSB{n}" for n in range(3))


@dataclass
class Usb:
    """What pyserial says about a port."""

    device: str
    serial_number: str | None = "A50285BI"
    location: str = "1-1.4"
    vid: int | None = 0x0403
    pid: int | None = 0x6001
    description: str = "FT232R"


def follower(path: str, *before: Usb) -> tuple[AdapterFollower, Callable[..., str | None]]:
    """A follower that read `path` while `before` were plugged in, and a function for what it says with others."""
    present: list[Usb] = list(before)
    found = AdapterFollower(path, lambda: present)
    found.opened(path)

    def look(*now: Usb) -> str | None:
        present[:] = now
        return found.new_path()

    return found, look


def test_an_adapter_is_followed_by_its_serial_number() -> None:
    _, look = follower(ZERO, Usb(ZERO))
    assert look(Usb(ONE, location="1-1.2")) == ONE, "even into another socket"
    assert look(Usb(ZERO)) is None, "back under its configured name"
    assert look() is None
    assert look(Usb(ONE, serial_number="B7")) is None, "another adapter"


def test_an_adapter_without_a_serial_number_is_followed_only_in_its_socket() -> None:
    _, look = follower(ZERO, Usb(ZERO, None), Usb(ONE, None, "1-1.2"))
    assert look(Usb(TWO, None), Usb(ONE, None, "1-1.2")) == TWO
    assert look(Usb(ONE, None, "1-1.2")) is None, "that is the other one"
    assert look(Usb(TWO, None, "1-1.3")) is None


def test_names_that_were_exchanged() -> None:
    _, look = follower(ZERO, Usb(ZERO, "A"), Usb(ONE, "B"))
    assert look(Usb(ZERO, "B"), Usb(ONE, "A")) == ONE


def test_equal_adapters_are_not_followed() -> None:
    _, look = follower(ZERO, Usb(ZERO, "0000"), Usb(ONE, "0000", "1-1.2"))
    assert look(Usb(TWO, "0000")) is None
    _, look = follower(ZERO, Usb(ZERO, "0000"))
    assert look(Usb(ONE, "0000"), Usb(TWO, "0000", "1-1.2")) is None


def test_the_ports_of_one_adapter_are_distinguished() -> None:
    four = [Usb(f"/dev/ttyUSB{n}", location=f"1-1.4:1.{n}") for n in range(4)]
    _, look = follower(TWO, *four)
    assert look(*(Usb(f"/dev/ttyUSB{n + 4}", location=f"1-1.4:1.{n}") for n in range(4))) == "/dev/ttyUSB6"


@pytest.mark.parametrize("path", ["/dev/serial/by-id/usb-x", "/dev/ttyAMA0", "/dev/ttyS0", "/dev/ttyMETER", None])
def test_only_names_that_the_kernel_numbers_are_followed(path: str | None) -> None:
    present = [Usb(str(path))]
    found = AdapterFollower(path, lambda: present)
    found.opened(str(path))
    present[:] = [Usb(ONE)]
    assert found.new_path() is None


def test_a_port_that_is_not_usb_is_not_followed() -> None:
    _, look = follower(ZERO, Usb(ZERO, vid=None, pid=None))
    assert look(Usb(ONE)) is None


def test_an_adapter_that_is_unplugged_while_the_list_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_name_that_does_not_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device, by_id = tmp_path / "ttyUSB1", tmp_path / "by-id"
    device.touch()
    monkeypatch.setattr(adapters, "_BY_ID", by_id)
    assert stable_path(str(device)) is None
    by_id.mkdir()
    (by_id / "usb-FTDI").symlink_to(device)
    assert stable_path(str(device)) == str(by_id / "usb-FTDI")
    assert stable_path(str(by_id / "usb-FTDI")) is None
    assert stable_path(None) is None


def test_a_source_follows_its_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    present = [Usb(ZERO)]
    monkeypatch.setattr(list_ports, "comports", lambda: list(present))
    world = World([b"a", serial.SerialException("device reports readiness to read but returned no data")], [b"b"])
    opened = world.open

    def opener(address: str, **settings: object) -> object:
        if len(world.opened) == 1:
            present[:] = [Usb(ONE)]
        return opened(address, **settings)

    world.open = opener  # type: ignore[method-assign,assignment]
    world.script.insert(1, gone())
    assert len(world.run(ZERO)) == 2
    assert [each["address"] for each in world.opened[:3]] == [ZERO, ZERO, ONE]
    assert world.reported == [Happened.OPENED, Happened.LOST, Happened.MISSING, Happened.OPENED]
    assert f"{ONE} (2400 8N1)" in world.events[-1].message
    assert ZERO in world.events[-1].message
