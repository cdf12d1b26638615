"""Artifacts of one tile: of networks whose weights lie in a file of their own, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.variant import Variant
from edgedeploy.reference import external
from edgedeploy.reference.export import describe
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.study.tiled import cut_request, of_volumes
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget

SIDES = (8, 12, 8)
CUT = Variant("onnxruntime", "float32", 1.0, (), 1, tile="6")


def volume() -> Array:
    return np.random.default_rng(1).standard_normal((1, 1, *SIDES)).astype(np.float32)


def request(folder: Path) -> BuildRequest:
    """Of a convolution whose weights lie beside it."""
    weights = np.random.default_rng(0).standard_normal((24, 1, 3, 3, 3)).astype(np.float32)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, *SIDES]) for n, c in (("x", 1), ("y", 24))]
    node = helper.make_node("Conv", ["x", "w"], ["y"], "convolution", pads=[1] * 6)
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    external.save(model, folder / "reference.onnx", most_inside_bytes=0)
    reference = describe(folder / "reference.onnx")

    def cases() -> Iterator[dict[str, Array]]:
        yield {"x": volume()}

    return BuildRequest(reference.path, reference.inputs, reference.outputs, "float32", cases)


def test_a_network_with_its_weights_in_a_file_runs_in_tiles(tmp_path: Path) -> None:
    whole = request(tmp_path)
    assert external.has_weights_file(whole.reference)
    cut, plan = cut_request(whole, CUT)
    assert plan is not None and plan.count > 1
    assert next(iter(cut.calibration()))["x"].shape == (1, 1, 6, 6, 6)
    folder = tmp_path / "artifact"
    made = of_volumes(OnnxRuntimeTarget().build(cut, folder), plan, whole, folder)
    session = open_session(made.target, folder, made.entry, dict(made.settings), 1)
    (tmp_path / "whole").mkdir()
    external.copy(whole.reference, tmp_path / "whole" / "reference.onnx")
    alone = open_session(made.target, tmp_path / "whole", "reference.onnx", {}, 1)
    assert np.array_equal(session.run({"x": volume()})["y"], alone.run({"x": volume()})["y"])


def test_one_that_is_too_large_for_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = request(tmp_path)
    monkeypatch.setattr(external, "MOST_IN_ONE_FILE_BYTES", 1000)
    with pytest.raises(Unsupported, match=r"tiles of 6 of .*its weights have 2592 bytes.*tile = \[0\]"):
        cut_request(whole, CUT)


def test_what_is_no_volume_is_refused(tmp_path: Path) -> None:
    whole = request(tmp_path)
    flat = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [flat], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    external.weights_file(whole.reference).unlink()
    onnx.save(model, str(whole.reference))
    reference = describe(whole.reference)
    with pytest.raises(Unsupported):
        cut_request(
            BuildRequest(reference.path, reference.inputs, reference.outputs, "float32", whole.calibration), CUT
        )
