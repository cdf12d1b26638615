"""Weights alone in 8 or 4 bits: what is narrowed, counted from the file and the runtime, and what is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_onnx import request

from edgedeploy.errors import Unsupported
from edgedeploy.records.artifact import Artifact
from edgedeploy.reference.export import describe, run_reference
from edgedeploy.reference.parity import check_executed, compare
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.onnxruntime.blocks import quantized_blocks
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget

TARGETS = (OnnxRuntimeTarget, OpenVinoTarget)
each_target = pytest.mark.parametrize("make", TARGETS, ids=[target.name for target in TARGETS])
EMULATOR = "qemu-x86_64-static"
RUN = """
import sys
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
np.save(sys.argv[3], np.stack([session.run(None, {"ids": row})[0] for row in np.load(sys.argv[2])]))
"""


def encoder(path: Path, *, pair: int = 0) -> Path:
    """ids (16,) -> out (16, 64): a table with the places of a sentence, then a MatMul, a Gemm with its weights turned, and
    a Gemm behind a Transpose; with ``pair`` a product of two constant matrices that wide, which no kernel has narrow."""
    rng = np.random.default_rng(0)
    values = {
        "words": rng.standard_normal((600, 64)),
        "places": rng.standard_normal((80, 64)),
        "w1": rng.standard_normal((64, 128)) / 8,
        "w2": rng.standard_normal((64, 128)) / 8,
        "b2": rng.standard_normal(64),
        "w3": rng.standard_normal((64, 64)) / 8,
        "b3": rng.standard_normal(64),
    }
    held = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in values.items()]
    ends = {"first": [0], "last": [16], "axis": [0]}
    held += [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in ends.items()]
    make = helper.make_node
    nodes = [
        make("Gather", ["words", "ids"], ["embedded"], name="/words"),
        make("Slice", ["places", "first", "last", "axis"], ["here"], name="/places"),
        make("Add", ["embedded", "here"], ["placed"], name="/placed"),
        make("MatMul", ["placed", "w1"], ["wide"], name="/fc1"),
        make("Tanh", ["wide"], ["bent"], name="/act"),
        make("Gemm", ["bent", "w2", "b2"], ["narrow"], name="/fc2", transB=1),
        make("Transpose", ["w3"], ["turned"], name="/turn", perm=[1, 0]),
        make("Gemm", ["narrow", "turned", "b3"], ["head"], name="/fc3", beta=2.0),
    ]
    if pair:
        array = (rng.standard_normal((2, 64, pair)) / 8).astype(np.float32)
        held.append(numpy_helper.from_array(array, "pair"))
        nodes += [
            make("MatMul", ["head", "pair"], ["pairs"], name="/pair"),
            make("ReduceMean", ["pairs"], ["mean"], name="/mean", axes=[0, 2], keepdims=0),
            make("Unsqueeze", ["mean", "one"], ["column"], name="/column"),
            make("Add", ["head", "column"], ["out"], name="/sum"),
        ]
        held.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    else:
        nodes[-1].output[0] = "out"
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [16])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [16, 64])],
        held,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def rows(count: int = 4) -> list[dict[str, Any]]:
    rng = np.random.default_rng(9)
    return [{"ids": rng.integers(0, 600, 16)} for _ in range(count)]


def build(
    make: Any, path: Path, precision: str, folder: Path, plan: dict[str, str] | None = None
) -> tuple[Artifact, Any]:
    asked = request(path, precision, plan, source=lambda: iter(rows()))
    artifact = make().build(asked, folder)
    return artifact, open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1)


def distance(path: Path, session: Any) -> float:
    reference = describe(path)
    return max(compare(run_reference(reference, feed), session.run(feed))["out"]["rel_l2"] for feed in rows())


@each_target
@pytest.mark.parametrize(("precision", "most", "smaller"), [("int8-weights", 0.02, 3.0), ("int4-weights", 0.15, 4.5)])
def test_products_of_every_form_and_tables_shrink(
    make: Any, precision: str, most: float, smaller: float, tmp_path: Path
) -> None:
    path = encoder(tmp_path / "m.onnx")
    artifact, session = build(make, path, precision, tmp_path / "narrow")
    wide, _ = build(make, path, "float32", tmp_path / "wide")
    assert session.executed() == {precision: 3}
    check_executed(precision, session.executed())
    assert 1e-4 < distance(path, session) < most
    weights = max(tmp_path.glob("narrow/*"), key=lambda file: file.stat().st_size).stat().st_size
    floats = max(tmp_path.glob("wide/*"), key=lambda file: file.stat().st_size).stat().st_size
    assert weights * smaller < floats
    assert artifact.size_bytes < wide.size_bytes


@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
@pytest.mark.parametrize("inputs", [6, 16, 17])
def test_products_that_are_narrower_than_a_block_are_counted_as_they_are(
    precision: str, inputs: int, tmp_path: Path
) -> None:
    weights = np.random.default_rng(0).standard_normal((inputs, 5)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="/fc")],
        "narrow",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 5])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    artifact = OnnxRuntimeTarget().build(request(path, precision), tmp_path / "out")
    session = open_session("onnxruntime", tmp_path / "out", artifact.entry, {}, 1)
    assert session.executed() == {precision: 1}


@pytest.mark.parametrize(("inputs", "narrow"), [(48, True), (17, False)])
def test_blocks_of_openvino_are_powers_of_two(inputs: int, narrow: bool, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).standard_normal((inputs, 5)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="/fc")],
        "blocks",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 5])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    if not narrow:
        with pytest.raises(Unsupported, match="products whose inputs are a multiple of 16"):
            OpenVinoTarget().build(request(path, "int4-weights"), tmp_path / "out")
        return
    artifact = OpenVinoTarget().build(request(path, "int4-weights"), tmp_path / "out")
    session = open_session("openvino", tmp_path / "out", artifact.entry, dict(artifact.settings), 1)
    assert session.executed() == {"int4-weights": 1}


@each_target
def test_a_plan_names_single_layers(make: Any, tmp_path: Path) -> None:
    path = encoder(tmp_path / "m.onnx")
    _, session = build(make, path, "float32", tmp_path / "one", {"/fc2": "int8-weights"})
    assert session.executed() == {"int8-weights": 1, "float32": 2}
    alone = distance(path, session)
    _, session = build(make, path, "int4-weights", tmp_path / "both", {"/fc1": "int8-weights", "/words": "float32"})
    assert session.executed() == {"int8-weights": 1, "int4-weights": 2}
    assert alone < distance(path, session) < 0.15


def test_a_plan_keeps_a_table(tmp_path: Path) -> None:
    path = encoder(tmp_path / "m.onnx")
    build(OnnxRuntimeTarget, path, "int4-weights", tmp_path / "out", {"/words": "float32"})
    held = {tensor.name: tensor for tensor in onnx.load(str(tmp_path / "out" / "model.onnx")).graph.initializer}
    assert held["words"].data_type == TensorProto.FLOAT
    assert list(held["here"].dims) == [16, 64], "of the places the part that is read"
    assert "places" not in held


def test_the_table_of_a_dynamic_model_shrinks_too(tmp_path: Path) -> None:
    path = encoder(tmp_path / "m.onnx")
    _, session = build(OnnxRuntimeTarget, path, "int8-dynamic", tmp_path / "out")
    held = {tensor.name: tensor for tensor in onnx.load(str(tmp_path / "out" / "model.onnx")).graph.initializer}
    assert held["/words:rows"].data_type == TensorProto.INT8
    assert session.executed() == {"int8-dynamic": 3}
    assert distance(path, session) < 0.03


@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_a_build_that_leaves_a_tenth_of_the_weights_is_refused(precision: str, tmp_path: Path) -> None:
    """20,480 of the linear weights are narrowed, and 2 * 64 * 32 = 4096 are not."""
    path = encoder(tmp_path / "m.onnx", pair=32)
    with pytest.raises(Unsupported, match=rf"{precision} for 90% of the linear weights.*83% were converted.*/pair"):
        build(OnnxRuntimeTarget, path, precision, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))
    _, session = build(OnnxRuntimeTarget, path, precision, tmp_path / "planned", {"/pair": "float32"})
    assert session.executed() == {precision: 3, "float32": 1}
    build(OnnxRuntimeTarget, encoder(tmp_path / "n.onnx", pair=8), precision, tmp_path / "little")


@pytest.mark.parametrize("bits", [8, 4])
def test_a_file_of_the_toolchains_own_quantizer_says_its_bits(bits: int, tmp_path: Path) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(str(encoder(tmp_path / "m.onnx"))), bits=bits, block_size=32)
    quantizer.process()
    onnx.save(quantizer.model.model, str(tmp_path / "given.onnx"))
    session = open_session("onnxruntime", tmp_path, "given.onnx", {}, 1)
    assert session.executed() == {f"int{bits}-weights": 1, "float32": 2}, "it takes no Gemm, and says nothing"


def test_blocks_are_near_their_weights() -> None:
    weights = np.random.default_rng(0).standard_normal((48, 72)).astype(np.float32)
    weights[3, 5] = 9.0
    for bits, block in ((8, 32), (4, 16)):
        numbers, scales, zeros = quantized_blocks(weights, bits, block)
        close = (numbers.astype(np.float32) - zeros[..., None]) * scales[..., None]
        error = close.reshape(48, -1)[:, :72] - weights
        widest = (weights.max() - weights.min()) / 2**bits
        assert numbers.shape == (48, -(-72 // block), block)
        assert np.abs(error).max() <= widest
        assert (np.abs(error) <= 0.51 * scales.repeat(block, 1)[:, :72]).mean() > 0.98, "few are cut off"


@pytest.mark.parametrize("precision", ["int8-weights", "int4-weights"])
def test_kernels_without_vnni_give_the_same(precision: str, tmp_path: Path) -> None:
    """By the emulated CPU's own kernels: a Haswell, which has AVX2 and adds products of int8 in 16 bits."""
    emulator = shutil.which(EMULATOR)
    if emulator is None:
        pytest.skip(f"no {EMULATOR} on this machine: apt-get install qemu-user-static")
    path, folder = encoder(tmp_path / "m.onnx"), tmp_path / "out"
    build(OnnxRuntimeTarget, path, precision, folder)
    np.save(tmp_path / "in.npy", np.stack([feed["ids"] for feed in rows()]))
    wanted = np.stack([run_reference(describe(path), feed)["out"] for feed in rows()])
    argv = [emulator, "-cpu", "Haswell", sys.executable, "-c", RUN, str(folder / "model.onnx")]
    done = [*argv, str(tmp_path / "in.npy"), str(tmp_path / "out.npy")]
    subprocess.run(done, check=True, capture_output=True, timeout=200)
    found = np.load(tmp_path / "out.npy")
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < (0.02 if precision == "int8-weights" else 0.15)
