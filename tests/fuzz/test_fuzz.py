"""Fuzzing in its short form: inputs that found a fault, and changes of them, the same in each run."""

from __future__ import annotations

import logging
import random

import pytest

from tests.fuzz import mutate
from tests.fuzz.targets import TARGETS, kept

TRIES = {"stream": 500, "captures": 600, "settings": 700, "outbox": 200}


@pytest.mark.parametrize("share", [6, pytest.param(1, marks=pytest.mark.rare)], ids=["few", "all"])
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_finds_a_fault(name: str, share: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "exporter")
    target, chance = TARGETS[name], random.Random(20261122)
    run = target.load()
    inputs = [*kept(name), *target.first()]
    for content in inputs:
        run(content)
    for number in range(TRIES[name] // share):
        content = mutate.joined(inputs, chance) if chance.random() < 0.1 else chance.choice(inputs)
        for _ in range(chance.choice([1, 1, 2, 3, 6])):
            content = target.change(content, chance)[: target.most]
        try:
            run(content)
        except BaseException:
            print(f"number {number}, as hex: {content.hex()}")
            raise


def test_some_outboxes_are_used_and_some_are_replaced() -> None:
    from tests.fuzz import outbox

    chance = random.Random(1)
    for _ in range(40):
        outbox.run(mutate.damage(b"\0", chance))
    assert outbox.seen["replaced"] > 5
    assert outbox.seen["used"] > 5


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_inputs_that_found_a_fault(name: str) -> None:
    assert kept(name)


def test_repaired_frames_have_right_check_sums() -> None:
    from exporter.protocol.hdlc import Deframer, Frame

    chance, checked = random.Random(1), 0
    streams = TARGETS["stream"].first()
    for _ in range(200):
        deframer = Deframer()
        found = deframer.feed(mutate.repaired(mutate.any_bytes(chance.choice(streams), chance)))
        checked += any(isinstance(item, Frame) for item in found)
    assert checked > 120
