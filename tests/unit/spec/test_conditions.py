"""Conditions between parameters: as the space lists their values, or refused by their line."""

from __future__ import annotations

import re

import pytest
from spec_kit import read

from edgedeploy.errors import SpecError
from edgedeploy.records.conditions import Condition
from edgedeploy.spec.conditions import conditions_of

RULE = '[[only]]\nparameter = "{}"\nwhen = {{ {} }}\n'


def conditions(more: str) -> tuple[Condition, ...]:
    spec = read(more)
    return conditions_of(spec.only, {"target": spec.study.targets, **spec.space})


def test_values_are_those_that_the_space_lists() -> None:
    (found,) = conditions(RULE.format("folded", 'width = [0.3, 0.1], precision = "int8"'))
    third = read("").space["width"][2]
    assert found == Condition("folded", {"width": (third, 0.1), "precision": ("int8",)})
    assert found.text == f"with width = {third} or 0.1 and precision = 'int8'"


def test_what_is_asked_for_comes_first_and_several_parameters_may_share_a_table() -> None:
    text = RULE.format("calibration", "folded = true") + RULE.format("folded", 'target = "openvino"')
    assert [item.parameter for item in conditions(text)] == ["folded", "calibration"]
    text = '[[only]]\nparameter = ["calibration", "folded"]\nwhen = { precision = "int8" }\n'
    assert [item.parameter for item in conditions(text)] == ["calibration", "folded"]


def test_true_is_not_one() -> None:
    condition = Condition("x", {"folded": (True,)})
    assert condition.holds({"folded": True})
    assert not condition.holds({"folded": 1}) and not condition.holds({})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (RULE.format("folds", 'precision = "int8"'), "no parameter 'folds'"),
        (RULE.format("target", 'precision = "int8"'), "a target is always chosen"),
        (RULE.format("folded", 'precison = "int8"'), "no parameter 'precison'"),
        (RULE.format("folded", 'precision = "int9"'), "'int9' is not among"),
        (RULE.format("folded", "folded = true"), "folded would hang on itself"),
        (RULE.format("folded", 'precision = ["int8", "float32"]'), "holds for all values"),
        (
            RULE.format("folded", 'precision = "int8"') + RULE.format("precision", "folded = true"),
            "ask for each other: folded, precision",
        ),
        (RULE.format("folded", "precision = []"), "only number 1, when.precision: the list of values is empty"),
        (
            RULE.format("folded", "width = 0.3") + RULE.format("folded", "width = [0.1, 0.2]"),
            "only number 2, when.width: with [[only]] number 1 it never holds: tables of one parameter have to hold "
            "together. Where either is meant, write one table with width = [0.3",
        ),
        (RULE.format("folded", ""), "when"),
        ('[[only]]\nparameter = "folded"\n', "when"),
        (
            RULE.format("calibration", 'precision = "int8"') + '[[try]]\ncalibration = "entropy"\nwidth = 0.3\n',
            "try number 1, calibration: calibration matters only with precision = 'int8'",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, found: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(text)
    assert found in str(caught.value), str(caught.value)
    assert re.match(r"study\.toml:\d+: ", str(caught.value)), "with its line"


def test_points_that_name_what_is_asked_for_are_taken() -> None:
    rule = RULE.format("calibration", 'precision = "int8"')
    assert read(f'{rule}[[try]]\ncalibration = "entropy"\nprecision = "int8"\n').tries


def test_what_the_task_decides_is_not_known_yet() -> None:
    rule = RULE.format("calibration", 'folded = true, precision = "int8"')
    tried = '[[try]]\ncalibration = "entropy"\nprecision = "{}"\n'
    assert read(rule + tried.format("int8")).tries, "the baseline's folded is the task's to say"
    with pytest.raises(SpecError, match="calibration matters only with"):
        read(rule + tried.format("float32"))
