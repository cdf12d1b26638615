"""What verified plans say of the table that they were made from, and which are verified."""

from __future__ import annotations

import itertools

import numpy as np

from edgedeploy.search.plan.corrected import FIRST, MOST, Believed, verified
from edgedeploy.search.plan.programme import front
from edgedeploy.search.plan.table import Cost, Group, Noise, Table

GROUPS = 6


def table_of(losses: list[float]) -> Table:
    """Layers of rising cost, each with a rounding of its own."""
    groups = [Group((f"layer{at}",), {"int8": Cost(1.0), "float32": Cost(2.0 + at)}) for at in range(len(losses))]
    noises = [Noise(f"t{at}", loss, ((at, "int8"),)) for at, loss in enumerate(losses)]
    return Table(tuple(groups), tuple(noises))


THOUGHT = table_of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
TRUE = table_of([6.0, 1.0, 5.0, 0.5, 4.0, 0.2])


def true_loss(precisions: tuple[str, ...]) -> float:
    return TRUE.plan(precisions).loss


def test_the_true_front_is_found_though_the_table_is_wrong() -> None:
    asked: list[tuple[str, ...]] = []

    def loss_of(precisions: tuple[str, ...]) -> float:
        asked.append(precisions)
        return true_loss(precisions)

    found = verified(THOUGHT, loss_of)
    assert list(found) == asked and len(set(asked)) == len(asked) == MOST
    wanted = {plan.precisions for plan in front(TRUE)}
    assert len(wanted & set(asked)) >= 0.7 * len(wanted)
    assert len(wanted & {plan.precisions for plan in front(THOUGHT)}) < 0.5 * len(wanted)


def test_losses_are_believed_after_they_are_seen() -> None:
    every = [tuple(chosen) for chosen in itertools.product(("int8", "float32"), repeat=GROUPS)]
    some = tuple(every[::4])
    believed = Believed(THOUGHT, some, np.array([true_loss(precisions) for precisions in some]))
    mean, spread = believed.predict(every)
    truth = np.array([true_loss(precisions) for precisions in every])
    before = np.array([THOUGHT.plan(precisions).loss for precisions in every])
    assert np.abs(mean - truth).mean() < 0.3 * np.abs(before - truth).mean()
    assert spread[::4].max() < spread.max()


def test_the_same_answers_lead_to_the_same_plans() -> None:
    assert list(verified(THOUGHT, true_loss, most=10)) == list(verified(THOUGHT, true_loss, most=10))


def test_no_more_plans_are_verified_than_there_are() -> None:
    small = table_of([1.0, 2.0])
    assert len(verified(small, lambda precisions: small.plan(precisions).loss)) == 4
    assert len(verified(THOUGHT, true_loss, most=3)) == 3 < FIRST


def test_losses_that_are_all_nothing_are_no_trouble() -> None:
    nothing = table_of([0.0, 0.0, 0.0])
    found = verified(nothing, lambda precisions: 0.0)
    assert 1 <= len(found) <= 8 and set(found.values()) == {0.0}
