"""What toolchains say in words alone, as their installed releases say it: what is read out of messages holds for these."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.translate import first_line, lasting, nodes_named, with_node
from edgedeploy.runtime.faults import lacks_memory
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget
from edgedeploy.targets.steady import alike

SHAPE = (1, 3, 8, 8)


def model_with(operator: str, path: Path, domain: str = "com.example") -> onnx.ModelProto:
    """``image -> Relu -> operator -> out``; the second node is called ``odd one``."""
    nodes = [
        helper.make_node("Relu", ["image"], ["between"], name="first"),
        helper.make_node(operator, ["between"], ["out"], name="odd one", domain=domain),
    ]
    edges = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("image", "out")]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(domain, 1)]
    made = helper.make_model(helper.make_graph(nodes, "two", edges[:1], edges[1:]), opset_imports=opsets, ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(made, path)
    return made


def refusal_by_onnxruntime(path: Path) -> BaseException:
    import onnxruntime

    with pytest.raises(Exception) as caught:
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return caught.value


def refusal_by_openvino(path: Path) -> BaseException:
    import openvino

    with pytest.raises(RuntimeError) as caught:
        openvino.Core().read_model(str(path))
    return caught.value


@pytest.mark.parametrize("refusal", [refusal_by_onnxruntime, refusal_by_openvino])
def test_a_node_is_named_where_a_toolchain_names_an_operator_alone(
    refusal: Callable[[Path], BaseException], tmp_path: Path
) -> None:
    model = model_with("HoneycombPool", tmp_path / "m.onnx")
    said = first_line(refusal(tmp_path / "m.onnx"))
    assert "HoneycombPool" in said and "odd one" not in said, "it has come to name the node: nothing need be added"
    assert with_node(said, model) == f"{said} (node 'odd one')"
    with pytest.raises(Unsupported, match=r"HoneycombPool.*\(node 'odd one'\)"), nodes_named(tmp_path / "m.onnx"):
        raise Unsupported("a model", said)


@pytest.mark.parametrize("target", [OnnxRuntimeTarget(), OpenVinoTarget()], ids=lambda target: target.name)
def test_the_same_refusal_of_a_build_is_the_same_wherever_it_is_built(target: Target, tmp_path: Path) -> None:
    def refused(operator: str, place: Path) -> BuildError:
        model_with(operator, place / "m.onnx")
        image, out = TensorSpec("image", "float32", SHAPE), TensorSpec("out", "float32", SHAPE)
        with pytest.raises(BuildError) as caught:
            target.build(BuildRequest(place / "m.onnx", (image,), (out,), "float32", lambda: iter(())), place / "built")
        return caught.value

    first = refused("HoneycombPool", tmp_path / "a")
    assert alike(first, refused("HoneycombPool", tmp_path / "elsewhere" / "b"))
    assert not alike(first, refused("SpiralPool", tmp_path / "c"))


def test_the_same_mistake_has_other_counters_each_time_in_openvino() -> None:
    import openvino.opset13 as ops

    def mistake(width: int) -> str:
        with pytest.raises(RuntimeError) as caught:
            ops.add(ops.parameter([2, 3], np.float32), ops.parameter([2, width], np.float32))
        return first_line(caught.value)

    first, second, another = mistake(5), mistake(5), mistake(6)
    assert first != second, "its names have no counters any more"
    assert lasting(first) == lasting(second) != lasting(another)


def test_the_end_of_memory_is_told_by_words(tmp_path: Path) -> None:
    """A tensor of 4 EiB is more than any machine has."""
    side = 2**30
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [side, side])
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["out"], name="grows")]
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "grows", [], [out], [shape])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "m.onnx")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), options, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception) as caught:
        session.run(None, {})
    assert not isinstance(caught.value, MemoryError), "it has a type now: no words need be read"
    assert lacks_memory(caught.value)
