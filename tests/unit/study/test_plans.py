"""Plans of a budget: from a table to rules, from the space to variants, and what is kept of them."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import made_up
import numpy as np
import onnx
import pytest
from made_up_search import SPACE
from onnx import TensorProto, helper
from small_task import SmallTask
from small_task import bench as small_bench

from edgedeploy.errors import DataError, OutOfTime, Unsupported
from edgedeploy.evidence.layers import LayerTime, Profile
from edgedeploy.interfaces.task import Array, Case
from edgedeploy.records.canonical import Choices
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.precision import NO_RULES, PrecisionPlan
from edgedeploy.reference.roundings import Decided, Rounding, Roundings
from edgedeploy.reference.sensitivity import Sensitivity
from edgedeploy.search.plan.refined import refined
from edgedeploy.search.plan.table import Cost, Group, Noise, Table
from edgedeploy.search.space import Space
from edgedeploy.study.layout import PLANS
from edgedeploy.study.plan_costs import table_from, table_of
from edgedeploy.study.plans import MadePlan, PlanMaker, kept_plans, made_plans, seeds_in, with_plans
from edgedeploy.study.store import Store
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget

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
POWERS = tuple(noise.loss for noise in THREE.noises)
LOOKED = refined(
    THREE, POWERS, lambda chosen: sum(loss for loss, name in zip(POWERS, chosen, strict=True) if name == "int8")
)


def test_a_budget_is_a_share_of_what_int8_saves() -> None:
    made = made_plans(LOOKED, {"auto:0": 0.0, "auto:0.4": 0.4, "auto:0.7": 0.7, "auto:1": 1.0})
    rules = {name: [rule.pattern for rule in item.plan.rules] for name, item in made.items()}
    assert rules == {"auto:0": [], "auto:0.4": ["/b"], "auto:0.7": ["/a", "/b"], "auto:1": []}
    text = made["auto:0.4"].text()
    assert "keeps 1 of 3 layers in float32: /b (30 dB alone in int8, which saves 2 ms)" in text
    assert "2 ms of the 6 ms" in text
    assert made["auto:0"].plan == NO_RULES
    assert made["auto:1"].plan == NO_RULES  # nothing is left in int8: that is the float32 model
    assert made["auto:0"].text() == "every one of 3 layers is int8 in it"
    assert made["auto:1"].text().startswith("none of 3 layers is int8 in it: that is the float32 model")
    assert MadePlan.from_json(made["auto:1"].as_json()) == made["auto:1"]


def test_a_made_plan_is_kept_whole(tmp_path: Path) -> None:
    made = made_plans(LOOKED, {"auto:0.4": 0.4})["auto:0.4"]
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
    made = {"onnxruntime": made_plans(LOOKED, {"auto:0.5": 0.5})}
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
        {"depth": 0.5},
        {"student": "small"},
    ],
)
def test_a_made_plan_is_dropped_in_a_model_that_it_was_not_made_for(change: dict[str, str | float]) -> None:
    space = with_plans(PLANNED, {"onnxruntime": made_plans(LOOKED, {"auto:0.5": 0.5})})
    params = {**INT8, **change}
    assert space.variant(params) == space.variant({**params, "plan": "none"})


def test_a_made_plan_is_one_of_calibration_at_any_width() -> None:
    space = with_plans(PLANNED, {"onnxruntime": made_plans(LOOKED, {"auto:0.5": 0.5})})
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


class Graded(SmallTask):
    """The small model's task, whose metric on a case is how near the first output is to the float model's."""

    metrics: Mapping[str, MetricInfo] = {"nearness": MetricInfo("maximize", "1", "how near")}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.judged: list[str] = []

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        self.judged.append(case.id)
        return {"nearness": -float(np.abs(outputs["out"]).mean())}


SMALL = Space(
    targets=("onnxruntime",),
    parameters={"precision": ("float32", "int8"), "plan": ("none", "auto:0.5")},
    arch_defaults={"resolution": 128},
    target_precisions={"onnxruntime": ("float32", "int8")},
    default_threads=1,
    choices=Choices(layers=LAYERS, cases=6),
)
CONVOLUTIONS = ("/block1/conv", "/block2/conv", "/head/conv")


class Maker:
    """A :class:`PlanMaker` of the small model on MADE-UP measurements, with all that it says."""

    def __init__(self, folder: Path, task: SmallTask, *plans: str, check: Callable[[], None] = lambda: None) -> None:
        self.store, self.told, self.shown = Store(folder), list[str](), list[str]()
        space = replace(SMALL, parameters={**SMALL.parameters, "plan": ("none", *plans)})
        bench = small_bench(self.store, task, OnnxRuntimeTarget())
        targets = {"onnxruntime": OnnxRuntimeTarget()}
        self.maker = PlanMaker(
            space, targets, bench, folder, tell=self.told.append, progress=self.shown.append, check=check
        )
        measured = [self._measured(space, "float32", 6.0), self._measured(space, "int8", 2.0)]
        self.measured = {item.digest: item for item in measured}

    def _measured(self, space: Space, precision: str, latency_ms: float) -> Measurement:
        """All layers take the same time."""
        names = ("name", "source", "operator", "kernel", "device")
        layers = [{**dict.fromkeys(names, name), "ns": 1000} for name in CONVOLUTIONS]
        variant = space.variant({"target": "onnxruntime", "precision": precision})
        found = made_up.measurement(variant, latency_ms=latency_ms)
        return replace(found, layers={"candidate": {"layers": layers}})

    def make(self) -> None:
        self.maker.make(self.measured.get)


def test_plans_are_made_once_and_found_again(tmp_path: Path) -> None:
    task = SmallTask(tmp_path / "task")
    first = Maker(tmp_path / "study", task, "auto:0.5")
    assert first.maker.missing() == ["onnxruntime"]
    first.make()
    made = first.maker.made["onnxruntime"]["auto:0.5"]
    assert 1 <= len(made.plan.rules) <= 2
    assert {rule.pattern for rule in made.plan.rules} < {*CONVOLUTIONS}
    assert first.told == [f"onnxruntime auto:0.5: {made.text()}"]
    assert any("roundings" in line for line in first.shown)
    again = Maker(tmp_path / "study", task, "auto:0.5")
    assert again.maker.missing() == []
    assert again.maker.made == first.maker.made
    assert (
        again.maker.space().variant({"target": "onnxruntime", "precision": "int8", "plan": "auto:0.5"}).plan
        == made.plan
    )
    more = Maker(tmp_path / "study", task, "auto:0.5", "auto:0.9")
    assert more.maker.missing() == ["onnxruntime"]
    more.make()
    assert not any("roundings" in line for line in more.shown)  # what each rounding costs is kept
    assert more.maker.made["onnxruntime"]["auto:0.5"] == made


def test_what_another_method_measured_is_measured_anew(tmp_path: Path) -> None:
    """As the files that had no method: their numbers are not those of today's simulation."""
    task = SmallTask(tmp_path / "task")
    Maker(tmp_path / "study", task, "auto:0.5").make()
    path = next((tmp_path / "study").rglob("sensitivity-onnxruntime.json"))
    today = json.loads(path.read_text(encoding="utf-8"))
    for change in ({}, {"method": "0"}):
        older = {name: value for name, value in today.items() if name != "method"} | change
        older["losses"] = [10 * loss for loss in older["losses"]]
        path.write_text(json.dumps(older), encoding="utf-8")
        for plans in (tmp_path / "study").rglob("plans.json"):
            plans.unlink()
        again = Maker(tmp_path / "study", task, "auto:0.5")
        again.make()
        assert any("roundings" in line for line in again.shown)
        assert json.loads(path.read_text(encoding="utf-8")) == today


def test_a_plan_is_the_best_of_those_that_were_looked_at_whole(tmp_path: Path) -> None:
    """And what whole plans lose is kept, for budgets that are asked for later."""
    task = SmallTask(tmp_path / "task")
    first = Maker(tmp_path / "study", task, "auto:0.5")
    first.make()
    made = first.maker.made["onnxruntime"]["auto:0.5"]
    kept = json.loads(next((tmp_path / "study").rglob("sensitivity-onnxruntime.json")).read_text(encoding="utf-8"))
    plans = {name: item["loss"] for name, item in kept["plans"].items()}
    assert set(plans) == {"".join(bits) for bits in itertools.product("01", repeat=3)}
    assert plans["000"] == 0
    asked = {rule.pattern for rule in made.plan.rules}
    name = "".join("0" if layer in asked else "1" for layer in CONVOLUTIONS)
    assert made.loss == plans[name] == min(loss for other, loss in plans.items() if other.count("0") == len(asked))
    alone = {layer: plans["".join("1" if i == at else "0" for i in range(3))] for at, layer in enumerate(CONVOLUTIONS)}
    assert {kept.layer: kept.loss for kept in made.kept} == {layer: alone[layer] for layer in asked}
    assert any("whole plans" in line for line in first.shown)
    more = Maker(tmp_path / "study", task, "auto:0.5", "auto:0.9")
    more.make()
    assert not any("whole plans" in line for line in more.shown)


def test_a_metric_of_the_task_judges_plans_on_calibration_cases(tmp_path: Path) -> None:
    task = Graded(tmp_path / "task")
    found = Maker(tmp_path / "study", task, "auto:0.5:nearness", "auto:0.5")
    found.make()
    made = found.maker.made["onnxruntime"]
    assert {name: plan.metric for name, plan in made.items()} == {"auto:0.5": "", "auto:0.5:nearness": "nearness"}
    assert "of nearness lost alone in int8" in made["auto:0.5:nearness"].text()
    assert set(task.judged) == {f"calibration-{number}" for number in range(6)}


class Classes(Graded):
    """Its model answers with the class of each pixel, and its metric is the share of pixels of the first class."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        model = onnx.load_from_string(self._model)
        model.graph.node[-1].output[0] = "scores"
        model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["out"], name="/classes", axis=1, keepdims=0))
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", TensorProto.INT64, (1, 16, 16)))
        self._model = model.SerializeToString()
        self.source_sha256 = hashlib.sha256(self._model).hexdigest()

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        return {"nearness": float((outputs["out"] == 0).mean())}


def test_a_model_that_answers_in_whole_numbers_has_plans_by_metric_alone(tmp_path: Path) -> None:
    task = Classes(tmp_path / "task")
    by_noise = Maker(tmp_path / "noise", task, "auto:0.5")
    by_noise.make()
    assert "no output holds numbers of floating point. Name a metric" in by_noise.told[0]
    by_metric = Maker(tmp_path / "metric", task, "auto:0.5:nearness")
    by_metric.make()
    assert set(by_metric.maker.made["onnxruntime"]) == {"auto:0.5:nearness"}


def test_what_keeps_a_target_from_plans_is_told(tmp_path: Path) -> None:
    task = SmallTask(tmp_path / "task")
    unmeasured = Maker(tmp_path / "study", task, "auto:0.5")
    unmeasured.measured.clear()
    unmeasured.make()
    assert unmeasured.told == ["no precision plans for onnxruntime: its float32 and int8 model has no measurement"]
    undefined = Maker(tmp_path / "study", task, "auto:0.5:hd95_px")
    undefined.make()
    assert "undefined in every calibration case" in undefined.told[0]
    assert not (tmp_path / "study" / PLANS).exists()

    def check() -> None:
        raise OutOfTime("precision plans", "the time is over", "")

    late = Maker(tmp_path / "study", Graded(tmp_path / "task"), "auto:0.5", check=check)
    with pytest.raises(OutOfTime):
        late.make()
