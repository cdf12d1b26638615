"""What ONNX Runtime's int8 files leave out changes nothing that runs: the outputs are equal bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign_networks import counted_loop
from small_onnx import convolutional, feeds, request, transformer_block

from edgedeploy.reference.export import describe
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.onnxruntime import quantize as module
from edgedeploy.targets.onnxruntime.compact import compact
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget


@pytest.mark.parametrize("write", [convolutional, transformer_block])
def test_a_compact_file_computes_the_same_under_the_same_names(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "m.onnx")
    own = OnnxRuntimeTarget().build(request(path, "int8"), tmp_path / "own")
    monkeypatch.setattr(module, "compact", lambda model, source: None)
    plain = OnnxRuntimeTarget().build(request(path, "int8"), tmp_path / "plain")
    assert own.size_bytes < plain.size_bytes - 500
    sessions = [
        open_session(item.target, tmp_path / name, item.entry, dict(item.settings), 1)
        for name, item in (("own", own), ("plain", plain))
    ]
    assert sessions[0].executed() == sessions[1].executed()
    for feed in feeds(describe(path).inputs[0], count=3, seed=4):
        one, two = (session.run(feed)["out"] for session in sessions)
        np.testing.assert_array_equal(one, two)
    models = [onnx.load(str(tmp_path / name / "model.onnx")) for name in ("own", "plain")]
    layers = [{node.name for node in model.graph.node if "Linear" not in node.op_type} for model in models]
    assert layers[0] == layers[1]
    read = {f"{name}_DequantizeLinear_Output" for name in tensors(onnx.load(str(path)))} & tensors(models[1])
    assert read
    assert read <= tensors(models[0]), "`edgedeploy debug` reads quantized activations there"


def test_a_model_with_subgraphs_is_left_alone(tmp_path: Path) -> None:
    model = onnx.load(str(counted_loop(tmp_path / "m.onnx")))
    before = model.SerializeToString()
    compact(model, model)
    assert model.SerializeToString() == before


def tensors(model: Any) -> set[str]:
    return {name for node in model.graph.node for name in node.output}
