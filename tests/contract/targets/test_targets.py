"""The contract of targets, kept by those that come with edgedeploy; and what is particular to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.reference.export import describe, run_reference
from edgedeploy.reference.parity import check_parity
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget
from edgedeploy.testing import TargetContract
from edgedeploy.testing.models import Model


class TestOnnxRuntime(TargetContract):
    def make(self) -> Target:
        return OnnxRuntimeTarget()

    @pytest.mark.parametrize("narrow", ["int8", "int8-dynamic"])
    def test_seven_bit_weights_for_boards_that_saturate(self, narrow: str, two_heads: Model, tmp_path: Path) -> None:
        self.make().build(replace(two_heads.request(narrow), weight_bits=7), tmp_path)
        weights = [
            onnx.numpy_helper.to_array(tensor)
            for tensor in onnx.load(str(tmp_path / "model.onnx")).graph.initializer
            if tensor.data_type == TensorProto.INT8 and len(tensor.dims) in (2, 4)
        ]
        assert weights
        assert all(np.abs(array.astype(int)).max() <= 64 for array in weights)

    def test_no_other_bits_and_no_bits_for_float_weights(self, two_heads: Model, tmp_path: Path) -> None:
        for precision, bits in (("int8", 6), ("float32", 7)):
            with pytest.raises(Unsupported, match=f"{bits}-bit weights in {precision}"):
                self.make().build(replace(two_heads.request(precision), weight_bits=bits), tmp_path / precision)


class TestOpenVino(TargetContract):
    def make(self) -> Target:
        return OpenVinoTarget()

    @pytest.mark.parametrize("way", OpenVinoTarget.quantizers)
    def test_seven_bit_weights_for_boards_that_saturate(self, way: str, two_heads: Model, tmp_path: Path) -> None:
        import openvino as ov

        self.make().build(replace(two_heads.request("int8"), weight_bits=7, quantizer=way), tmp_path)
        model = ov.Core().read_model(str(tmp_path / "model.xml"))
        weights = [
            operation.get_data()
            for operation in model.get_ops()
            if operation.get_type_name() == "Constant"
            and operation.get_element_type().get_type_name() == "i8"
            and len(operation.get_output_shape(0)) == 4
        ]
        assert weights
        assert all(np.abs(array.astype(int)).max() <= 64 for array in weights)

    def cannot_run(self, precision: str, executed: Mapping[str, int]) -> str | None:
        if precision == "bfloat16" and set(executed) == {"float32"}:
            return "this CPU has no bfloat16 instructions: OpenVINO runs float32 instead"
        return None


@pytest.mark.shared
@pytest.mark.parametrize("make", [OnnxRuntimeTarget, OpenVinoTarget])
@pytest.mark.parametrize("name", ["lwnet/wnet_drive_512.onnx", "yunet/yunet_n_320_320.onnx"])
def test_published_models_build(make: type[Target], name: str, shared: Path, tmp_path: Path) -> None:
    """Networks that other people exported: several outputs, older operator sets, sizes of their own."""
    reference = describe(shared / "models" / name)
    folder = tmp_path / "built"
    spec = reference.inputs[0]
    feed = {spec.name: np.random.default_rng(0).random(spec.shape, np.float32)}
    request = BuildRequest(reference.path, reference.inputs, reference.outputs, "float32", lambda: iter([feed]))
    artifact = make().build(request, folder)
    session = open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1)
    check_parity(run_reference(reference, feed), session.run(feed), "float32")
