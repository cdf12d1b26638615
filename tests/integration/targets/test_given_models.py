"""Models that are quantized already, or compute in float64: built, run and held against themselves as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from quantized_onnx import GIVEN, double_convolution, doubles, dynamic, four_bit_pairs, four_bits, operators, pairs

from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.target import BuildRequest, TakesAsGiven, Target
from edgedeploy.records.artifact import random_feed
from edgedeploy.records.precision import AS_GIVEN
from edgedeploy.reference.export import Reference, describe, run_reference
from edgedeploy.reference.parity import check_executed, check_parity
from edgedeploy.reference.take_in import take_in
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.litert.target import LiteRtTarget
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget

pytestmark = [pytest.mark.beside, pytest.mark.usefixtures("warm_converter")]

Write = Callable[[Path], Path]

RAN: dict[Write, tuple[str, str | None]] = {
    pairs: ("int8", "int8"),
    operators: ("int8", None),
    dynamic: ("int8-dynamic", "float32"),
    four_bits: ("int4-weights", "int4-weights"),
    four_bit_pairs: ("int4-weights", "int4-weights"),
    doubles: ("float64", None),
}
"""What ONNX Runtime and OpenVINO run such a file in; None where the target says that it would not run it as it is."""


def taken(write: Write, folder: Path) -> Reference:
    path = folder / "reference.onnx"
    path.write_bytes(take_in(write(folder / "m.onnx"), {}).data)
    return replace(describe(path), as_given=True)


@pytest.mark.parametrize("write", GIVEN, ids=lambda write: write.__name__)
def test_the_copy_is_the_file_as_it_is(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx")
    copy = take_in(path, {})
    assert ("quantized already (operator" if write is not doubles else "computes in float64 (operator MatMul") in (
        copy.as_given
    )
    before, after = onnx.load(str(path)), onnx.ModelProto.FromString(copy.data)
    assert [node.op_type for node in before.graph.node] == [node.op_type for node in after.graph.node]
    assert {entry.version for entry in before.opset_import} == {entry.version for entry in after.opset_import}
    assert {item.name: item.raw_data for item in before.graph.initializer} == {
        item.name: item.raw_data for item in after.graph.initializer
    }


@pytest.mark.parametrize("target", [OnnxRuntimeTarget(), OpenVinoTarget()], ids=lambda target: target.name)
@pytest.mark.parametrize("write", GIVEN, ids=lambda write: write.__name__)
def test_it_is_built_and_run_as_it_is(write: Write, target: Target, tmp_path: Path) -> None:
    reference = taken(write, tmp_path)
    wanted = RAN[write][target.name == "openvino"]
    assert isinstance(target, TakesAsGiven)
    if wanted is None:
        with pytest.raises(
            Unsupported, match="QLinearConv" if write is operators else r"'/product' \(MatMul\) in float32"
        ):
            target.check_given(reference.path)
        return
    target.check_given(reference.path)
    request = BuildRequest(reference.path, reference.inputs, reference.outputs, AS_GIVEN, lambda: iter([]))
    artifact = target.build(request, tmp_path / "built")
    session = open_session(target.name, tmp_path / "built", artifact.entry, dict(artifact.settings), 1)
    assert set(session.executed()) == {wanted}
    check_executed(AS_GIVEN, session.executed())
    feed = random_feed(reference.inputs, 7)
    found = {name: np.asarray(value) for name, value in session.run(feed).items()}
    assert check_parity(run_reference(reference, feed), found, AS_GIVEN)["rel_l2"] < 0.1


def test_a_kernel_that_is_missing_is_named_at_the_door(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"ONNX Runtime: .*implementation for Conv.*'/conv'"):
        take_in(double_convolution(tmp_path / "m.onnx"), {})


def test_a_target_that_starts_from_float_models_does_not_take_it(tmp_path: Path) -> None:
    assert not isinstance(LiteRtTarget(), TakesAsGiven)
    reference = taken(pairs, tmp_path)
    request = BuildRequest(reference.path, reference.inputs, reference.outputs, AS_GIVEN, lambda: iter([]))
    with pytest.raises(Unsupported, match=AS_GIVEN):
        LiteRtTarget().build(request, tmp_path / "built")
