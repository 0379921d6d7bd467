"""Lines that wait for a reading: when they are made, when they are taken, and that none is taken twice."""

from exporter.service.piggyback import Piggyback


def test_they_are_made_once_and_a_little_early() -> None:
    piggyback = Piggyback(10, now=100)
    assert not piggyback.due(108.9)
    assert piggyback.due(109)
    piggyback.put(["a", "b"], 109)
    assert not piggyback.due(130)
    assert piggyback.take(110) == ["a", "b"]
    assert piggyback.take(110.1) == []
    assert not piggyback.due(118.9)
    assert piggyback.due(119), "they are ready for a list that comes every 10 s"


def test_what_nobody_takes_is_late() -> None:
    piggyback = Piggyback(10, now=0)
    assert not piggyback.late(1000), "nothing waits"
    piggyback.put(["a"], 1000)
    assert not piggyback.late(1001.9)
    assert piggyback.late(1002)
    assert piggyback.take(1002) == ["a"]
    assert not piggyback.late(1010)


def test_no_lines_count_as_lines() -> None:
    piggyback = Piggyback(10, now=0)
    piggyback.put([], 9)
    assert not piggyback.due(10)
    assert piggyback.late(11)
    assert piggyback.take(11) == []
    assert not piggyback.due(19.9)


def test_forgotten_lines_are_not_taken() -> None:
    piggyback = Piggyback(10, now=0)
    piggyback.put(["a", "b"], 9)
    piggyback.drop(lambda line: line == "a")
    assert piggyback.take(10) == ["b"]
