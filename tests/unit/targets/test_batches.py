"""Artifacts that answer several cases at once: each case gets the answer that it gets alone, or the build says why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.batches import open_batch
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.litert import LiteRtTarget
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget
from edgedeploy.targets.openvino import OpenVinoTarget

SHAPE = (1, 4, 6)
TARGETS = {"onnxruntime": OnnxRuntimeTarget, "openvino": OpenVinoTarget}


def ints(name: str, *values: int) -> Any:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def attention_like(path: Path) -> None:
    """Splits the last axis in two heads and back, as exported for one case: its Reshapes begin with 1."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.normal(size=(6, 6)).astype(np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["mixed"]),
        helper.make_node("Reshape", ["mixed", "heads"], ["apart"]),
        helper.make_node("Transpose", ["apart"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["turned"], ["back"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["back", "whole"], ["y"]),
    ]
    save(path, nodes, [weight, ints("heads", 1, 4, 2, 3), ints("whole", 1, -1, 6)])


def with_class_token(path: Path) -> None:
    """Puts a constant beside the case's rows, as vision transformers do, and takes its rows again; torch's Reshapes have
    ``allowzero``."""
    token = numpy_helper.from_array(np.full((1, 1, 6), 0.5, np.float32), "token")
    nodes = [
        helper.make_node("Concat", ["token", "x"], ["both"], axis=1),
        helper.make_node("Reshape", ["both", "heads"], ["apart"], allowzero=1),
        helper.make_node("Softmax", ["apart"], ["mixed"], axis=1),
        helper.make_node("Reshape", ["mixed", "whole"], ["again"], allowzero=1),
        helper.make_node("Slice", ["again", "one", "five", "rows"], ["y"]),
    ]
    held = [token, ints("heads", 1, 5, 2, -1), ints("whole", 1, 5, 6), ints("one", 1), ints("five", 5), ints("rows", 1)]
    save(path, nodes, held)


def mixing(path: Path) -> None:
    """Takes the mean over all cases away from each."""
    save(
        path,
        [helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=1), helper.make_node("Sub", ["x", "mean"], ["y"])],
    )


def save(path: Path, nodes: list[Any], held: list[Any] | None = None) -> None:
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:], held or [])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def request(folder: Path, write: Callable[[Path], None], max_batch: int) -> BuildRequest:
    reference = folder / "model.onnx"
    write(reference)

    def cases() -> Iterator[dict[str, Any]]:
        yield {"x": np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)}

    specs = [(TensorSpec(name, "float32", SHAPE),) for name in ("x", "y")]
    return BuildRequest(reference, *specs, "float32", cases, max_batch=max_batch)


@pytest.mark.parametrize("write", [attention_like, with_class_token])
@pytest.mark.parametrize("name", TARGETS)
def test_each_case_of_a_batch_gets_its_own_answer(name: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    pytest.importorskip(name)
    artifact = TARGETS[name]().build(request(tmp_path, write, 4), tmp_path / "artifact")
    session = open_session(name, tmp_path / "artifact", artifact.entry, dict(artifact.settings), 1)
    cases = np.random.default_rng(2).normal(size=(3, *SHAPE[1:])).astype(np.float32)
    together = session.run({"x": cases})["y"]
    for row in range(3):
        np.testing.assert_allclose(
            together[row], session.run({"x": cases[row : row + 1]})["y"][0], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("name", TARGETS)
def test_one_case_at_once_is_built_as_before(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    artifact = TARGETS[name]().build(request(tmp_path, attention_like, 1), tmp_path / "artifact")
    session = open_session(name, tmp_path / "artifact", artifact.entry, dict(artifact.settings), 1)
    with pytest.raises(Exception, match=r"(?i)dimension|shape|incompatible"):
        session.run({"x": np.zeros((2, *SHAPE[1:]), np.float32)})


@pytest.mark.parametrize("name", TARGETS)
def test_a_model_that_mixes_its_cases_is_refused(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    with pytest.raises(Unsupported, match="not what it is alone"):
        TARGETS[name]().build(request(tmp_path, mixing, 2), tmp_path / "artifact")
    assert not list((tmp_path / "artifact").iterdir())


@pytest.mark.parametrize("name", TARGETS)
def test_whole_numbers_that_are_mixed_are_refused_too(name: str, tmp_path: Path) -> None:
    """A mean over the batch, of numbers that have no shares: cases that were equal would not show it."""
    pytest.importorskip(name)
    reference = tmp_path / "model.onnx"
    table = numpy_helper.from_array(np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32), "table")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Add", ["x", "mean"], ["y"]),
    ]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, (1, 4))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, SHAPE)
    graph = helper.make_graph(nodes, "g", [ids], [y], [table])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(reference))

    def cases() -> Iterator[dict[str, Any]]:
        for seed in range(2):
            yield {"ids": np.random.default_rng(seed).integers(0, 9, (1, 4))}

    specs = (TensorSpec("ids", "int64", (1, 4)),), (TensorSpec("y", "float32", SHAPE),)
    asked = BuildRequest(reference, *specs, "float32", cases, max_batch=3)
    with pytest.raises(Unsupported, match="not what it is alone"):
        TARGETS[name]().build(asked, tmp_path / "artifact")


def test_a_target_without_batches_says_so(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(Unsupported, match="one case at once"):
        LiteRtTarget().build(request(tmp_path, attention_like, 2), tmp_path / "artifact")


def test_a_size_that_others_use_too_stays_theirs(tmp_path: Path) -> None:
    """The constant of a Reshape is also an input of an Expand, which knows no open size."""
    path = tmp_path / "model.onnx"
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["same"]),
        helper.make_node("Expand", ["same", "shape"], ["y"]),
    ]
    save(path, nodes, [ints("shape", 1, 4, 6)])
    open_batch(path)
    held = {item.name: numpy_helper.to_array(item).tolist() for item in onnx.load(str(path)).graph.initializer}
    assert held["shape"] == [1, 4, 6]
    assert [-1, 4, 6] in held.values()
