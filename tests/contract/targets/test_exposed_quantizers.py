"""`edgedeploy debug` reads the tensors of a file by another quantizer where they have their values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_onnx import convolutional, feeds, request

from edgedeploy.reference.export import describe
from edgedeploy.reference.layers import name_nodes
from edgedeploy.targets.compare.exposed import expose_openvino, expose_source
from edgedeploy.targets.openvino.target import OpenVinoTarget


@pytest.mark.parametrize("tool", OpenVinoTarget.quantizers)
def test_every_tensor_that_is_read_is_near_the_float_models(tool: str, tmp_path: Path) -> None:
    """ONNX Runtime's quantizer drops a ReLU where a range begins at zero: its tensor is then read after the range."""
    path = convolutional(tmp_path / "m.onnx")
    source = onnx.load(str(path))
    name_nodes(source)
    folder = tmp_path / "built"
    artifact = OpenVinoTarget().build(replace(request(path, "int8"), quantizer=tool), folder)
    there = expose_openvino(source, artifact, folder, tmp_path)
    relus = [node.output[0] for node in source.graph.node if node.op_type == "Relu"]
    assert relus
    assert set(relus) <= set(there.tensors)
    (feed,) = feeds(describe(path).inputs[0], count=1, seed=3)
    found = there.open(relus)(feed)
    for name, wanted in expose_source(source, tmp_path).open(relus)(feed).items():
        assert np.linalg.norm(found[name] - wanted) < 0.1 * np.linalg.norm(wanted), name
