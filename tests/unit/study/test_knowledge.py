"""What a study tells its search of variants beforehand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_up_search import SPACE

from edgedeploy.records.canonical import Choices
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Variant
from edgedeploy.search.knowledge import Knowledge
from edgedeploy.search.outcomes import Failed, Scored
from edgedeploy.search.rungs import Rungs
from edgedeploy.search.space import Space
from edgedeploy.spec.study import parse_spec
from edgedeploy.study import knowledge
from edgedeploy.study.account import Account
from edgedeploy.study.knowledge import NO_NETWORK, _bounds, knowledge_of, without_effect
from edgedeploy.study.store import Store


def test_threads_and_instances_change_neither_accuracy_nor_size() -> None:
    assert {"threads", "instances"} <= without_effect("dice_mean") & without_effect("size_bytes")
    assert "threads" in without_effect("dice_mean") and "calibration" not in without_effect("dice_mean")
    assert {"threads", "calibration"} <= without_effect("size_bytes")
    assert "threads" not in without_effect("latency_p50_ns")


def test_epochs_of_recovery_change_accuracy_alone() -> None:
    assert "recovery_epochs" not in without_effect("dice_mean")
    for metric in ("latency_p50_ns", "peak_memory_bytes", "size_bytes"):
        assert "recovery_epochs" in without_effect(metric)


GOALS = """
[study]
name = "goals"
targets = ["openvino"]
[task]
kind = "synthetic-ultrasound"
[[boards]]
name = "here"
kind = "local"
[space]
width = [1.0, 0.5]
recovery_epochs = [0, 4]
[[objectives]]
metric = "dice_mean"
[[objectives]]
metric = "cpu_time_ratio"
scale = "linear"
[[constraints]]
metric = "dice_mean"
at_least = 0.5
[[constraints]]
metric = "cpu_time_ratio"
at_most = 0.8
margin = 0.1
[[constraints]]
metric = "peak_memory_bytes"
at_most = "1 GB"
[budget]
trials = 4
"""


def width_of(variant: Variant) -> int:
    return int(10 * variant.width)


def known(tmp_path: Path, text: str = GOALS, space: Space = SPACE) -> Knowledge:
    spec, _ = parse_spec(text, tmp_path / "study.toml")
    metrics = {**spec.metric_table({}), "dice_mean": MetricInfo("maximize", "1", "overlap", bound=1.0)}
    store = Store(tmp_path / "out")
    rungs = Rungs.of(spec.space.get("recovery_epochs", ()))
    return knowledge_of(spec, object(), space, metrics, rungs, store, Account(store), lambda: 1000.0, width_of)  # type: ignore[arg-type]


def test_a_limit_on_an_objective_says_what_is_of_no_use(tmp_path: Path) -> None:
    found = known(tmp_path)
    assert found.limits == {0: 0.5, 1: pytest.approx(0.7)}
    assert found.limited == {"0 dice_mean", "1 cpu_time_ratio"}, "the memory is no objective"
    assert found.linear == frozenset({1})
    assert found.bounds == {0: 1.0, 1: 0.0}, "a ratio of times is not below zero"


def test_what_cannot_be_is_told_of_nobody(tmp_path: Path) -> None:
    """A share of right answers of 1.03 at best had been told, where its task named no bound."""
    spec, _ = parse_spec(GOALS, tmp_path / "study.toml")
    right = MetricInfo("maximize", "1", "share of right answers", yes_or_no=True)
    assert _bounds(spec, {**spec.metric_table({}), "dice_mean": right})[0] == 1.0


def test_a_study_without_rungs_knows_nothing_of_costs(tmp_path: Path) -> None:
    plain = known(tmp_path, GOALS.replace("recovery_epochs = [0, 4]\n", ""))
    assert plain.cost_s is None and not plain.has_exact
    assert known(tmp_path).cost_s is not None


def test_limits_of_the_board_are_known_from_the_lowest_rung(tmp_path: Path) -> None:
    """A Dice that is too low is what training is for; half as much memory again is no noise."""
    found = known(tmp_path)
    low = Variant("openvino", "int8", 0.5, (("resolution", 128),), 2, recovery_epochs=0)
    high = replace(low, recovery_epochs=4, from_wider=True)
    for limits, left_out in (
        ({"2 peak_memory_bytes": 0.6}, True),
        ({"2 peak_memory_bytes": 0.4, "0 dice_mean": 0.9}, False),
    ):
        found.told(low, Scored((0.1, 0.5), limits))
        assert bool(found.left_out(high)) == left_out


def test_a_network_that_cannot_be_made_is_left_out_for_all_that_share_it(tmp_path: Path) -> None:
    arch = (("resolution", 128),)
    first = Variant("onnxruntime", "int8", 0.5, arch, 2, allocation="bytes", recovery_epochs=0)
    elsewhere = replace(first, target="openvino", precision="float32")
    higher = replace(elsewhere, recovery_epochs=4, from_wider=True)
    wider = replace(first, width=0.75)
    for text in (GOALS, GOALS.replace("recovery_epochs = [0, 4]\n", "")):
        found = known(tmp_path, text)
        found.told(wider, Failed("Unsupported", "an operator", "build"))
        found.told(first, Failed("Unsupported", "the least channels cost more", "network"))
        assert found.left_out(elsewhere) == NO_NETWORK
        assert not found.left_out(replace(wider, target="openvino")), (
            "a target that cannot build it says nothing of others"
        )
    assert known(tmp_path).left_out(higher) == ""
    found = known(tmp_path)
    found.told(first, Failed("Unsupported", "the least channels cost more", "network"))
    assert found.left_out(higher) == NO_NETWORK


@pytest.mark.parametrize("forbidden", [True, False])
def test_a_width_stands_for_another_one_where_it_may_be_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forbidden: bool
) -> None:
    monkeypatch.setattr(knowledge, "widths_of", lambda task, arch, width: (4,))
    never = ({"target": ("openvino",), "width": (0.5,)},) if forbidden else ()
    found = known(tmp_path, space=replace(SPACE, never=never))
    half = Variant("onnxruntime", "float32", 0.5, (("resolution", 128),), 2)
    found.told(half, Scored((0.8, 0.5), {}))
    assert found.left_out(replace(half, width=0.25)) == "its network is that of width 0.5"
    assert bool(found.left_out(replace(half, width=0.25, target="openvino"))) is not forbidden


def test_a_depth_stands_for_another_one_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowledge, "shapes_of", lambda task, arch, shrink: int(6 * shrink.depth))
    found = known(tmp_path)
    half = Variant("onnxruntime", "float32", 1.0, (("resolution", 128),), 2, shrink=Shrink(depth=0.5))
    found.told(half, Scored((0.8, 0.5), {}))
    assert found.left_out(replace(half, shrink=Shrink(depth=0.6))) == "its network is that of depth 0.5"
    assert not found.left_out(replace(half, shrink=Shrink(depth=0.7)))


def test_a_loss_counts_from_what_the_search_begins_with(tmp_path: Path) -> None:
    parameters = {**SPACE.parameters, "calibration": ("minmax", "percentile")}
    choices = Choices(calibrations={"openvino": ("mean-minmax", "minmax", "percentile")})
    space = replace(SPACE, targets=("openvino",), parameters=parameters, choices=choices)
    found = known(tmp_path, space=space)
    for width in (1.0, 0.75, 0.5, 0.25):
        found.told(space.variant({"target": "openvino", "width": width}), Scored((0.8, 1.0), {}))
    int8 = {"target": "openvino", "precision": "int8"}
    found.told(space.variant({**int8, "calibration": "minmax"}), Scored((0.6, 0.5), {}))
    assert found.explores(space.variant({**int8, "calibration": "percentile"}))
    assert not found.explores(space.variant({**int8, "calibration": "minmax", "width": 0.5}))
