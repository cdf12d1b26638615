"""Plans of a budget: from a table to rules, from the space to variants, and what is kept of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import made_up
import pytest
from made_up_search import SPACE

from edgedeploy.errors import DataError, Unsupported
from edgedeploy.evidence.layers import LayerTime, Profile
from edgedeploy.records.precision import NO_RULES, PrecisionPlan
from edgedeploy.records.variant import Choices
from edgedeploy.reference.roundings import Decided, Rounding, Roundings
from edgedeploy.reference.sensitivity import Sensitivity
from edgedeploy.search.plan.table import Cost, Group, Noise, Table
from edgedeploy.study.layout import PLANS
from edgedeploy.study.plan_costs import table_from, table_of
from edgedeploy.study.plans import MadePlan, kept_plans, made_plans, seeds_in, with_plans

LAYERS = {"onnxruntime": ("float32", "int8"), "openvino": ("float32", "int8")}
PLANNED = replace(
    SPACE,
    parameters={**SPACE.parameters, "plan": ("none", "auto:0.5"), "training": ("ptq", "qat")},
    choices=Choices(layers=LAYERS, trained=("onnxruntime",)),
)
INT8 = {**PLANNED.baseline("onnxruntime"), "precision": "int8", "plan": "auto:0.5"}


def table(*rows: tuple[str, float, float, float]) -> Table:
    """Layers of the same size by name, times in int8 and float32, and loss in int8."""
    groups = tuple(Group((name,), {"int8": Cost(fast, 1), "float32": Cost(slow, 4)}) for name, fast, slow, _ in rows)
    noises = tuple(Noise(name, loss, ((i, "int8"),)) for i, (name, _, _, loss) in enumerate(rows))
    return Table(groups, noises)


THREE = table(("/a", 1e6, 3e6, 1e-5), ("/b", 1e6, 3e6, 1e-3), ("/c", 1e6, 3e6, 1e-6))


def test_a_budget_is_a_share_of_what_int8_saves() -> None:
    made = made_plans(THREE, {"auto:0": 0.0, "auto:0.4": 0.4, "auto:0.7": 0.7, "auto:1": 1.0})
    rules = {name: [rule.pattern for rule in item.plan.rules] for name, item in made.items()}
    assert rules == {"auto:0": [], "auto:0.4": ["/b"], "auto:0.7": ["/a", "/b"], "auto:1": []}
    text = made["auto:0.4"].text()
    assert "keeps 1 of 3 layers in float32: /b (30 dB alone in int8, which saves 2 ms)" in text
    assert "2 ms of the 6 ms" in text
    assert made["auto:0"].plan == NO_RULES
    assert made["auto:1"].plan == NO_RULES  # nothing is left in int8: that is the float32 model


def test_a_made_plan_is_kept_whole(tmp_path: Path) -> None:
    made = made_plans(THREE, {"auto:0.4": 0.4})["auto:0.4"]
    (tmp_path / PLANS).write_text(json.dumps({"targets": {"onnxruntime": {"auto:0.4": made.as_json()}}}))
    assert kept_plans(tmp_path) == {"onnxruntime": {"auto:0.4": made}}
    assert MadePlan.from_json(json.loads(json.dumps(made.as_json()))) == made
    for wrong in ("[]", '{"targets": 3}', '{"targets": {"a": {"b": {}}}}', '{"targets": {"a": {"b": NaN}}}', "{"):
        (tmp_path / PLANS).write_text(wrong)
        with pytest.raises(DataError, match=PLANS):
            kept_plans(tmp_path)
    assert kept_plans(tmp_path / "nowhere") == {}


def test_a_budget_stands_for_no_plan_until_it_is_made() -> None:
    assert PLANNED.variant(INT8) == PLANNED.variant({**INT8, "plan": "none"})
    assert seeds_in(PLANNED) == seeds_in(replace(PLANNED, parameters=dict(SPACE.parameters)))


def test_a_made_plan_is_the_variant_of_the_same_plan_by_hand() -> None:
    made = {"onnxruntime": made_plans(THREE, {"auto:0.5": 0.5})}
    space = with_plans(PLANNED, made)
    variant = space.variant(INT8)
    by_hand = replace(
        PLANNED, choices=replace(PLANNED.choices, plans={"auto:0.5": PrecisionPlan.of({"/b": "float32"})})
    )
    assert variant.plan == PrecisionPlan.of({"/b": "float32"})
    assert variant.digest == by_hand.variant(INT8).digest
    assert space.params_of(variant) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "float32"},
        {"precision": "bfloat16", "target": "openvino"},
        {"target": "openvino"},
        {"resolution": 64},
    ],
)
def test_a_made_plan_is_dropped_in_a_model_that_it_was_not_made_for(change: dict[str, str | int]) -> None:
    space = with_plans(PLANNED, {"onnxruntime": made_plans(THREE, {"auto:0.5": 0.5})})
    params = {**INT8, **change}
    assert space.variant(params) == space.variant({**params, "plan": "none"})


def test_a_made_plan_is_one_of_calibration_at_any_width() -> None:
    space = with_plans(PLANNED, {"onnxruntime": made_plans(THREE, {"auto:0.5": 0.5})})
    assert space.variant({**INT8, "training": "qat"}).training == ""
    assert space.variant({**INT8, "width": 0.5}).plan.rules


def profile(**times_ns: int) -> Profile:
    layers = [
        LayerTime(name, f"/{name}" if len(name) == 1 else None, name, name, "CPU", ns) for name, ns in times_ns.items()
    ]
    return Profile(tuple(layers))


FOUND = Roundings(
    model=None,
    layers=(Decided("/a", "a", "wa", 0, 400), Decided("/b", "b", "wb", 0, 800)),
    places=(Rounding("weights", "wa", (0,)), Rounding("weights", "wb", (1,)), Rounding("tensor", "t", (0, 1))),
    links=((0, 1, 1000),),
    groups=((0,), (1,)),
    owners={"/a": 0, "/p": 0, "/b": 1},
)


def test_times_are_of_the_layer_that_a_node_follows_and_conversions_by_the_element() -> None:
    profiles = {
        "float32": (profile(a=300, p=100, b=500, Reorder=50), 1.0),
        "int8": (profile(a=50, p=25, b=100, QuantizeLinear=30, DequantizeLinear=10), 2.0),
    }
    found = table_from(FOUND, Sensitivity((0.1, 0.2, 0.3), 4), profiles, 400)
    assert [group.costs["float32"].time_ns for group in found.groups] == [400, 500]
    assert [group.costs["int8"].time_ns for group in found.groups] == [150, 200]
    assert [group.costs["int8"].size_bytes for group in found.groups] == [100, 200]
    assert [border.time_ns for border in found.borders] == [2.0 * 40 / 400 * 1000]
    assert found.plan(("int8", "float32")).loss == pytest.approx(0.4)
    assert found.plan(("int8", "int8")).loss == pytest.approx(0.6)


def test_without_layer_times_there_is_no_table() -> None:
    names_of_others = {"float32": (profile(x=3), 1.0), "int8": (profile(x=1), 1.0)}
    with pytest.raises(Unsupported, match="other names"):
        table_from(FOUND, Sensitivity((0.1, 0.2, 0.3), 4), names_of_others, 0)
    measured = made_up.measurement(PLANNED.variant(INT8))
    unprofiled = replace(measured, layers={})
    with pytest.raises(Unsupported, match="no layers were profiled"):
        table_of(FOUND, Sensitivity((0.1, 0.2, 0.3), 4), {"float32": unprofiled, "int8": unprofiled}, ends_elements=0)
