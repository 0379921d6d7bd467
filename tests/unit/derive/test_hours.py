"""The book of hour registers: what gives an hour, what does not, and that two writers lose nothing."""

from __future__ import annotations

import logging
from itertools import permutations
from pathlib import Path

import pytest

from exporter.derive.hours import HourBook, most_wh
from exporter.outbox.queue import Outbox
from exporter.outbox.shared_state import SharedState

HOUR = 3_600_000
T = 1_767_225_600_000  # 2026-01-01 00:00 UTC
FUSE = 40.0


class Book:
    """A book with a state. A restart is a new process with the same state."""

    def __init__(self, state: dict[str, str] | None = None, *, imported: bool = False) -> None:
        self.state = {} if state is None else state
        self.imported = imported
        self.finals: dict[int, float] = {}
        self.restart()

    def restart(self) -> None:
        self.book = HourBook(self.state.get, imported=self.imported)

    def enter(self, hour: int, value: float) -> None:
        found = self.book.enter("A", "import", T + hour * HOUR, value, FUSE)
        self.finals |= {(start - T) // HOUR: wh for start, wh in found.items()}

    def keep(self) -> None:
        self.state |= self.book.new_state()
        self.book.kept()

    def known(self) -> dict[int, float]:
        found = self.book.finals("A", "import", T - 100 * HOUR, T + 2000 * HOUR, FUSE)
        return {(start - T) // HOUR: wh for start, wh in found.items()}


REGISTERS = {0: 1000.0, 1: 1500.0, 2: 2600.0, 3: 2600.0, 5: 4000.0, 6: 4100.0}
HOURS = {0: 500.0, 1: 1100.0, 2: 0.0, 5: 100.0}


def entered(*registers: tuple[int, float], restart_before: int | None = None, keep: bool = True) -> Book:
    book = Book()
    for number, (hour, value) in enumerate(registers):
        if number == restart_before:
            book.restart()
        book.enter(hour, value)
        if keep:
            book.keep()
    return book


def test_an_hour_is_the_difference_of_two_registers_one_hour_apart() -> None:
    book = entered(*REGISTERS.items())
    assert book.finals == HOURS == book.known()


@pytest.mark.parametrize("keep", [True, False])
def test_the_order_of_registers_makes_no_difference(keep: bool) -> None:
    for order in permutations(REGISTERS.items()):
        assert entered(*order, keep=keep).finals == HOURS


def test_hours_before_and_after_the_end_of_a_month() -> None:
    book = entered((743, 100.0), (744, 250.0), (745, 300.0))
    assert len(book.state) == 2
    assert book.finals == {743: 150.0, 744: 50.0}


STRANGE = {
    "falls": ([(0, 1000.0), (1, 900.0), (2, 1100.0), (3, 1200.0)], {2: 100.0}),
    "jumps": ([(0, 1000.0), (1, 5e7), (2, 1100.0), (3, 1200.0)], {2: 100.0}),
    "set back": ([(0, 5e6), (1, 20.0), (2, 300.0), (3, 500.0)], {2: 200.0}),
    "set back to 0": ([(0, 5e6), (1, 5e6), (2, 0.0), (3, 0.0), (4, 90.0)], {0: 0.0, 3: 90.0}),
    "exchanged": ([(0, 1000.0), (2, 8e7), (3, 8e7 + 400), (4, 8e7 + 900)], {3: 500.0}),
    "falls twice": ([(0, 1000.0), (1, 900.0), (2, 10.0), (3, 20.0), (4, 40.0)], {3: 20.0}),
    "begins again at 10^9": (
        [(0, 999_999_000.0), (1, 999_999_900.0), (2, 800.0), (3, 1700.0), (4, 2000.0)],
        {0: 900.0, 3: 300.0},
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_an_impossible_register_starts_no_hour_wherever_the_exporter_is_killed(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    registers, hours = STRANGE[name]
    for restart in (None, *range(len(registers))):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            book = entered(*registers, restart_before=restart)
        assert book.finals == hours == book.known(), f"restart before {restart}"
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == (2 if name == "falls twice" else 1)
    again = Book(dict(book.state))
    for hour, value in registers:  # the same again
        again.enter(hour, value)
    assert again.finals == hours


def test_an_hour_has_at_most_what_the_fuse_can_carry() -> None:
    """40 A x 1.6 x 253 V x 3 = 48 576 Wh in an hour; after a gap of four hours four times that."""
    assert most_wh(40) == pytest.approx(48_576)
    assert entered((0, 0.0), (1, 48_576.0)).finals == {0: 48_576.0}
    assert entered((0, 0.0), (1, 48_577.0)).finals == {}
    assert entered((0, 0.0), (4, 4 * 48_576.0), (5, 4 * 48_576.0 + 1)).finals == {4: 1.0}
    assert entered((0, 0.0), (4, 4 * 48_576.0 + 2), (5, 4 * 48_576.0 + 3)).finals == {}


def test_directions_and_meters_are_independent() -> None:
    state: dict[str, str] = {}
    book = HourBook(state.get)
    assert book.enter("A", "import", T, 100.0, FUSE) == {}
    assert book.enter("A", "export", T + HOUR, 300.0, FUSE) == {}
    assert book.enter("B", "import", T + HOUR, 300.0, FUSE) == {}
    assert book.enter("A", "import", T + HOUR, 300.0, FUSE) == {T: 200.0}


# `run` and `import` at the same time


def test_run_and_import_keep_what_the_other_adds_at_the_same_time() -> None:
    state: dict[str, str] = {}
    run, imported = Book(state), Book(state, imported=True)
    run.enter(10, 1000.0)
    run.keep()
    imported.enter(7, 700.0)  # now import has read the month
    run.enter(11, 1100.0)
    run.keep()
    imported.enter(8, 800.0)
    run.enter(9, 900.0)  # now run has read it, without what import keeps next
    imported.keep()
    run.keep()
    for book in (run, imported):
        book.restart()
        assert book.known() == {7: 100.0, 8: 100.0, 9: 100.0, 10: 100.0}


def test_hours_between_registers_of_import_and_of_run() -> None:
    state: dict[str, str] = {}
    run = Book(state)
    run.enter(3, 300.0)
    run.keep()
    imported = Book(state, imported=True)
    imported.enter(2, 250.0)
    assert imported.finals == {2: 50.0}
    imported.keep()
    run.enter(4, 420.0)
    assert run.finals == {3: 120.0}
    assert run.known() == {2: 50.0, 3: 120.0}


def test_two_imports_at_once_while_the_service_holds_the_outbox(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.sqlite")
    one, two = SharedState(outbox.path), SharedState(outbox.path)
    books = [HourBook(shared.get, imported=True) for shared in (one, two)]
    for number, book in enumerate(books):
        for hour in (number * 2, number * 2 + 1):
            book.enter("A", "import", T + hour * HOUR, 100.0 * hour, FUSE)
    one.put(books[0].new_state())
    run = HourBook(outbox.get_state)
    run.enter("A", "import", T + 4 * HOUR, 400.0, FUSE)
    two.put(books[1].new_state())
    outbox.append([], run.new_state())
    run.kept()
    assert run.finals("A", "import", T, T + 9 * HOUR, FUSE) == {T + hour * HOUR: 100.0 for hour in range(4)}
    for shared in (one, two):
        shared.close()
    outbox.close()
