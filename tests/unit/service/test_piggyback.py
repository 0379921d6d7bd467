"""Lines that wait for a reading to go along with: when they are made, when they go, and that none goes twice."""

from exporter.service.piggyback import Piggyback


def test_they_are_made_a_little_before_their_time_and_once() -> None:
    aboard = Piggyback(10, now=100)
    assert not aboard.due(108.9)
    assert aboard.due(109)
    aboard.put(["a", "b"], 109)
    assert not aboard.due(130)
    assert aboard.take(110) == ["a", "b"]
    assert aboard.take(110.1) == []
    assert not aboard.due(118.9)
    assert aboard.due(119), "a list that comes each 10 s finds them ready, a second before its time"


def test_what_nobody_takes_along_is_late() -> None:
    aboard = Piggyback(10, now=0)
    assert not aboard.late(1000), "nothing waits"
    aboard.put(["a"], 1000)
    assert not aboard.late(1001.9)
    assert aboard.late(1002)
    assert aboard.take(1002) == ["a"]
    assert not aboard.late(1010)


def test_no_lines_are_a_turn_too() -> None:
    aboard = Piggyback(10, now=0)
    aboard.put([], 9)
    assert not aboard.due(10)
    assert aboard.late(11)
    assert aboard.take(11) == []
    assert not aboard.due(19.9)


def test_what_is_forgotten_does_not_go() -> None:
    aboard = Piggyback(10, now=0)
    aboard.put(["a", "b"], 9)
    aboard.drop(lambda line: line == "a")
    assert aboard.take(10) == ["b"]
