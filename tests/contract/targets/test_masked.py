"""int8 of attention that masks scores, and of transposed convolutions in groups: as near to the float model as without."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_onnx import feeds, request

from edgedeploy.interfaces.target import Target
from edgedeploy.reference.export import describe, run_reference
from edgedeploy.reference.masks import masked
from edgedeploy.reference.parity import compare
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.litert import LiteRtTarget
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget
from edgedeploy.targets.openvino import OpenVinoTarget

TARGETS = (OnnxRuntimeTarget(), OpenVinoTarget(), LiteRtTarget())
TOKENS, FEATURES = 12, 32
make_node = helper.make_node


def causal(path: Path, mask: float) -> Path:
    """Attention of which each token sees those before it: image (1, 12, 32) -> out (1, 12, 32)."""
    rng = np.random.default_rng(0)
    values = {
        name: rng.standard_normal((FEATURES, FEATURES)) / math.sqrt(FEATURES) for name in ("wq", "wk", "wv", "wo")
    }
    values["mask"] = np.where(np.tri(TOKENS) > 0, 0.0, mask)
    values["scale"] = np.array(1 / math.sqrt(FEATURES))
    nodes = [
        *(make_node("MatMul", ["image", f"w{part}"], [part], name=f"/{part}") for part in "qkv"),
        make_node("Transpose", ["k"], ["turned"], name="/turn", perm=[0, 2, 1]),
        make_node("MatMul", ["q", "turned"], ["scores"], name="/scores"),
        make_node("Mul", ["scores", "scale"], ["scaled"], name="/scale"),
        make_node("Add", ["scaled", "mask"], ["seen"], name="/mask"),
        make_node("Softmax", ["seen"], ["shares"], name="/softmax", axis=-1),
        make_node("MatMul", ["shares", "v"], ["mixed"], name="/mix"),
        make_node("MatMul", ["mixed", "wo"], ["out"], name="/out"),
    ]
    return save(path, nodes, values, [1, TOKENS, FEATURES], [1, TOKENS, FEATURES])


def save(path: Path, nodes: list[Any], values: dict[str, Any], given: list[int], answered: list[int]) -> Path:
    held = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in values.items()]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", given), ("out", answered))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def rel_l2(path: Path, target: Target, folder: Path) -> float:
    reference = describe(path)
    artifact = target.build(request(path, "int8"), folder)
    session = open_session(target.name, folder, artifact.entry, dict(artifact.settings), 1)
    rows = list(feeds(reference.inputs[0], count=3, seed=9))
    return max(compare(run_reference(reference, row), session.run(row))["out"]["rel_l2"] for row in rows)


@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
@pytest.mark.parametrize("mask", [-math.inf, -1e9])
def test_a_mask_costs_the_scores_that_count_nothing(mask: float, target: Target, tmp_path: Path) -> None:
    assert rel_l2(causal(tmp_path / "m.onnx", mask), target, tmp_path / "out") < 0.1
    # one range for scores and mask loses 0.3 to 0.97 of the answer


def test_only_what_masks_stays_float(tmp_path: Path) -> None:
    assert set(masked(onnx.load(str(causal(tmp_path / "m.onnx", -1e4))))) == {"/scale", "/mask", "/softmax"}
    assert masked(onnx.load(str(causal(tmp_path / "bias.onnx", -4.0)))) == []


def test_transposed_convolutions_in_groups_are_built(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = {
        "w": rng.standard_normal((6, 2, 4, 4)) / 4,
        "b": rng.standard_normal(4),
        "v": rng.standard_normal((3, 4, 1, 1)),
    }
    nodes = [
        make_node("ConvTranspose", ["image", "w", "b"], ["t"], name="/up", group=2, strides=[2, 2], pads=[1] * 4),
        make_node("Conv", ["t", "v"], ["out"], name="/head"),
    ]
    path = save(tmp_path / "m.onnx", nodes, values, [1, 6, 8, 8], [1, 3, 16, 16])
    assert rel_l2(path, OnnxRuntimeTarget(), tmp_path / "out") < 0.05
