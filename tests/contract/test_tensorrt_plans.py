"""Precision plans and calibrations for TensorRT: what a plan asks for is what lies in the file, and the parser takes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from small_onnx import convolutional, feeds, request, transformer_block

from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.precision import PrecisionPlan
from edgedeploy.protocols import Calibrating, PerLayer
from edgedeploy.targets.parity import check_parity
from edgedeploy.targets.reference import describe, open_onnx, run_reference
from edgedeploy.targets.tensorrt import Level, Platform, TensorRtTarget, TrtVersion, lint_file, rtx, verdict
from edgedeploy.targets.tensorrt.graphview import GraphView

WITH_PARSER = rtx.installed_version() is not None
needs_parser = pytest.mark.skipif(not WITH_PARSER, reason="no TensorRT parser: pip install 'edgedeploy[tensorrt]'")
MIXES = [
    ("int8", {"/block1/conv": "float32"}, {"/block1/conv": "float32", "/block2/conv": "int8", "/head/conv": "int8"}),
    ("float32", {"/block2/*": "int8"}, {"/block1/conv": "float32", "/block2/conv": "int8", "/head/conv": "float32"}),
    ("float16", {"/head/conv": "float32"}, {"/block1/conv": "float16", "/block2/conv": "float16", "/head/conv": "float32"}),
    ("float32", {"/block1/*": "float16"}, {"/block1/conv": "float16", "/block2/conv": "float32", "/head/conv": "float32"}),
    ("int8", {"/head/conv": "float16"}, {"/block1/conv": "int8", "/block2/conv": "int8", "/head/conv": "float16"}),
    (
        "float16",
        {"/block1/conv": "int8", "/head/conv": "float32"},
        {"/block1/conv": "int8", "/block2/conv": "float16", "/head/conv": "float32"},
    ),
]  # fmt: skip
each_mix = pytest.mark.parametrize(
    ("base", "plan", "wanted"), MIXES, ids=[f"{base}-{'-'.join(plan.values())}" for base, plan, _ in MIXES]
)


def built_types(path: Path) -> dict[str, str]:
    """Layers with weights by their precision in the file, under the names that the plan used."""
    names = ("/block1/conv", "/block2/conv", "/head/conv")
    found = GraphView.open(path).layer_types
    return {name: kind for name in names for key, kind in found.items() if name in key}


def test_it_has_the_abilities() -> None:
    assert isinstance(TensorRtTarget(), PerLayer)
    assert isinstance(TensorRtTarget(), Calibrating)


@each_mix
def test_a_plan_is_followed_layer_by_layer(
    base: str, plan: dict[str, str], wanted: dict[str, str], tmp_path: Path
) -> None:
    """The level says ``built`` where a parser is installed: it takes every mix without a warning."""
    model = convolutional(tmp_path / "m.onnx")
    artifact = TensorRtTarget().build(request(model, base, plan), tmp_path / "out")
    assert built_types(tmp_path / "out" / "model.onnx") == wanted
    assert dict(artifact.settings)["level"] == (Level.BUILT if WITH_PARSER else Level.LINT)
    reference = describe(model)
    rows = list(feeds(reference.inputs[0], count=3, seed=9))
    session = open_onnx(tmp_path / "out" / "model.onnx", threads=1)
    found = np.concatenate([session.run(["out"], feed)[0] for feed in rows])
    expected = np.concatenate([run_reference(reference, feed)["out"] for feed in rows])
    distance = check_parity({"out": expected}, {"out": found}, base, *plan.values())
    assert distance["rel_l2"] > 1e-5, "narrow layers leave a trace"


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_nodes_without_a_name_can_be_planned(precision: str, tmp_path: Path) -> None:
    """And operator set 20 is converted down in between, which renames nothing."""
    model = convolutional(tmp_path / "m.onnx", named=False, opset=20)
    TensorRtTarget().build(request(model, precision, {"Conv:c1": "float32"}), tmp_path / "out")
    found = GraphView.open(tmp_path / "out" / "model.onnx").layer_types
    assert sorted(found.values()) == sorted(["float32", precision, precision])


@pytest.mark.parametrize(
    ("base", "plan", "error", "told"),
    [
        ("int8", {"/blok1/conv": "float32"}, BuildError, r"no layer has that name.*Did you mean '/block1/conv'"),
        ("float16", {"/decoder/*": "float32"}, BuildError, r"no layer has that name"),
        ("float32", {"/decoder/*": "float32"}, BuildError, r"no layer has that name"),
        ("float16", {"*": "float16", "/head/conv": "float32"}, BuildError, r"'/head/conv'.*rules before it decide"),
        ("float32", {"/block1/relu": "int8"}, Unsupported, r"multiplies with no constant weights"),
        ("int8", {"/head/conv": "int4-weights"}, Unsupported, r"int4-weights.*it has float32"),
        ("int8", {"/head/conv": "bfloat16"}, Unsupported, r"bfloat16.*it has float32"),
    ],
)
def test_a_rule_that_changes_nothing_is_an_error(
    base: str, plan: dict[str, str], error: type[Exception], told: str, tmp_path: Path
) -> None:
    model = convolutional(tmp_path / "m.onnx")
    with pytest.raises(error, match=told):
        TensorRtTarget().build(request(model, base, plan), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a_layer_without_a_float16_form_is_named(tmp_path: Path) -> None:
    """A Cast gives the type that its attribute says."""
    model = transformer_block(tmp_path / "m.onnx")
    proto = onnx.load(str(model))
    for node in proto.graph.node:
        if node.name == "/mlp/act":
            node.op_type = "Cast"
            node.attribute.append(onnx.helper.make_attribute("to", onnx.TensorProto.FLOAT))
    onnx.save(proto, str(model))
    with pytest.raises(Unsupported, match=r"'/mlp/act' in float16.*it has no float16 form"):
        TensorRtTarget().build(request(model, "float32", {"/mlp/act": "float16"}), tmp_path / "out")


def test_casts_stand_only_where_half_and_wide_meet(tmp_path: Path) -> None:
    model = convolutional(tmp_path / "m.onnx")
    TensorRtTarget().build(request(model, "float16", {"/block2/*": "float32"}), tmp_path / "out")
    graph = onnx.load(str(tmp_path / "out" / "model.onnx")).graph
    order = [node.op_type for node in graph.node]
    assert order.count("Cast") == 4, "into the network, out of block 1, into the head, out of the network"
    assert {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT} == {
        "w2", "scale2", "bias2", "mean2", "var2",
    }  # fmt: skip


@pytest.mark.parametrize("way", TensorRtTarget.calibrations)
def test_each_way_to_calibrate_stays_symmetric(way: str, tmp_path: Path) -> None:
    model = convolutional(tmp_path / "m.onnx")
    chosen = TensorRtTarget().build(request(model, "int8", None, way), tmp_path / "chosen")
    own = TensorRtTarget().build(request(model, "int8"), tmp_path / "own")
    assert (chosen.digest == own.digest) == (way == TensorRtTarget.calibrations[0])
    assert lint_file(tmp_path / "chosen" / "model.onnx", Platform(TrtVersion(10, 3), "int8", False, "8.7")).errors == ()


def test_a_way_the_target_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="calibration 'guess'"):
        TensorRtTarget().build(request(convolutional(tmp_path / "m.onnx"), "int8", None, "guess"), tmp_path / "out")


@pytest.mark.parametrize("precision", TensorRtTarget.precisions)
def test_the_verdict_names_the_level_reached(precision: str, tmp_path: Path) -> None:
    model = convolutional(tmp_path / "m.onnx")
    found = verdict(model, feeds(describe(model).inputs[0]), precision)
    assert found.accepted
    assert found.label == ("built" if WITH_PARSER else "lint")
    assert found.releases == ("8.5.2", "10.3.0", "10.13.3")
    assert {finding.rule for finding in found.violations["8.0.1"]} == {"opset-new"}
    assert found.reasons and all(found.reasons)


def test_the_verdict_on_what_cannot_be_built(tmp_path: Path) -> None:
    model = convolutional(tmp_path / "m.onnx")
    cases = list(feeds(describe(model).inputs[0]))
    misspelt = verdict(model, cases, "int8", plan=PrecisionPlan.of({"/nowhere": "float32"}))
    assert (misspelt.label, misspelt.accepted) == ("refused", False)
    assert "no layer has that name" in misspelt.reasons[0]
    assert "it has float32, float16, int8" in verdict(model, cases, "bfloat16").reasons[0]
    old = verdict(model, cases, "int8", releases=[TrtVersion(8, 2, 1)])
    assert (old.label, old.releases, [finding.rule for finding in old.violations["8.2.1"]]) == (
        "refused", (), ["opset-new"],
    )  # fmt: skip
    dynamic = verdict(convolutional(tmp_path / "d.onnx", side="side"), cases, "float32")
    assert dynamic.label == "refused" and "open" in dynamic.reasons[0]


@needs_parser
@pytest.mark.shared
@pytest.mark.parametrize("precision", TensorRtTarget.precisions)
@pytest.mark.parametrize("name", ["lwnet/wnet_drive_512.onnx", "yunet/yunet_n_320_320.onnx"])
def test_published_models_are_built_by_the_proxy(name: str, precision: str, shared: Path) -> None:
    model = shared / "models" / name
    assert verdict(model, feeds(describe(model).inputs[0], count=2), precision).label == "built"
