"""What is particular to the target whose engines are built on the board; the contract is in ``test_tensorrt_session``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from edgedeploy.errors import BuildError, TargetUnavailable, Unsupported
from edgedeploy.interfaces.target import BoardBound, BuildRequest, Target
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.export import Reference, describe, export_reference, open_onnx, run_reference
from edgedeploy.reference.parity import check_parity
from edgedeploy.targets import common
from edgedeploy.targets.tensorrt import Level, Platform, TensorRtTarget, TrtVersion, lint_file, rtx
from edgedeploy.targets.tensorrt.halves import widened

SPECS = (TensorSpec("image", "float32", (1, 1, 32, 32)),)
PRECISIONS = TensorRtTarget.precisions
WITH_PARSER = rtx.installed_version() is not None

each_precision = pytest.mark.parametrize("precision", PRECISIONS)
needs_parser = pytest.mark.skipif(not WITH_PARSER, reason="no TensorRT parser: pip install 'edgedeploy[tensorrt]'")


class TwoHeads(nn.Module):
    """A small encoder and decoder with a skip, a transposed convolution, a resize, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.mask = nn.Conv2d(16, 3, 1)
        self.edge = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(16, 2, 1))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        skip = self.down(image)
        deep = self.deep(skip)
        return self.mask(torch.cat([skip, self.up(deep)], 1)), self.edge(deep)


def calibration(seed: int = 1, count: int = 8) -> Iterator[dict[str, Array]]:
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield {"image": generator.standard_normal((1, 1, 32, 32)).astype(np.float32)}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    torch.manual_seed(0)
    return export_reference(TwoHeads(), SPECS, tmp_path_factory.mktemp("reference") / "reference.onnx")


def request(reference: Reference, precision: str, source: Any = calibration) -> BuildRequest:
    return BuildRequest(reference.path, reference.inputs, reference.outputs, precision, source)


def run_file(path: Path, feeds: list[dict[str, Array]]) -> dict[str, Array]:
    """In float, whatever the int8 kernels of this host make of it. bfloat16 has no kernels in ONNX Runtime: the same file
    in float32, with its rounded weights."""
    model = widened(onnx.load(str(path)))
    onnx.save(model, str(path.with_name("runs.onnx")))
    session = open_onnx(path.with_name("runs.onnx"), threads=1, as_written=True)
    names = [output.name for output in session.get_outputs()]
    rows = [dict(zip(names, session.run(names, feed), strict=True)) for feed in feeds]
    return {name: np.concatenate([row[name] for row in rows]) for name in names}


def test_it_keeps_the_protocols() -> None:
    assert isinstance(TensorRtTarget(), Target)
    assert isinstance(TensorRtTarget(), BoardBound)


@each_precision
def test_the_level_of_proof_stands_with_the_artifact(precision: str, reference: Reference, tmp_path: Path) -> None:
    artifact = TensorRtTarget().build(request(reference, precision), tmp_path)
    settings = dict(artifact.settings)
    typed = precision == "bfloat16"  # RTX 1.7 has no such kernel for a transposed convolution of stride 2
    assert settings["level"] == ((Level.PARSED if typed else Level.BUILT) if WITH_PARSER else Level.LINT)
    wanted = "10.3.0 10.13.3" if typed else "8.5.2 10.3.0 10.13.3"
    assert settings["releases"] == wanted, "JetPack 4 reads no newer operator set than 13, JetPack 5 no bfloat16"
    told = json.loads((tmp_path / "lint.json").read_text(encoding="utf-8"))
    assert told["evidence"]["level"] == settings["level"]
    refused = {release["tensorrt"]: release for release in told["releases"] if not release["accepted"]}
    assert set(refused) == {"8.0.1", "8.2.1", *(["8.5.2"] if typed else [])}
    assert {finding["rule"] for finding in refused["8.2.1"]["findings"]} >= {"opset-new"}
    assert all(finding["source"].startswith("https://") for finding in refused["8.2.1"]["findings"])


def test_an_operator_set_that_cannot_be_lowered_stays(tmp_path: Path) -> None:
    """Gelu came with operator set 20: nothing older says it in one node."""
    asked = one_node(tmp_path / "model.onnx", "Gelu", "float32")
    artifact = TensorRtTarget().build(asked, tmp_path / "built")
    assert onnx.load(str(tmp_path / "built" / "model.onnx")).opset_import[0].version == 20
    assert dict(artifact.settings)["releases"] == "10.3.0 10.13.3"


def test_int8_is_symmetric_throughout(reference: Reference, tmp_path: Path) -> None:
    TensorRtTarget().build(request(reference, "int8"), tmp_path)
    graph = onnx.load(str(tmp_path / "model.onnx")).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(quantizers) > 10
    assert all(constants[node.input[2]].dtype == np.int8 and not constants[node.input[2]].any() for node in quantizers)
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    made_by = {node.output[0]: node for node in graph.node}
    for node in convolutions:
        weight = made_by[made_by[node.input[1]].input[0]]
        assert weight.op_type == "QuantizeLinear" and weight.input[0] in constants
        assert constants[weight.input[1]].size == constants[weight.input[0]].shape[node.op_type == "ConvTranspose"]
        assert node.input[2] in constants, "biases stay float"
    assert lint_file(tmp_path / "model.onnx", Platform(TrtVersion(10, 3), "int8", False, "8.7")).findings == ()


@needs_parser
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "Int32"),
        ({"QuantizeBias": False, "AddQDQPairToWeight": True, "DedicatedQDQPair": True}, "zero point"),
    ],
    ids=["default", "asymmetric"],
)
def test_the_parser_refuses_what_the_rules_refuse(
    options: dict[str, bool], told: str, reference: Reference, tmp_path: Path
) -> None:
    """The proxy and the rules on ONNX Runtime's own recipes: both say no."""
    path = quantize(reference, tmp_path, unsigned=True, options=options)
    assert lint_file(path, Platform(TrtVersion(10, 3), "int8")).errors
    with pytest.raises(Unsupported, match=told):
        _ = rtx.check(path).evidence


@needs_parser
def test_a_warning_of_the_parser_is_a_failure(reference: Reference, tmp_path: Path) -> None:
    """uint8 zero points that are 0: the parser takes them for int8, builds, and says so in a warning alone."""
    options = {"QuantizeBias": False, "AddQDQPairToWeight": True, "DedicatedQDQPair": True, "ActivationSymmetric": True}
    path = quantize(reference, tmp_path, unsigned=True, options=options)
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.UINT8:
            tensor.CopyFrom(
                onnx.numpy_helper.from_array(np.zeros_like(onnx.numpy_helper.to_array(tensor)), tensor.name)
            )
    onnx.save(model, str(path))
    assert {finding.rule for finding in lint_file(path, Platform(TrtVersion(10, 3), "int8")).errors} == {"qdq-uint8"}
    result = rtx.check(path)
    assert result.parsed and result.warnings
    with pytest.raises(Unsupported, match="UINT8"):
        _ = result.evidence


def test_what_the_proxy_says_decides_the_level() -> None:
    def told(**changes: Any) -> rtx.RtxResult:
        good: dict[str, Any] = {"version": "1", "parsed": True, "built": True, "layers": 3, "engine_bytes": 9}
        return rtx.RtxResult(**{**good, "errors": (), "warnings": (), "build_problems": (), **changes})

    assert told().evidence.level is Level.BUILT
    unbuilt = told(built=False, build_problems=("no tactic",)).evidence
    assert (unbuilt.level, "no tactic" in unbuilt.note) == (Level.PARSED, True)
    assert told(build_problems=("a warning",)).evidence.level is Level.PARSED
    empty = (
        "WeightsContext.cpp:525: Empty initializer 267 was provided with non-empty data. Overriding data to nullptr."
    )
    assert told(warnings=(empty,)).evidence.level is Level.BUILT
    for refused in (told(warnings=(empty, "UINT8")), told(parsed=False, errors=("no",)), told(warnings=("UINT8",))):
        with pytest.raises(Unsupported):
            _ = refused.evidence


def quantize(reference: Reference, folder: Path, *, unsigned: bool, options: dict[str, bool]) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = calibration()

        def get_next(self) -> dict[str, Array] | None:
            return next(self._feeds, None)

    quantize_static(
        str(reference.path),
        str(folder / "other.onnx"),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options=options,
    )
    return folder / "other.onnx"


def one_node(path: Path, operator: str, precision: str, domain: str = "") -> BuildRequest:
    shape = [1, 1, 32, 32]
    node = helper.make_node(operator, ["image"], ["out0"], name="the_node", domain=domain)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out0", TensorProto.FLOAT, shape)],
    )
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return BuildRequest(path, SPECS, (TensorSpec("out0", "float32", (1, 1, 32, 32)),), precision, calibration)


def test_an_operator_that_only_tensorrt_lacks_is_named_with_its_rule(tmp_path: Path) -> None:
    """ONNX Runtime has it, so the rules alone refuse it."""
    asked = one_node(tmp_path / "model.onnx", "Bernoulli", "float32")
    with pytest.raises(Unsupported, match=r"operator-unsupported: Bernoulli the_node"):
        TensorRtTarget().build(asked, tmp_path / "built")


def test_a_plan_is_no_model(reference: Reference, tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(reference.path.read_bytes())
    with pytest.raises(BuildError, match="native code"):
        asked = BuildRequest(plan, SPECS, reference.outputs, "float32", calibration)
        TensorRtTarget().build(asked, tmp_path / "built")


def test_what_works_here_and_how_to_get_further_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtx, "installed_version", lambda: None)
    without = TensorRtTarget().probe()
    monkeypatch.setattr(rtx, "installed_version", lambda: "1.7")
    with_parser = TensorRtTarget().probe()
    assert without.ready and with_parser.ready
    assert "linted only" in without.found
    assert "pip install 'edgedeploy[tensorrt]'" in without.remedy
    assert "linted, parsed and built, on the CPU" in with_parser.found
    assert all("Jetson" in readiness.remedy for readiness in (without, with_parser)), "nothing here measures"


def test_missing_toolchain_names_what_to_install(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(package: str) -> str:
        raise common.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(common.metadata, "version", version)
    readiness = TensorRtTarget().probe()
    assert not readiness.ready
    assert "tensorrt-rtx is not installed" in readiness.found
    with pytest.raises(TargetUnavailable, match=r"pip install 'edgedeploy\[study\]'"):
        TensorRtTarget().build(request(reference, "float32"), tmp_path)


@each_precision
def test_weights_that_are_listed_as_inputs_are_constants(
    precision: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As exporters of 2019 wrote them, in an operator set that knows no scales per channel."""
    weight = onnx.numpy_helper.from_array(np.random.default_rng(0).random((2, 1, 3, 3), np.float32), "w")
    image, out = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, c, 8, 8]) for name, c in (("image", 1), ("out", 2))
    )
    listed = (
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 1, 3, 3]),
        helper.make_tensor_value_info("num_batches_tracked", TensorProto.INT64, []),
    )
    node = helper.make_node("Conv", ["image", "w"], ["out"], name="conv", pads=[1] * 4)
    unread = onnx.numpy_helper.from_array(np.int64(3), "num_batches_tracked")
    graph = helper.make_graph([node], "old", [image, *listed], [out], [weight, unread])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=3), str(path))
    old = describe(path)
    feeds = [{"image": np.random.default_rng(1).random((1, 1, 8, 8), np.float32)}]
    capfd.readouterr()
    TensorRtTarget().build(request(old, precision, lambda: iter(feeds)), tmp_path / "built")
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")
    model = onnx.load(str(tmp_path / "built" / "model.onnx"))
    assert [value.name for value in model.graph.input] == ["image"]
    assert "num_batches_tracked" not in {tensor.name for tensor in model.graph.initializer}
    assert model.opset_import[0].version == 13, "JetPack 4 reads it"
    check_parity(run_reference(old, feeds[0]), run_file(tmp_path / "built" / "model.onnx", feeds), precision)


@pytest.mark.shared
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize(
    "name",
    [
        "lwnet/wnet_drive_512.onnx",
        "ultraface/version-slim-320_without_postprocessing.onnx",
        "yunet/yunet_n_320_320.onnx",
    ],
)
def test_published_models_build(name: str, precision: str, shared: Path, tmp_path: Path) -> None:
    published = describe(shared / "models" / name)
    spec = published.inputs[0]

    def source() -> Iterator[dict[str, Array]]:
        yield {spec.name: np.random.default_rng(0).random(spec.shape, np.float32)}

    artifact = TensorRtTarget().build(request(published, precision, source), tmp_path / "built")
    assert dict(artifact.settings)["level"] == (Level.BUILT if WITH_PARSER else Level.LINT)
    if precision == "float32":  # noise is no calibration: what int8 makes of it says nothing
        (feed,) = source()
        check_parity(run_reference(published, feed), run_file(tmp_path / "built" / artifact.entry, [feed]), precision)
