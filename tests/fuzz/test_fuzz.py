"""Fuzzing in its short form: what once found something, and changes of it by dice that always fall the same."""

from __future__ import annotations

import logging
import random

import pytest

from tests.fuzz import mutate
from tests.fuzz.targets import TARGETS, kept

TRIES = {"stream": 500, "captures": 600, "settings": 700, "outbox": 200}


@pytest.mark.parametrize("share", [6, pytest.param(1, marks=pytest.mark.rare)], ids=["few", "all"])
@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_what_is_promised(name: str, share: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "exporter")
    target, dice = TARGETS[name], random.Random(20261122)
    run = target.load()
    inputs = [*kept(name), *target.first()]
    for content in inputs:
        run(content)
    for number in range(TRIES[name] // share):
        content = mutate.joined(inputs, dice) if dice.random() < 0.1 else dice.choice(inputs)
        for _ in range(dice.choice([1, 1, 2, 3, 6])):
            content = target.change(content, dice)[: target.most]
        try:
            run(content)
        except BaseException:
            print(f"number {number}, as hex: {content.hex()}")
            raise


def test_both_whole_and_salvaged_outboxes_are_reached() -> None:
    from tests.fuzz import outbox

    dice = random.Random(1)
    for _ in range(40):
        outbox.run(mutate.damage(b"\0", dice))
    assert outbox.seen["replaced"] > 5
    assert outbox.seen["used"] > 5


@pytest.mark.parametrize("name", TARGETS)
def test_something_is_kept_of_every_target(name: str) -> None:
    assert kept(name)


def test_mending_makes_frames_that_check() -> None:
    from exporter.protocol.hdlc import Deframer, Frame

    dice, checked = random.Random(1), 0
    streams = TARGETS["stream"].first()
    for _ in range(200):
        deframer = Deframer()
        found = deframer.feed(mutate.mended(mutate.octets(dice.choice(streams), dice)))
        checked += any(isinstance(item, Frame) for item in found)
    assert checked > 120
