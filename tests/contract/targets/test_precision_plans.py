"""Single layers in a precision of their own: what a plan asks for is what lies in the file and what runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_onnx import convolutional, feeds, norm_after_relu, request, transformer_block, two_stages

from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.interfaces.target import BuildRequest, Calibrating, PerLayer
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.reference.export import describe, run_reference
from edgedeploy.reference.parity import check_executed, check_parity
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget

TARGETS = (OnnxRuntimeTarget, OpenVinoTarget)
each_target = pytest.mark.parametrize("make", TARGETS, ids=[target.name for target in TARGETS])
each_way = pytest.mark.parametrize(
    ("make", "way"),
    [(target, way) for target in TARGETS for way in target.calibrations],
    ids=[f"{target.name}-{way}" for target in TARGETS for way in target.calibrations],
)


def build(make: Any, asked: BuildRequest, folder: Path) -> tuple[Artifact, dict[str, int], Any]:
    """The artifact, what its runtime ran, and the session."""
    artifact = make().build(asked, folder)
    session = open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1)
    return artifact, session.executed(), session


def agrees(path: Path, session: Any, *precisions: str) -> dict[str, float]:
    reference = describe(path)
    rows = list(feeds(reference.inputs[0], count=3, seed=9))
    wanted = np.concatenate([run_reference(reference, feed)["out"] for feed in rows])
    found = np.concatenate([session.run(feed)["out"] for feed in rows])
    return check_parity({"out": wanted}, {"out": found}, *precisions)


def with_an_outlier(path: Path) -> Iterator[dict[str, Any]]:
    for index, feed in enumerate(feeds(describe(path).inputs[0])):
        if index == 3:
            feed["image"][0, 0, 0, 0] = 5.0
        yield feed


@each_target
@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
def test_a_layer_is_kept_wide(make: Any, named: bool, tmp_path: Path) -> None:
    """Batch norms are folded into convolutions on the way, and nodes without a name are spoken of all the same."""
    path = convolutional(tmp_path / "m.onnx", named=named)
    kept = "/block1/conv" if named else "Conv:c1"
    _, all_narrow, _ = build(make, request(path, "int8"), tmp_path / "all")
    _, planned, session = build(make, request(path, "int8", {kept: "float32"}), tmp_path / "planned")
    assert all_narrow.get("int8") == 3
    assert planned == {"int8": 2, "float32": 1}
    agrees(path, session, "int8", "float32")


@each_target
@pytest.mark.parametrize("kept", ["/block1/conv", "/block2/conv", "/head/conv"])
def test_a_layer_stays_wide_wherever_it_stands(make: Any, kept: str, tmp_path: Path) -> None:
    """Also between two int8 layers, where ONNX Runtime makes its weights int8 unless it is told not to."""
    path = convolutional(tmp_path / "m.onnx")
    _, executed, session = build(make, request(path, "int8", {kept: "float32"}), tmp_path / "planned")
    assert executed == {"int8": 2, "float32": 1}
    agrees(path, session, "int8", "float32")


@each_target
def test_a_single_layer_is_narrowed(make: Any, tmp_path: Path) -> None:
    path = convolutional(tmp_path / "m.onnx")
    _, executed, session = build(make, request(path, "float32", {"/block2/*": "int8"}), tmp_path / "out")
    assert executed == {"int8": 1, "float32": 2}
    check_executed("float32", executed, ("int8",))
    assert agrees(path, session, "float32", "int8")["rel_l2"] > 1e-5


@each_target
def test_the_first_rule_that_fits_decides(make: Any, tmp_path: Path) -> None:
    path = convolutional(tmp_path / "m.onnx")
    rules = {"/block2/conv": "int8", "/block*": "float32"}
    _, executed, _ = build(make, request(path, "int8", rules), tmp_path / "out")
    assert executed == {"int8": 2, "float32": 1}


@each_target
@pytest.mark.parametrize(
    ("rules", "error", "told"),
    [
        ({"/blok1/conv": "float32"}, BuildError, r"no layer has that name.*Did you mean '/block1/conv'"),
        ({"/decoder/*": "float32"}, BuildError, r"no layer has that name"),
        ({"*": "int8", "/head/conv": "float32"}, BuildError, r"'/head/conv'.*rules before it decide"),
        ({"/block1/relu": "int8"}, Unsupported, r"multiplies with no constant weights"),
        ({"/head/conv": "float16"}, Unsupported, r"float16.*it has float32"),
        ({"/head/conv": "int4-weights"}, Unsupported, r"head/conv.* the toolchain left it as it was"),
    ],
)
def test_a_rule_that_changes_nothing_is_an_error(
    make: Any, rules: dict[str, str], error: type[Exception], told: str, tmp_path: Path
) -> None:
    path = convolutional(tmp_path / "m.onnx")
    with pytest.raises(error, match=told):
        make().build(request(path, "int8", rules), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


@each_target
def test_four_bit_weights(make: Any, tmp_path: Path) -> None:
    path = transformer_block(tmp_path / "m.onnx")
    wide, _, _ = build(make, request(path, "float32"), tmp_path / "wide")
    artifact, executed, session = build(make, request(path, "int4-weights"), tmp_path / "narrow")
    assert executed == {"int4-weights": 2}
    assert agrees(path, session, "int4-weights")["rel_l2"] > 1e-3
    assert artifact.size_bytes < wide.size_bytes / 3


@each_target
def test_four_bit_weights_of_one_product(make: Any, tmp_path: Path) -> None:
    path = transformer_block(tmp_path / "m.onnx")
    _, executed, session = build(make, request(path, "float32", {"/mlp/fc2": "int4-weights"}), tmp_path / "one")
    assert executed == {"int4-weights": 1, "float32": 1}
    agrees(path, session, "float32", "int4-weights")
    _, executed, session = build(make, request(path, "int8", {"/mlp/fc2": "int4-weights"}), tmp_path / "two")
    assert executed == {"int4-weights": 1, "int8": 1}
    agrees(path, session, "int8", "int4-weights")


@each_target
def test_four_bit_weights_need_a_matrix_product(make: Any, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="int4-weights layers"):
        make().build(request(convolutional(tmp_path / "m.onnx"), "int4-weights"), tmp_path / "out")


@each_way
def test_each_way_to_calibrate(make: Any, way: str, tmp_path: Path) -> None:
    """One outlier among the cases: the ways differ in what they make of it, and all stay close to the reference."""
    path = convolutional(tmp_path / "m.onnx")

    def source() -> Any:
        return with_an_outlier(path)

    assert way in make().calibrations
    chosen, executed, session = build(make, request(path, "int8", None, way, source), tmp_path / "chosen")
    own, _, _ = build(make, request(path, "int8", None, "", source), tmp_path / "own")
    assert executed.get("int8") == 3
    agrees(path, session, "int8")
    assert (chosen.digest == own.digest) == (way == make().calibrations[0])


@pytest.mark.parametrize("tool", tuple(OpenVinoTarget.quantizers)[1:])
def test_a_quantizer_follows_a_plan_and_calibrates_in_each_of_its_ways(tool: str, tmp_path: Path) -> None:
    path = convolutional(tmp_path / "m.onnx")
    rules = {"/block1/conv": "float32"}
    digests = set()
    for way in OpenVinoTarget.quantizers[tool]:
        asked = replace(request(path, "int8", rules, way, lambda: with_an_outlier(path)), quantizer=tool)
        artifact, executed, session = build(OpenVinoTarget, asked, tmp_path / way)
        assert executed == {"int8": 2, "float32": 1}
        agrees(path, session, "int8", "float32")
        digests.add(artifact.digest)
    assert len(digests) == len(OpenVinoTarget.quantizers[tool])


def test_a_way_to_calibrate_is_one_of_the_quantizers(tmp_path: Path) -> None:
    asked = request(convolutional(tmp_path / "m.onnx"), "int8", None, "mse")
    with pytest.raises(Unsupported, match=r"calibration 'mse'.*it has minmax, percentile, entropy"):
        OpenVinoTarget().build(replace(asked, quantizer="onnxruntime"), tmp_path / "out")


def test_four_bit_weights_beside_int8_of_another_quantizer(tmp_path: Path) -> None:
    path = transformer_block(tmp_path / "m.onnx")
    asked = replace(request(path, "int8", {"/mlp/fc2": "int4-weights"}), quantizer="onnxruntime")
    _, executed, session = build(OpenVinoTarget, asked, tmp_path / "out")
    assert executed == {"int4-weights": 1, "int8": 1}
    agrees(path, session, "int8", "int4-weights")


@each_target
def test_what_one_case_alone_reaches_is_not_cut_off(make: Any, tmp_path: Path) -> None:
    """A detector's objectness is high in the few places and cases where it sees something."""
    path = convolutional(tmp_path / "m.onnx")
    reference = describe(path)
    (rare,) = [
        {name: 8 * value for name, value in feed.items()} for feed in feeds(reference.inputs[0], count=1, seed=9)
    ]

    def source() -> Any:
        yield from feeds(reference.inputs[0], count=7)
        yield rare

    _, executed, session = build(make, request(path, "int8", None, "", source), tmp_path / "out")
    assert executed.get("int8") == 3
    check_parity({"out": run_reference(reference, rare)["out"]}, {"out": session.run(rare)["out"]}, "int8")


@each_target
def test_a_batch_norm_that_nothing_folds_stays_float(
    make: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = norm_after_relu(tmp_path / "m.onnx")
    capfd.readouterr()
    _, executed, session = build(make, request(path, "int8"), tmp_path / "out")
    assert (*capfd.readouterr(), caplog.messages) == ("", "", [])
    assert executed == {"int8": 2}
    assert agrees(path, session, "int8")["rel_l2"] < 0.05


@each_target
def test_an_image_beside_logits_keeps_a_range_of_its_own(make: Any, tmp_path: Path) -> None:
    """NNCF gives all inputs of a concatenation one range: the first layer would read the image in a few steps."""
    path = two_stages(tmp_path / "m.onnx", 200.0)
    _, executed, session = build(make, request(path, "int8"), tmp_path / "out")
    assert executed.get("int8") == 3
    assert agrees(path, session, "int8")["rel_l2"] < 0.1


@each_target
def test_a_way_the_target_lacks_is_refused(make: Any, tmp_path: Path) -> None:
    path = convolutional(tmp_path / "m.onnx")
    with pytest.raises(Unsupported, match="calibration 'guess'"):
        make().build(request(path, "int8", None, "guess"), tmp_path / "out")


@each_target
def test_abilities_are_declared(make: Any) -> None:
    assert isinstance(make(), PerLayer)
    assert isinstance(make(), Calibrating)


def test_one_float_precision_a_model_on_openvino(tmp_path: Path) -> None:
    asked = request(convolutional(tmp_path / "m.onnx"), "bfloat16", {"/head/conv": "float32"})
    with pytest.raises(Unsupported, match="one float precision"):
        OpenVinoTarget().build(asked, tmp_path / "out")
    mixed = request(convolutional(tmp_path / "m.onnx"), "int8", {"/head/conv": "bfloat16"})
    artifact = OpenVinoTarget().build(mixed, tmp_path / "mixed")
    assert dict(artifact.settings) == {"INFERENCE_PRECISION_HINT": "bf16"}


def test_a_plan_survives_json() -> None:
    plan = PrecisionPlan.of({"/a/*": "float32", "b[0]": "int8"})
    assert PrecisionPlan.from_json(plan.as_json()) == plan
    assert plan.rules[1].fits("b[0]")
