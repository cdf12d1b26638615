"""Quantized ONNX: the file keeps the rules, and each runtime takes it, runs it in int8 and computes what was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from small_networks import NETWORKS, SPECS, bits_here, images, network, quantized

from edgedeploy.compress.qat import graph as quantgraph
from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.interfaces.target import BuildRequest, TakesQuantized, Target
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.reference import quantized as qdq
from edgedeploy.reference.export import Reference, describe, export_reference, open_onnx, run_reference
from edgedeploy.reference.layers import kept_float, layers_of
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget
from edgedeploy.targets.tensorrt import Level, TensorRtTarget, rtx
from edgedeploy.targets.tensorrt.version import JETPACK_RELEASES

FLOAT_LAYERS = {
    ("onnxruntime", "unet"): 2,  # its CPU kernels know no integer transposed convolution
    ("onnxruntime", "transformer"): 4,  # products of two activations: attention
    ("openvino", "transformer"): 9,
    ("openvino", "resnet"): 3,  # what a ReLU follows whose output an addition reads, and the hidden linear layer
}
"""Layers that stay float in these versions of the runtimes, seen by looking; the rest has to run in int8."""

each_network = pytest.mark.parametrize("name", NETWORKS)
each_target = pytest.mark.parametrize("make", [OnnxRuntimeTarget, OpenVinoTarget])

Trained = tuple[torch.nn.Module, Reference]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """A frozen model of int8 ranges and its file, by the network's name; made once. Its weights have the bits that this
    machine can sum."""
    made: dict[str, Trained] = {}

    def get(name: str) -> Trained:
        if name not in made:
            model = quantized(name, weight_bits=bits_here())
            path = tmp_path_factory.mktemp(name) / "reference.onnx"
            samples = [{"image": images(1, seed=seed).numpy()} for seed in range(2)]
            made[name] = model, qdq.export_quantized(model, SPECS, path, samples=samples)
        return made[name]

    return get


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """The float file of one of the networks."""
    return export_reference(network("unet-resize"), SPECS, tmp_path_factory.mktemp("plain") / "float.onnx")


def request(reference: Reference, **changes: Any) -> BuildRequest:
    values: dict[str, Any] = {
        "reference": reference.path,
        "inputs": reference.inputs,
        "outputs": reference.outputs,
        "precision": "int8",
        "calibration": lambda: iter([{"image": images(1).numpy()}]),
        "quantized": reference.quantized,
    }
    return BuildRequest(**{**values, **changes})


def answers(artifact: Artifact, folder: Path, inputs: torch.Tensor) -> tuple[np.ndarray, dict[str, int]]:
    session = open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1)
    rows = [session.run({"image": row[None]})["out0"] for row in inputs.numpy()]
    return np.concatenate(rows), session.executed()


@each_network
def test_the_file_is_int8_pairs_and_nothing_else(name: str, trained: Callable[[str], Trained]) -> None:
    model, reference = trained(name)
    graph = onnx.load(str(reference.path)).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    assert reference.quantized
    assert describe(reference.path, own=True).opset == 20
    assert {node.domain for node in graph.node} <= {"", "ai.onnx"}
    assert not any("ake" in node.op_type and "uant" in node.op_type for node in graph.node)
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = onnx.numpy_helper.to_array(constants[node.input[2]])
            assert zero.dtype == np.int8
            assert not zero.any()
    kept = [
        tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]
    layers = sum(quantgraph.kind(node) in quantgraph.WEIGHTED for node in model.graph.nodes)  # type: ignore[union-attr]
    transposed = sum(node.op_type == "ConvTranspose" for node in graph.node)
    assert 0 < len(kept) <= layers - transposed  # equal weights are stored once


@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (7, 64)])
def test_weights_keep_to_their_bits(bits: int, largest: int, tmp_path: Path) -> None:
    reference = qdq.export_quantized(quantized("resnet", weight_bits=bits), SPECS, tmp_path / "reference.onnx")
    weights = [
        onnx.numpy_helper.to_array(tensor).astype(int)
        for tensor in onnx.load(str(reference.path)).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]
    assert weights
    assert [np.abs(steps).max() for steps in weights] == [largest] * len(weights)


@each_network
def test_the_file_computes_what_was_trained(name: str, trained: Callable[[str], Trained]) -> None:
    model, reference = trained(name)
    inputs = images(6, seed=9)
    with torch.no_grad():
        wanted = model(inputs).numpy()
    found = np.concatenate([run_reference(reference, {"image": row[None]})["out0"] for row in inputs.numpy()])
    assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 0.01


@each_network
@each_target
def test_runtimes_run_int8_and_agree_with_training(
    make: type[Target], name: str, trained: Callable[[str], Trained], tmp_path: Path
) -> None:
    """Within a few steps of the last scale, and nearer than that on average."""
    model, reference = trained(name)
    artifact = make().build(request(reference), tmp_path)
    inputs = images(6, seed=9)
    with torch.no_grad():
        wanted = model(inputs).numpy()
    found, executed = answers(artifact, tmp_path, inputs)
    step = np.abs(wanted).max() / 127
    assert np.abs(found - wanted).max() <= 4 * step
    assert np.abs(found - wanted).mean() <= step
    assert sum(executed.values()) - executed["int8"] <= FLOAT_LAYERS.get((artifact.target, name), 0), executed
    assert artifact.reference_sha256 == reference.sha256


@pytest.mark.parametrize("name", ["unet", "mobilenet", "transformer"])
def test_tensorrt_takes_the_file(name: str, trained: Callable[[str], Trained], tmp_path: Path) -> None:
    """By the rules of the releases that read int8 weights, and by the parser and builder where they are installed."""
    _, reference = trained(name)
    made = TensorRtTarget().make(request(reference), tmp_path / "artifact")
    accepted = {result.platform.version for result in made.results if not result.errors}
    assert max(JETPACK_RELEASES.values()) in accepted
    file = tmp_path / "artifact" / made.artifact.entry
    feed = {"image": images(1, seed=4).numpy()}
    (found,) = open_onnx(file, threads=1, as_written=True).run(["out0"], feed)
    wanted = run_reference(reference, feed)["out0"]
    assert np.linalg.norm(found - wanted) < 0.01 * np.linalg.norm(wanted)
    if rtx.installed_version() is None:
        pytest.skip("no TensorRT parser: pip install 'edgedeploy[tensorrt]'; the rules were held")
    assert made.evidence.level is Level.BUILT, made.evidence


@pytest.mark.parametrize("name", ["unet", "mobilenet"])
def test_layers_that_a_plan_keeps_are_float_in_the_file_and_where_it_runs(
    name: str, trained: Callable[[str], Trained], tmp_path: Path
) -> None:
    """The first and the last layer of the float reference, by its names."""
    plain = export_reference(network(name), SPECS, tmp_path / "plain" / "float.onnx")
    weighted = [layer.name for layer in layers_of(onnx.load(str(plain.path))) if layer.weighted]
    plan = PrecisionPlan.of({weighted[0]: "float32", weighted[-1]: "float32"})
    kept = kept_float(plan, "int8", plain.path)
    assert set(kept) == {weighted[0], weighted[-1]}
    model = quantized(name, kept, bits_here())
    path = tmp_path / "mixed" / "reference.onnx"
    mixed = qdq.export_quantized(model, SPECS, path, samples=[{"image": images(1, seed=0).numpy()}])
    assert weights_in_int8(mixed) == weights_in_int8(trained(name)[1]) - 2
    inputs = images(4, seed=9)
    with torch.no_grad():
        wanted = model(inputs).numpy()
    for make in (OnnxRuntimeTarget, OpenVinoTarget):
        artifact = make().build(request(mixed), tmp_path / make.name)
        found, executed = answers(artifact, tmp_path / make.name, inputs)
        assert np.abs(found - wanted).mean() <= np.abs(wanted).max() / 127
        whole = make().build(request(trained(name)[1]), tmp_path / f"{make.name}-whole")
        _, before = answers(whole, tmp_path / f"{make.name}-whole", inputs)
        assert before["int8"] - executed["int8"] >= 1, "what was int8 before is float now"
        assert sum(executed.values()) == sum(before.values())
    made = TensorRtTarget().make(request(mixed), tmp_path / "tensorrt")
    assert max(JETPACK_RELEASES.values()) in {item.platform.version for item in made.results if not item.errors}


def weights_in_int8(reference: Reference) -> int:
    """Layers with weights that a pair stands before."""
    graph = onnx.load(str(reference.path)).graph
    constants = {tensor.name for tensor in graph.initializer}
    quantized_constants = {
        node.output[0] for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in constants
    }
    weights = {
        node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants | quantized_constants
    }
    layers = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    return sum(node.op_type in layers and node.input[1] in weights for node in graph.node)


@each_target
def test_two_builds_are_one_artifact(make: type[Target], trained: Callable[[str], Trained], tmp_path: Path) -> None:
    _, reference = trained("unet")
    first, second = (make().build(request(reference), tmp_path / name) for name in ("first", "second"))
    assert first.digest == second.digest


@each_target
def test_ranges_that_were_learned_need_no_calibration_cases(
    make: type[Target], trained: Callable[[str], Trained], tmp_path: Path
) -> None:
    _, reference = trained("unet")
    none = request(reference, calibration=lambda: iter(()))
    with_one, without = (
        make().build(asked, tmp_path / name) for name, asked in (("one", request(reference)), ("none", none))
    )
    assert without.digest == with_one.digest


def test_a_smaller_file_than_the_float_one(trained: Callable[[str], Trained], plain: Reference) -> None:
    _, reference = trained("unet-resize")
    assert reference.path.stat().st_size < 0.6 * plain.path.stat().st_size
    assert reference.parameters >= plain.parameters
    assert reference.macs == plain.macs
    assert not Reference.from_json(plain.as_json(), plain.path.parent).quantized
    assert Reference.from_json(reference.as_json(), reference.path.parent) == reference


def test_unsigned_activations_are_the_same_values(trained: Callable[[str], Trained], tmp_path: Path) -> None:
    _, reference = trained("mobilenet")
    model = onnx.load(str(reference.path))
    qdq.unsigned_activations(model)
    onnx.save(model, str(tmp_path / "unsigned.onnx"))
    shifted = Reference(**{**vars(reference), "path": tmp_path / "unsigned.onnx"})
    feed = {"image": images(1, seed=4).numpy()}
    np.testing.assert_array_equal(run_reference(shifted, feed)["out0"], run_reference(reference, feed)["out0"])


def zero_point(graph: Any) -> None:
    pair = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(128, np.uint8), "other"))
    pair.input[2] = "other"


def negative_scale(graph: Any) -> None:
    pair = next(node for node in graph.node if node.op_type == "QuantizeLinear")
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(-0.1, np.float32), "other"))
    pair.input[1] = "other"


def float_input(graph: Any) -> None:
    layer = next(node for node in graph.node if node.op_type == "Conv")
    layer.input[0] = "image"


def quantized_bias(graph: Any) -> None:
    layer = next(node for node in graph.node if node.op_type == "Conv" and len(node.input) == 3)
    layer.input[2] = next(node for node in graph.node if node.op_type == "DequantizeLinear").output[0]


def foreign_operator(graph: Any) -> None:
    next(node for node in graph.node if node.op_type == "MaxPool").domain = "com.example"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (zero_point, "not an int8 zero"),
        (negative_scale, "not positive"),
        (float_input, "its input is not"),
        (quantized_bias, "its bias is quantized"),
        (foreign_operator, "no operator of the standard"),
    ],
)
def test_a_file_against_the_rules_is_refused(
    change: Callable[[Any], None], found: str, trained: Callable[[str], Trained]
) -> None:
    model = onnx.load(str(trained("unet")[1].path))
    qdq.check_rules(model)
    change(model.graph)
    with pytest.raises(BuildError, match=found):
        qdq.check_rules(model)


def test_a_float_file_is_no_quantized_one(plain: Reference) -> None:
    with pytest.raises(BuildError, match="no layer of it has int8 weights"):
        qdq.check_rules(onnx.load(str(plain.path)))


def test_a_target_that_only_quantizes_by_itself_refuses(trained: Callable[[str], Trained], tmp_path: Path) -> None:
    class Stubborn(OnnxRuntimeTarget):
        takes_quantized = False

    assert isinstance(OnnxRuntimeTarget(), TakesQuantized)
    with pytest.raises(Unsupported, match="quantizes by itself only"):
        Stubborn().build(request(trained("unet")[1]), tmp_path)
