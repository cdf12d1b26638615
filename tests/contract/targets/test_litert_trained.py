"""LiteRT takes models that were trained to be int8: the file has their integers and their scales, and computes what
training computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from small_networks import NETWORKS, SPECS, images, network, quantized
from torch import nn

from edgedeploy.compress.qat import graph as quantgraph
from edgedeploy.compress.qat.train import frozen, student_of
from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.interfaces.target import BuildRequest, TakesQuantized
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import CALIBRATED_RANGES, Artifact, TensorSpec
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.reference.export import Reference, export_reference, run_reference
from edgedeploy.reference.layers import kept_float, layers_of
from edgedeploy.reference.parity import check_parity
from edgedeploy.reference.program import PROGRAM_FILE, export_program
from edgedeploy.reference.quantized import export_quantized
from edgedeploy.runtime.sessions.litert.operators import COMPUTE_OPERATORS
from edgedeploy.runtime.sessions.litert.session import LiteRtSession, open_model
from edgedeploy.targets.compare.layers import compare_layers
from edgedeploy.targets.litert.integers import check_scales
from edgedeploy.targets.litert.target import LiteRtTarget
from edgedeploy.targets.litert.trained import Scales

pytestmark = [pytest.mark.beside, pytest.mark.slow]

CALIBRATED = {"unet": 0, "unet-resize": 0, "mobilenet": 1, "resnet": 1, "transformer": 9}
"""Linear layers whose outputs nothing quantizes in training."""

ATTENTION = {"transformer": 4}
"""Products of two activations, which training leaves in float."""

Feeds = Callable[[], Iterator[dict[str, Array]]]


class Trained(NamedTuple):
    """A frozen model of int8 ranges with its file and its program."""

    model: nn.Module
    reference: Reference
    program: Path

    def request(self, calibration: Feeds, **changes: Any) -> BuildRequest:
        values: dict[str, Any] = {
            "reference": self.reference.path,
            "inputs": self.reference.inputs,
            "outputs": self.reference.outputs,
            "precision": "int8",
            "calibration": calibration,
            "program": self.program,
            "quantized": True,
        }
        return BuildRequest(**{**values, **changes})


def pictures() -> Iterator[dict[str, Array]]:
    return ({"image": image[None].numpy()} for image in images(32, seed=1))


def kept(model: nn.Module, specs: tuple[TensorSpec, ...], folder: Path, sample: dict[str, Array]) -> Trained:
    folder.mkdir(parents=True, exist_ok=True)
    reference = export_quantized(model, specs, folder / "reference.onnx", samples=[sample])
    export_program(model, specs, folder / PROGRAM_FILE, sample)
    return Trained(model, reference, folder / PROGRAM_FILE)


def of_network(name: str, folder: Path, weight_bits: int = 8) -> Trained:
    return kept(quantized(name, weight_bits=weight_bits), SPECS, folder, next(pictures()))


def opened(artifact: Artifact, folder: Path) -> LiteRtSession:
    return open_model(folder / artifact.entry, {key: str(value) for key, value in artifact.settings}, 1)


def details_of(path: Path) -> tuple[list[dict[str, Any]], dict[int, dict[str, Any]], Any]:
    """The file's own operators, its tensors by number, and what reads them."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    return (
        interpreter._get_ops_details(),
        {item["index"]: item for item in interpreter.get_tensor_details()},
        interpreter,
    )


def learned_weights(reference: Reference) -> dict[str, tuple[Array, Array]]:
    """Integers and scales of the layers of a reference."""
    graph = onnx.load(str(reference.path)).graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    producers = {node.output[0]: node for node in graph.node}
    found = {}
    for node in graph.node:
        pair = producers.get(node.input[1]) if node.op_type in ("Conv", "ConvTranspose", "MatMul") else None
        if pair is None or pair.op_type != "DequantizeLinear":
            continue
        scale = held[pair.input[1]]
        if pair.input[0] in held:
            found[node.name] = (held[pair.input[0]], scale)
        elif (before := producers[pair.input[0]]).input[0] in held:  # of a transposed convolution
            steps = np.rint(held[before.input[0]] / scale.reshape(1, -1, 1, 1)).astype(np.int8)
            found[node.name] = (steps, scale)
    return found


def learned_scales(reference: Reference) -> set[float]:
    graph = onnx.load(str(reference.path)).graph
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in held]
    return {float(held[node.input[1]]) for node in quantizers}


class TextAndImage(nn.Module):
    """Two inputs, one of integers; three outputs, one of integers; a sigmoid-weighted activation between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 8)
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.scores, self.side = nn.Linear(8, 4), nn.Linear(8, 2)

    def forward(self, image: torch.Tensor, words: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = F.relu(self.second(F.silu(self.first(image)))).mean((2, 3)) + self.words(words).mean(1)
        scores = self.scores(seen)
        return {"scores": scores, "best": scores.argmax(-1), "side": self.side(seen)}


class Built(NamedTuple):
    trained: Trained
    artifact: Artifact
    folder: Path


@pytest.mark.usefixtures("warm_converter")
class TestTrained:
    @pytest.fixture(scope="class")
    def built(self, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
        """The artifact of a network, made once."""
        made: dict[str, Built] = {}

        def get(name: str) -> Built:
            if name not in made:
                folder = tmp_path_factory.mktemp(name)
                trained = of_network(name, folder)
                made[name] = Built(
                    trained, LiteRtTarget().build(trained.request(pictures), folder / "built"), folder / "built"
                )
            return made[name]

        return get

    @pytest.mark.parametrize("name", NETWORKS)
    def test_the_file_has_the_integers_and_the_scales_of_training(
        self, name: str, built: Callable[[str], Built]
    ) -> None:
        trained, artifact, folder = built(name)
        session = opened(artifact, folder)
        operators, tensors, interpreter = details_of(folder / artifact.entry)

        layers = [node for node in operators if node["op_name"] in COMPUTE_OPERATORS]
        executed = session.executed()
        assert (
            executed["int8"] == len(layers) - ATTENTION.get(name, 0) == sum(executed.values()) - ATTENTION.get(name, 0)
        )
        wanted = learned_weights(trained.reference)
        names = json.loads(str(dict(artifact.settings)["layers"]))
        compared = 0
        for node, layer in zip(layers, names, strict=True):
            if not layer:
                continue
            steps, scale = wanted[layer]
            weights = tensors[node["inputs"][1]]
            found = weights["quantization_parameters"]["scales"]
            np.testing.assert_array_equal(
                np.sort(interpreter.get_tensor(weights["index"]).ravel()), np.sort(steps.ravel())
            )
            np.testing.assert_array_equal(np.sort(found), np.sort(scale))
            compared += 1
        assert compared == len(layers) - ATTENTION.get(name, 0)

        made = {int(index) for node in operators for index in node["outputs"]}
        inner = [tensors[index] for index in made if tensors[index]["dtype"] == np.int8]
        scales = {
            (
                float(item["quantization_parameters"]["scales"][0]),
                int(item["quantization_parameters"]["zero_points"][0]),
            )
            for item in inner
        }
        others = scales - {(scale, 0) for scale in learned_scales(trained.reference)}
        assert len(scales) - len(others) >= 5
        assert len(others) == CALIBRATED[name] == int(str(dict(artifact.settings)[CALIBRATED_RANGES]))

    @pytest.mark.parametrize("name", NETWORKS)
    def test_it_computes_what_training_computed(self, name: str, built: Callable[[str], Built]) -> None:
        """By XNNPACK, within a few steps of the last scale, and by the rule that int8 is held to."""
        trained, artifact, folder = built(name)
        assert artifact.reference_sha256 == trained.reference.sha256
        session = opened(artifact, folder)
        assert [item["dtype"] for item in session._interpreter.get_input_details()] == [np.float32]
        given = list(pictures())[:6]
        expected = np.concatenate([run_reference(trained.reference, feed)["out0"] for feed in given])
        found = np.concatenate([session.run(feed)["out0"] for feed in given])
        step = np.abs(expected).max() / 127
        assert np.abs(found - expected).max() <= 4 * step
        assert np.abs(found - expected).mean() <= step
        check_parity({"out0": expected}, {"out0": found}, "int8")

    def test_two_builds_are_one_artifact_and_hold_nothing_that_nobody_reads(
        self, built: Callable[[str], Built], tmp_path: Path
    ) -> None:
        """Not the float weights of the transposed convolutions either, which are 10 kB here."""
        trained, first, _ = built("unet")
        assert LiteRtTarget().build(trained.request(pictures), tmp_path / "second").digest == first.digest
        steps = sum(values.size for values, _ in learned_weights(trained.reference).values())
        constants = onnx.load(str(trained.reference.path)).graph.initializer
        biases = sum(int(np.prod(tensor.dims)) for tensor in constants if len(tensor.dims) == 1)
        assert first.size_bytes < steps + 12 * biases + 12_000

    def test_layers_that_a_plan_keeps_are_float_there(self, tmp_path: Path) -> None:
        plain = export_reference(network("unet"), SPECS, tmp_path / "plain" / "float.onnx")
        weighted = [layer.name for layer in layers_of(onnx.load(str(plain.path))) if layer.weighted]
        plan = PrecisionPlan.of({weighted[0]: "float32", weighted[-1]: "float32"})
        model = quantized("unet", kept_float(plan, "int8", plain.path))
        trained = kept(model, SPECS, tmp_path / "mixed", next(pictures()))
        artifact = LiteRtTarget().build(trained.request(pictures), tmp_path / "built")
        session = opened(artifact, tmp_path / "built")
        precisions = session.layer_precisions()
        assert (precisions[0], precisions[-1]) == ("float32", "float32")
        assert set(precisions[1:-1]) == {"int8"}
        feed = next(pictures())
        wanted = run_reference(trained.reference, feed)
        check_parity(wanted, session.run(feed), "int8")

    def test_a_layer_that_the_converter_would_make_integer_by_itself_is_refused(self, tmp_path: Path) -> None:
        """It had been int8 with weights of the converter's own, where the plan says float32."""
        plain = export_reference(network("unet"), SPECS, tmp_path / "plain" / "float.onnx")
        weighted = [layer.name for layer in layers_of(onnx.load(str(plain.path))) if layer.weighted]
        model = quantized("unet", kept_float(PrecisionPlan.of({weighted[1]: "float32"}), "int8", plain.path))
        trained = kept(model, SPECS, tmp_path / "mixed", next(pictures()))
        with pytest.raises(Unsupported, match=r"makes the layer with .* weights int8 by itself"):
            LiteRtTarget().build(trained.request(pictures), tmp_path / "built")

    def test_weights_of_seven_bits_keep_their_steps(self, tmp_path: Path) -> None:
        """A processor whose sums saturate has them trained so, and LiteRT takes the same model."""
        trained = of_network("resnet", tmp_path, weight_bits=7)
        artifact = LiteRtTarget().build(trained.request(pictures), tmp_path / "built")
        operators, tensors, interpreter = details_of(tmp_path / "built" / artifact.entry)
        layers = [node for node in operators if node["op_name"] in COMPUTE_OPERATORS]
        steps = [interpreter.get_tensor(tensors[node["inputs"][1]]["index"]).astype(int) for node in layers]
        assert [int(np.abs(values).max()) for values in steps] == [64] * len(layers)

    def test_integer_io_leaves_the_edges_in_steps_of_training(self, tmp_path: Path) -> None:
        trained = of_network("unet-resize", tmp_path)
        artifact = LiteRtTarget(integer_io=True).build(trained.request(pictures), tmp_path / "built")
        _, _, interpreter = details_of(tmp_path / "built" / artifact.entry)
        edges = [*interpreter.get_input_details(), *interpreter.get_output_details()]
        assert {np.dtype(edge["dtype"]).name for edge in edges} == {"int8"}
        assert {float(edge["quantization"][0]) for edge in edges} <= learned_scales(trained.reference)
        feed = next(pictures())
        check_parity(run_reference(trained.reference, feed), opened(artifact, tmp_path / "built").run(feed), "int8")

    def test_several_inputs_and_outputs_of_any_type(self, tmp_path: Path) -> None:
        specs = (TensorSpec("image", "float32", (1, 1, 16, 16)), TensorSpec("words", "int64", (1, 5)))

        def cases() -> Iterator[dict[str, Array]]:
            for seed, feed in enumerate(pictures()):
                yield {**feed, "words": np.random.default_rng(seed).integers(0, 10, (1, 5))}

        student = student_of(TextAndImage().eval(), specs)
        with torch.no_grad():
            for case in cases():
                student(*(torch.from_numpy(case[spec.name]) for spec in specs))
        for quantizer in quantgraph.quantizers(student):
            quantizer.stop_observing()
        trained = kept(frozen(student), specs, tmp_path, next(cases()))
        artifact = LiteRtTarget().build(trained.request(cases), tmp_path / "built")
        session = opened(artifact, tmp_path / "built")
        assert session.executed() == {"int8": 4}
        for feed in list(cases())[:3]:
            expected, found = run_reference(trained.reference, feed), session.run(feed)
            for name in ("scores", "side"):
                check_parity({name: expected[name]}, {name: found[name]}, "int8")
            np.testing.assert_array_equal(found["best"], found["scores"].argmax(-1))

    def test_its_layers_can_be_held_against_the_reference(self, built: Callable[[str], Built]) -> None:
        trained, artifact, folder = built("unet")
        layers = compare_layers(trained.reference.path, artifact, folder, lambda: list(pictures())[:2])
        assert len(layers) == len(learned_weights(trained.reference))
        assert min(layer.sqnr_db for layer in layers) > 25

    def test_a_scale_that_nobody_learned_is_refused(self, built: Callable[[str], Built]) -> None:
        from ai_edge_litert.tools import flatbuffer_utils

        trained, artifact, folder = built("resnet")
        model = flatbuffer_utils.read_model(str(folder / artifact.entry))
        learned = tuple(sorted(learned_scales(trained.reference)))
        with pytest.raises(BuildError, match=r"zero point -?[1-9]\d*, which nobody learned"):
            check_scales(model, Scales(learned, (), ()))
        with pytest.raises(BuildError, match="zero point 0, which nobody learned"):
            check_scales(model, Scales(learned[1:], (), ()))

    def test_a_trained_model_without_its_program_is_refused(
        self, built: Callable[[str], Built], tmp_path: Path
    ) -> None:
        trained = built("resnet").trained
        assert isinstance(LiteRtTarget(), TakesQuantized)
        with pytest.raises(Unsupported, match=r"torch's program, which is not there"):
            LiteRtTarget().build(trained.request(pictures, program=None), tmp_path / "built")
        assert list((tmp_path / "built").iterdir()) == []

    def test_a_program_of_another_training_is_refused(self, built: Callable[[str], Built], tmp_path: Path) -> None:
        trained, other = built("resnet").trained, built("mobilenet").trained
        with pytest.raises(BuildError, match="converter changed the model"):
            LiteRtTarget().build(trained.request(pictures, program=other.program), tmp_path / "built")
