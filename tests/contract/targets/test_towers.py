"""An image tower and a text tower with random weights, each in a precision of its own, as targets build them here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.interfaces.task import Array
from edgedeploy.records.precision import NO_RULES, PrecisionPlan
from edgedeploy.reference.export import Reference, export_reference, run_reference
from edgedeploy.reference.layers import layers_of
from edgedeploy.reference.parity import check_parity
from edgedeploy.reference.program import PROGRAM_FILE, export_program
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.litert.target import LiteRtTarget
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget
from edgedeploy.tasks.image_text.task import ImageText, ImageTextOptions

pytestmark = pytest.mark.usefixtures("warm_converter")

TASK = ImageText(
    ImageTextOptions(
        tokens=40, dim=16, resolutions=(32,), image_size=48, train_cases=4, calibration_cases=4, selection_cases=2
    )
)
ARCH = {"resolution": 32}
IMAGE_INT8 = PrecisionPlan.of({"node_[Cc]onv*": "int8"})
IMAGE_LAYERS = 5


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder, model, specs = tmp_path_factory.mktemp("towers"), TASK.build(**ARCH).eval(), TASK.input_specs(**ARCH)
    (*samples,) = cases()
    reference = export_reference(model, specs, folder / "reference.onnx", samples=samples)
    export_program(model, specs, folder / PROGRAM_FILE, samples[0])
    return reference


def cases() -> Iterator[dict[str, Array]]:
    return (TASK.inputs(case, **ARCH) for case in TASK.cases("calibration"))


def test_a_towers_products_are_named_by_their_operator(exported: Reference) -> None:
    layers = [layer for layer in layers_of(onnx.load(str(exported.path))) if layer.weighted]
    convolutions = [layer for layer in layers if layer.operator == "Conv"]
    assert len(convolutions) == IMAGE_LAYERS
    assert {layer.name for layer in convolutions} == {
        layer.name for layer in layers if IMAGE_INT8.rules[0].fits(layer.name)
    }
    assert {layer.operator for layer in layers} == {"Conv", "Gemm", "MatMul"}


@pytest.mark.parametrize(
    ("target", "precision", "plan", "narrow"),
    [
        (OnnxRuntimeTarget(), "float32", IMAGE_INT8, {"int8": IMAGE_LAYERS}),
        (OnnxRuntimeTarget(), "int8-dynamic", IMAGE_INT8, {"int8": IMAGE_LAYERS, "int8-dynamic": 7}),
        (OpenVinoTarget(), "float32", IMAGE_INT8, {"int8": IMAGE_LAYERS}),
        (LiteRtTarget(), "float32", NO_RULES, {}),
    ],
    ids=["onnxruntime image", "onnxruntime both", "openvino image", "litert none"],
)
def test_each_tower_has_its_precision(
    target: Target, precision: str, plan: PrecisionPlan, narrow: dict[str, int], exported: Reference, tmp_path: Path
) -> None:
    if not target.probe().ready:
        pytest.skip(target.probe().found)
    program = exported.path.with_name(PROGRAM_FILE) if isinstance(target, LiteRtTarget) else None
    request = BuildRequest(
        exported.path, exported.inputs, exported.outputs, precision, cases, plan=plan, program=program
    )
    artifact = target.build(request, tmp_path / "built")
    session = open_session(target.name, tmp_path / "built", artifact.entry, dict(artifact.settings), 1)
    executed = session.executed()
    assert {name: count for name, count in executed.items() if name.startswith("int")} == narrow
    feed = TASK.inputs(TASK.cases("selection")[0], **ARCH)
    found = session.run(feed)
    check_parity(run_reference(exported, feed), found, "int8" if narrow else "float32")
    assert TASK.evaluate(found, TASK.cases("selection")[0])["agreement"] is not None
