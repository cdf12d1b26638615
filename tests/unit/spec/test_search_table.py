"""A study's own points and combinations that are never proposed: as the space lists them, or refused by their line."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_kit import HEAD, read, refused

from edgedeploy.spec.public import published
from edgedeploy.spec.search import combinations_of, points_of
from edgedeploy.spec.study import parse_spec
from edgedeploy.spec.toml import read_toml


def test_points_have_the_values_of_the_space() -> None:
    spec = read('[[try]]\nwidth = 0.3\nprecision = "int8"\n\n[[try]]\ntarget = "openvino"\n')
    width = spec.space["width"][2]
    assert width != 0.3, "0.1 + 2 * 0.1"
    assert points_of(spec.tries, spec.space) == ({"width": width, "precision": "int8"}, {"target": "openvino"})
    spec = read('[[never]]\ntarget = "openvino"\nprecision = ["int8", "float32"]\nfolded = true\n')
    rule = {"target": ("openvino",), "precision": ("int8", "float32"), "folded": (True,)}
    assert combinations_of(spec.never, spec.space) == (rule,)
    assert read("").search.sampler == "co-design"
    assert read('[search]\nsampler = "tpe"\n').search.sampler == "tpe"


@pytest.mark.parametrize(
    ("more", "line", "words"),
    [
        ('[search]\nsampler = "tpa"\n', 2, "'co-design', 'gp', 'tpe'"),
        ('[search]\nsample = "tpe"\n', 2, "sampler"),
        ("[[try]]\nwidht = 0.3\n", 2, "width"),
        (
            "[[try]]\nwidth = 0.3\n\n[[try]]\nwidth = 0.35\n",
            5,
            "0.35 is not among the values in the space. They are: 0.1",
        ),
        ('[[try]]\ntarget = "litert"\n', 2, "'onnxruntime', 'openvino'"),
        ("[[try]]\nfolded = 1\n", 2, "1 is not among"),
        ("[[try]]\n", 1, "names no parameter"),
        ('[[never]]\nprecision = ["int8", "int9"]\n', 2, "'int9' is not among"),
        ('[[never]]\nprecison = "int8"\n', 2, "precision"),
        ("[[never]]\nprecision = []\n", 2, "the list of values is empty. Name some of: 'float32', 'int8'"),
        ('[[try]]\nprecision = ["int8"]\n', 2, "try number 1, precision: expected one value, but got a list"),
        ("[[try]]\nwidth = { low = 0.1 }\n", 2, "expected one value, but got a table"),
        ("[[never]]\nwidth = [[0.1]]\n", 2, "never number 1, width: expected a value or a list of values"),
        ("[try]\nwidth = 0.3\n", 1, "try: one table where several may stand. Write [[try]], once for each"),
        ('[measure]\nscenarios = "server"\n', 2, "measure.scenarios: expected a list. Write it in brackets"),
        ('[[try]]\nwidth = 0.3\nprecision = "int8"\n[[never]]\nprecision = "int8"\n', 1, "[[never]] number 1"),
    ],
)
def test_what_the_space_has_not_is_refused_by_its_line(more: str, line: int, words: str) -> None:
    told = refused(more)
    assert f"study.toml:{len(HEAD.splitlines()) + line}:" in told, told
    assert words in told


def test_points_are_public() -> None:
    spec, source = parse_spec(
        f'{HEAD}[[try]]\nprecision = "int8"\n[[never]]\nprecision = ["int8"]\n', Path("study.toml")
    )
    told = published(read_toml(source))
    assert told["try"] == [{"precision": "int8"}]
    assert told["never"] == [{"precision": ["int8"]}]
    assert spec.tries


def test_an_end_by_what_is_expected_needs_a_sampler_that_expects() -> None:
    assert read("[search]\nstop_gain = 0.001\n").search.stop_gain == 0.001
    assert read('[search]\nsampler = "tpe"\n').search.stop_gain == 0.0
    assert "nothing predicts a gain with sampler = 'tpe'" in refused('[search]\nsampler = "tpe"\nstop_gain = 0.001\n')
    assert "search.stop_gain" in refused("[search]\nstop_gain = 1.5\n")
    told = refused('[search]\nsampler = "tpe"\ngive_up = 0.1\n')
    assert "search.give_up: nothing predicts that a limit is out of reach with sampler = 'tpe'" in told
    assert read('[search]\nsampler = "tpe"\ngive_up = 0.0\n').search.give_up == 0.0


def test_other_boards_are_weighed_by_co_design_beside_two_objectives() -> None:
    assert not read("").search.more_boards
    assert read("[search]\nmore_boards = true\n").search.more_boards
    told = refused('[search]\nsampler = "tpe"\nmore_boards = true\n')
    assert "search.more_boards" in told and "sampler = 'tpe'" in told
