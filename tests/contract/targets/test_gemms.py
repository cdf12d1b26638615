"""Gemms as other exporters write them, in ONNX Runtime's narrow precisions: factors, biases of one number or by rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_onnx import feeds, request

from edgedeploy.errors import Unsupported
from edgedeploy.reference.export import describe, run_reference
from edgedeploy.reference.parity import compare
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget

ROWS, INPUTS, OUTPUTS = 8, 64, 8
"""As many rows as outputs: a bias by rows has as many numbers as one by columns."""


def gemm(path: Path, bias: Any, weights: Any = None, **attributes: Any) -> Path:
    """image (8, 64) -> out (8, 8)."""
    drawn = np.random.default_rng(0).standard_normal((INPUTS, OUTPUTS)) / 8
    values = {"w": drawn if weights is None else weights, "b": bias}
    held = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in values.items()]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [ROWS, size])
        for name, size in (("image", INPUTS), ("out", OUTPUTS))
    ]
    node = helper.make_node("Gemm", ["image", "w", "b"], ["out"], name="/fc", **attributes)
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def rel_l2(path: Path, precision: str, folder: Path) -> float:
    reference = describe(path)
    artifact = OnnxRuntimeTarget().build(request(path, precision), folder)
    session = open_session("onnxruntime", folder, artifact.entry, dict(artifact.settings), 1)
    assert session.executed() == {precision: 1}
    row = next(feeds(reference.inputs[0]))
    return compare(run_reference(reference, row), session.run(row))["out"]["rel_l2"]


BY_COLUMNS = np.random.default_rng(1).standard_normal(OUTPUTS) * 3


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "int8-weights"])
@pytest.mark.parametrize(
    ("bias", "factors"),
    [(BY_COLUMNS, {"beta": -3.0}), (BY_COLUMNS, {"alpha": 0.5, "beta": 0.5}), ([2.0], {}), (BY_COLUMNS[None], {})],
    ids=["beta", "both", "one number", "one row"],
)
def test_factors_and_biases_count_as_they_are_written(
    bias: Any, factors: dict[str, float], precision: str, tmp_path: Path
) -> None:
    assert rel_l2(gemm(tmp_path / "m.onnx", bias, **factors), precision, tmp_path / "out") < 0.03


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "int8-weights", "int4-weights"])
def test_a_bias_by_rows_stays_float(precision: str, tmp_path: Path) -> None:
    path = gemm(tmp_path / "m.onnx", np.arange(ROWS)[:, None])
    with pytest.raises(Unsupported, match=f"{precision} layers: the model has no"):
        OnnxRuntimeTarget().build(request(path, precision), tmp_path / "out")


@pytest.mark.parametrize("precision", ["int8-dynamic", "int8-weights", "int4-weights"])
def test_weights_that_are_no_numbers_are_not_rounded_to_some(precision: str, tmp_path: Path) -> None:
    weights = np.ones((INPUTS, OUTPUTS))
    weights[3, 5] = -np.inf
    path = gemm(tmp_path / "m.onnx", BY_COLUMNS, weights)
    with pytest.raises(Unsupported, match=f"{precision} layers: the model has no"):
        OnnxRuntimeTarget().build(request(path, precision), tmp_path / "out")
