"""The answers of a teacher are asked for once."""

from __future__ import annotations

import torch
from edges_task import TrainableEdges, variant

from edgedeploy.compress.batch import Batch
from edgedeploy.compress.model import derive, train_baseline
from edgedeploy.compress.teacher import Answers, answers_of


def batch(value: float, name: str = "image") -> Batch:
    return Batch({name: torch.full((2, 1, 4, 4), value)}, None)


class Asked:
    def __init__(self, value: float = 0.0) -> None:
        self.times = 0
        self.value = value

    def __call__(self) -> torch.Tensor:
        self.times += 1
        return torch.full((2, 3, 4, 4), self.value + self.times)


def test_equal_inputs_are_answered_once() -> None:
    answers, ask = Answers(), Asked()
    first = answers.to(batch(1.0), "float32", ask)
    assert torch.equal(answers.to(batch(1.0), "float32", ask), first)
    assert ask.times == 1


def test_other_inputs_names_and_precisions_are_other_questions() -> None:
    answers, ask = Answers(), Asked()
    for one, precision in (
        (batch(1.0), "float32"),
        (batch(2.0), "float32"),
        (batch(1.0, "x"), "float32"),
        (batch(1.0), "bfloat16"),
    ):
        answers.to(one, precision, ask)
    assert ask.times == 4


def test_memory_is_bounded_and_the_least_recent_answer_goes() -> None:
    one = 2 * 3 * 4 * 4 * 4
    answers, ask = Answers(most_bytes=2 * one), Asked()
    for value in (1.0, 2.0, 1.0, 3.0):
        answers.to(batch(value), "float32", ask)
    assert ask.times == 3
    answers.to(batch(1.0), "float32", ask)
    assert ask.times == 3
    answers.to(batch(2.0), "float32", ask)
    assert ask.times == 4


def test_an_answer_larger_than_the_memory_is_given_and_not_kept() -> None:
    answers, ask = Answers(most_bytes=8), Asked()
    assert answers.to(batch(1.0), "float32", ask).shape == (2, 3, 4, 4)
    answers.to(batch(1.0), "float32", ask)
    assert ask.times == 2


def test_a_second_student_asks_the_teacher_nothing_and_learns_the_same() -> None:
    task = TrainableEdges()
    assert task.recovery_recipe.distill_weight > 0
    baseline = train_baseline(task, {"size": 16, "mix": "wide"})
    first = derive(task, variant(width=0.5), baseline).state_dict()
    known = len(answers_of(baseline)._kept)
    assert known
    again = derive(task, variant(width=0.5), baseline).state_dict()
    assert len(answers_of(baseline)._kept) == known
    assert all(torch.equal(first[name], again[name]) for name in first)
    derive(task, variant(width=0.25), baseline)
    assert len(answers_of(baseline)._kept) == known
