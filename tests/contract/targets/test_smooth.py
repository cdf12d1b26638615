"""SmoothQuant on ONNX Runtime: outliers of a few channels cost the others nothing, and the float network stays the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_onnx import feeds, request, transformer_block

from edgedeploy.reference.export import describe, open_onnx, run_reference
from edgedeploy.reference.parity import compare
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.onnxruntime.smooth import smooth
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget


def outliers(path: Path, *, branch: bool = False) -> Path:
    """image (1, 16, 64) -> out (1, 16, 64): a LayerNorm whose third channel is 60 times as large as the others, two products
    of it, and one of their product, which a sum reads too; with ``branch`` the norm is read inside an If as well."""
    rng = np.random.default_rng(0)
    scale = np.where(np.arange(64) == 3, 60.0, 1.0)
    values = {
        "scale": scale,
        "shift": np.zeros(64),
        "w1": rng.standard_normal((64, 64)) / 8 / np.sqrt(scale)[:, None],
        "w2": rng.standard_normal((64, 64)) / 8 / np.sqrt(scale)[:, None],
        "w3": rng.standard_normal((64, 64)) / 8,
    }
    make = helper.make_node
    nodes = [
        make("LayerNormalization", ["image", "scale", "shift"], ["normed"], name="/norm"),
        make("MatMul", ["normed", "w1"], ["left"], name="/left"),
        make("MatMul", ["normed", "w2"], ["right"], name="/right"),
        make("Mul", ["left", "right"], ["both"], name="/both"),
        make("MatMul", ["both", "w3"], ["mixed"], name="/mix"),
        make("Add", ["mixed", "both"], ["out"], name="/sum"),
    ]
    if branch:
        inner = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1, 16, 64])
        ways = [
            helper.make_graph([make(operator, ["normed"], ["inner"])], operator, [], [inner])
            for operator in ("Relu", "Neg")
        ]
        nodes[-1].output[0] = "sum"
        nodes += [
            make("ReduceMean", ["image"], ["mean"], keepdims=0),
            make("Cast", ["mean"], ["way"], to=TensorProto.BOOL),
            make("If", ["way"], ["chosen"], name="/if", then_branch=ways[0], else_branch=ways[1]),
            make("Add", ["sum", "chosen"], ["out"], name="/all"),
        ]
    graph = helper.make_graph(
        nodes,
        "outliers",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 16, 64])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 16, 64])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize("branch", [False, True], ids=["plain", "branch"])
def test_smoothing_changes_nothing_in_float(branch: bool, tmp_path: Path) -> None:
    path = outliers(tmp_path / "m.onnx", branch=branch)
    reference = describe(path)
    rows = list(feeds(reference.inputs[0], count=3))
    model = onnx.load(str(path))
    added = smooth(model, {"/left", "/right", "/mix"}, rows, tmp_path / "scratch.onnx")
    own = ["normed/smooth"] if branch else []
    assert added == [*own, "both/smooth"], "the norm takes its division in; what others read too gets a Mul"
    assert not (tmp_path / "scratch.onnx").exists()
    onnx.save(model, str(tmp_path / "smooth.onnx"))
    session = open_onnx(tmp_path / "smooth.onnx", threads=1)
    for feed in rows:
        np.testing.assert_allclose(session.run(["out"], feed)[0], run_reference(reference, feed)["out"], atol=2e-4)


def test_it_is_nearer_than_products_alone_and_than_the_default(tmp_path: Path) -> None:
    path = outliers(tmp_path / "m.onnx")
    reference = describe(path)
    (fresh,) = feeds(reference.inputs[0], count=1, seed=9)
    exact = run_reference(reference, fresh)
    sqnr_db = {}
    for tool in ("", "onnxruntime-products", "onnxruntime-smooth"):
        folder = tmp_path / (tool or "own")
        artifact = OnnxRuntimeTarget().build(replace(request(path, "int8"), quantizer=tool), folder)
        session = open_session("onnxruntime", folder, artifact.entry, dict(artifact.settings), 1)
        assert session.executed() == {"int8": 3}
        sqnr_db[tool] = compare(exact, session.run(fresh))["out"]["sqnr_db"]
    assert sqnr_db[""] <= sqnr_db["onnxruntime-products"] < sqnr_db["onnxruntime-smooth"] - 3


def test_what_reads_the_models_input_is_smoothed_too(tmp_path: Path) -> None:
    path = transformer_block(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    rows = list(feeds(describe(path).inputs[0], count=2))
    assert smooth(model, {"/mlp/fc1"}, rows, tmp_path / "scratch.onnx") == ["image/smooth"]
    assert smooth(onnx.load(str(path)), set(), rows, tmp_path / "scratch.onnx") == []


@pytest.mark.parametrize("way", ["minmax", "percentile", "entropy"])
def test_a_plan_keeps_its_layers(way: str, tmp_path: Path) -> None:
    path = outliers(tmp_path / "m.onnx")
    asked = replace(request(path, "int8", {"/left": "float32"}, way), quantizer="onnxruntime-smooth")
    artifact = OnnxRuntimeTarget().build(asked, tmp_path / "out")
    session = open_session("onnxruntime", tmp_path / "out", artifact.entry, dict(artifact.settings), 1)
    assert session.executed() == {"int8": 2, "float32": 1}
