"""Lint rules on small models that break one of them each, command lines by release, and DLA placement from log lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedeploy.errors import DataError, Unsupported
from edgedeploy.targets.tensorrt.lint import FINDERS, LintResult, Platform, lint_file
from edgedeploy.targets.tensorrt.proof import Level
from edgedeploy.targets.tensorrt.rules import RULES
from edgedeploy.targets.tensorrt.trtexec.command import (
    Conditions,
    build_command,
    output_command,
    profile_command,
    timing_command,
)
from edgedeploy.targets.tensorrt.trtexec.dla import DlaRequest, check_placement, cores_online, read_placement
from edgedeploy.targets.tensorrt.version import TrtVersion

SHAPE = (1, 4, 16, 16)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto] | None = None,
    *,
    opset: int = 13,
    shape: tuple[int | str, ...] = SHAPE,
    domains: tuple[str, ...] = (),
) -> Path:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights or [],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def rules_broken(
    path: Path, version: str = "10.3", *, dla: bool = False, precision: str = "int8", sm: str | None = None
) -> set[str]:
    result = lint_file(path, Platform(TrtVersion.from_text(version), precision, dla, sm))
    return {finding.rule for finding in result.findings}


def quantized(path: Path, *, zero: Any = None, scale: float = 0.1, folded: bool = False) -> Path:
    """x -> Q -> DQ -> Conv with quantized weights -> y."""
    weight = np.ones((4, 4, 1, 1), np.float32)
    constants = [
        numpy_helper.from_array(np.float32(scale), "s"),
        numpy_helper.from_array(np.asarray(np.int8(0) if zero is None else zero), "z"),
        numpy_helper.from_array(np.float32(0.1), "ws"),
        numpy_helper.from_array(np.int8(0), "wz"),
        numpy_helper.from_array(weight.astype(np.int8) if folded else weight, "w"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantize"),
        *([] if folded else [helper.make_node("QuantizeLinear", ["w", "ws", "wz"], ["wq"])]),
        helper.make_node("DequantizeLinear", ["w" if folded else "wq", "ws", "wz"], ["wd"]),
        helper.make_node("Conv", ["d", "wd"], ["y"], name="conv"),
    ]
    return save(path, nodes, constants)


def test_each_rule_has_its_finder_and_its_source() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.finder in FINDERS
        assert rule.source.startswith("https://")
        assert rule.text and rule.remedy
    assert {rule.finder for rule in RULES} == set(FINDERS), "a finder that no rule uses is dead"


@pytest.mark.parametrize("version", ["8.0.1", "8.2.1", "8.5.2", "8.6.1", "10.3", "10.13.3", "11.0"])
def test_symmetric_qdq_breaks_no_rule(version: str, tmp_path: Path) -> None:
    assert rules_broken(quantized(tmp_path / "m.onnx"), version) == set()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"zero": np.uint8(0)}, "qdq-uint8"),
        ({"zero": np.int8(3)}, "qdq-asymmetric"),
        ({"scale": 0.0}, "qdq-scale"),
        ({"scale": -1.0}, "qdq-scale"),
        ({"scale": np.inf}, "qdq-scale"),
    ],
)
def test_quantization_that_tensorrt_does_not_take(changes: dict[str, Any], rule: str, tmp_path: Path) -> None:
    assert rules_broken(quantized(tmp_path / "m.onnx", **changes)) == {rule}


def test_folded_weights_by_release(tmp_path: Path) -> None:
    path = quantized(tmp_path / "m.onnx", folded=True)
    assert rules_broken(path, "8.2.5") == {"qdq-folded-weights"}
    assert rules_broken(path, "10.3") == set()


def test_int32_bias(tmp_path: Path) -> None:
    constants = [
        numpy_helper.from_array(np.ones(4, np.int32), "b"),
        numpy_helper.from_array(np.float32(0.1), "s"),
        numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["b", "s"], ["bd"], name="bias"),
        helper.make_node("Conv", ["x", "w", "bd"], ["y"]),
    ]
    result = lint_file(save(tmp_path / "m.onnx", nodes, constants), Platform(TrtVersion(8, 5, 2), "int8"))
    assert [(finding.rule, finding.where) for finding in result.errors] == [
        ("qdq-int32-bias", ("DequantizeLinear bias",))
    ]


@pytest.mark.parametrize(
    ("capability", "rules"), [("5.3", {"qdq-hardware"}), ("6.2", {"qdq-hardware"}), ("8.7", set())]
)
def test_int8_needs_hardware(capability: str, rules: set[str], tmp_path: Path) -> None:
    assert rules_broken(quantized(tmp_path / "m.onnx"), "8.2.1", sm=capability) == rules


@pytest.mark.parametrize(
    ("version", "opset", "rules"),
    [
        ("8.2.1", 13, set()),
        ("8.2.1", 14, {"opset-new"}),
        ("8.5.2", 17, set()),
        ("8.5.2", 18, {"opset-new"}),
        ("10.3", 20, set()),
        ("10.3", 21, {"opset-new"}),
        ("10.15", 24, set()),
        ("10.3", 8, {"opset-old"}),
    ],
)
def test_operator_sets_by_release(version: str, opset: int, rules: set[str], tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], opset=opset)
    assert rules_broken(path, version) == rules


@pytest.mark.parametrize(
    ("operator", "opset", "version", "rules"),
    [
        ("Det", 13, "10.3", {"operator-unsupported"}),
        ("Round", 13, "8.0.1", {"operator-since-8.2"}),
        ("Round", 13, "8.2.1", set()),
        ("IsInf", 13, "8.5.2", {"operator-since-8.6"}),
        ("IsInf", 13, "10.3", set()),
        ("Hardmax", 13, "8.6.1", {"operator-since-9.2"}),
    ],
)
def test_operators_by_release(operator: str, opset: int, version: str, rules: set[str], tmp_path: Path) -> None:
    path = save(tmp_path / "m.onnx", [helper.make_node(operator, ["x"], ["y"])], opset=opset)
    assert rules_broken(path, version) == rules


def test_operators_inside_a_branch_are_seen(tmp_path: Path) -> None:
    def branch(operator: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["x"], ["b"])], operator, [], [output])

    condition = numpy_helper.from_array(np.array(True), "c")
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("Relu"), else_branch=branch("Det"))
    assert rules_broken(save(tmp_path / "m.onnx", [node], [condition])) == {"operator-unsupported"}


def test_graphs_that_cannot_become_an_engine(tmp_path: Path) -> None:
    foreign = save(
        tmp_path / "a", [helper.make_node("Magic", ["x"], ["y"], domain="com.example")], domains=("com.example",)
    )
    assert rules_broken(foreign) == {"operator-foreign"}
    dynamic = save(tmp_path / "b", [helper.make_node("Relu", ["x"], ["y"])], shape=("batch", 4, 16, 16))
    assert "dynamic-shape" in rules_broken(dynamic)
    pool = helper.make_node("MaxPool", ["x"], ["y", "indices"], kernel_shape=[2, 2], dilations=[2, 2])
    assert rules_broken(save(tmp_path / "c", [pool])) == {"maxpool-indices", "pool-dilations"}
    scales = numpy_helper.from_array(np.float32([1, 1, 2, 2]), "scales")
    cubic = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="cubic")
    assert rules_broken(save(tmp_path / "d", [cubic], [scales])) == {"resize-mode"}
    (tmp_path / "e").write_bytes(b"no model")
    with pytest.raises(DataError, match="no ONNX model"):
        rules_broken(tmp_path / "e")


def test_int64_is_a_warning_on_old_releases_only(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.int64([1, -1]), "shape")
    path = save(tmp_path / "m.onnx", [helper.make_node("Reshape", ["x", "shape"], ["y"])], [shape])
    old: LintResult = lint_file(path, Platform(TrtVersion(8, 5, 2), "float32"))
    assert [(finding.rule, finding.severity) for finding in old.findings] == [("int64-narrowed", "warning")]
    assert old.errors == ()
    assert rules_broken(path, "10.3") == set()


def test_bfloat16_needs_its_hardware_and_strong_types(tmp_path: Path) -> None:
    weight = onnx.helper.make_tensor("w", TensorProto.BFLOAT16, [4, 4, 1, 1], [0.5] * 16)
    nodes = [
        helper.make_node("Cast", ["x"], ["b"], to=TensorProto.BFLOAT16),
        helper.make_node("Conv", ["b", "w"], ["c"]),
        helper.make_node("Cast", ["c"], ["y"], to=TensorProto.FLOAT),
    ]
    path = save(tmp_path / "m.onnx", nodes, [weight])
    assert rules_broken(path, "8.5.2", precision="bfloat16") == {"bfloat16-type", "mixed-floats"}
    assert rules_broken(path, "10.3", precision="bfloat16", sm="7.2") == {"bfloat16-hardware"}
    assert rules_broken(path, "10.3", precision="bfloat16", sm="8.7") == set()


def test_dla_rules(tmp_path: Path) -> None:
    qdq = quantized(tmp_path / "q.onnx")
    assert rules_broken(qdq, "8.5.2", dla=True) == {"dla-qdq"}
    assert rules_broken(qdq, "10.13.3", dla=True) == {"dla-qdq", "dla-release"}
    assert rules_broken(qdq, "11.4.1", dla=True) == {"dla-qdq"}, "it came back for AGX Orin"
    relu = [helper.make_node("Relu", ["x"], ["y"])]
    assert rules_broken(save(tmp_path / "f.onnx", relu), "8.5.2", dla=True, precision="float32") == {"dla-precision"}
    wide = save(tmp_path / "w.onnx", relu, shape=(1, 4, 16, 8193))
    assert rules_broken(wide, "8.5.2", dla=True, precision="float16") == {"dla-dimension"}
    assert rules_broken(wide, "8.5.2", precision="float16") == set()
    many = save(tmp_path / "b.onnx", relu, shape=(4097, 4, 4, 4))
    assert rules_broken(many, "8.5.2", dla=True, precision="float16") == {"dla-batch"}
    scales = numpy_helper.from_array(np.float32([1, 1, 2, 2]), "scales")
    odd = helper.make_node(
        "Resize", ["x", "", "scales"], ["y"], mode="linear", coordinate_transformation_mode="asymmetric"
    )
    assert rules_broken(save(tmp_path / "r.onnx", [odd], [scales]), "8.5.2", dla=True, precision="float16") == {
        "dla-resize"
    }
    erf = save(tmp_path / "e.onnx", [helper.make_node("Erf", ["x"], ["y"])])
    result = lint_file(erf, Platform(TrtVersion(8, 5, 2), "float16", dla=True))
    assert [(finding.rule, finding.severity) for finding in result.findings] == [("dla-fallback", "warning")]


def built(version: str, precision: str = "int8", dla: DlaRequest | None = None) -> list[str]:
    release = TrtVersion.from_text(version)
    return build_command("trtexec", release, onnx="m.onnx", plan="m.plan", precisions=(precision,), dla=dla)


@pytest.mark.parametrize(
    ("version", "with_flags", "without"),
    [
        ("8.0.1", {"--int8", "--workspace=1024", "--nvtxMode=verbose"}, {"--memPoolSize=workspace:1024"}),
        ("8.2.1", {"--int8", "--workspace=1024", "--nvtxMode=verbose"}, {"--profilingVerbosity=detailed"}),
        ("8.5.2", {"--int8", "--memPoolSize=workspace:1024", "--profilingVerbosity=detailed"}, {"--workspace=1024"}),
        (
            "10.3",
            {"--stronglyTyped", "--memPoolSize=workspace:1024"},
            {"--int8", "--workspace=1024", "--explicitBatch"},
        ),
        ("11.0", {"--memPoolSize=workspace:1024"}, {"--int8", "--fp16", "--best", "--calib"}),
    ],
)
def test_build_flags_by_release(version: str, with_flags: set[str], without: set[str]) -> None:
    flags = set(built(version))
    assert with_flags <= flags
    assert not without & flags
    assert "--skipInference" not in flags, "with it a broken engine prints PASSED"
    assert "--noTF32" in flags


def test_timing_flags() -> None:
    def timed(version: str, **changes: Any) -> list[str]:
        release = TrtVersion.from_text(version)
        return timing_command("trtexec", release, plan="m.plan", times="t.json", conditions=Conditions(**changes))

    for version in ("8.0.1", "8.5.2", "10.3", "11.0"):
        assert {"--useSpinWait", "--useCudaGraph", "--noDataTransfers", "--avgRuns=1"} <= set(timed(version))
    assert "--percentile=99" in timed("8.4")
    assert "--percentile=90,95,99" in timed("8.5")
    assert "--noDataTransfers" not in timed("10.3", transfers=True)
    with pytest.raises(Unsupported, match=r"11\.0\.0"):
        timed("11.0", transfers=True)


def test_commands_that_a_release_lacks() -> None:
    with pytest.raises(Unsupported, match=r"8\.2"):
        profile_command("trtexec", TrtVersion(8, 0, 1), plan="m.plan", profile="p", layers="l")
    with pytest.raises(Unsupported, match=r"7\.1\.3"):
        built("7.1.3")
    with pytest.raises(Unsupported, match="bfloat16"):
        built("8.5.2", "bfloat16")
    with pytest.raises(Unsupported, match="bfloat16"):
        built("10.3", "bfloat16", DlaRequest())
    assert "--stronglyTyped" in built("10.3", "bfloat16")
    with pytest.raises(Unsupported, match="x:0"):
        output_command("trtexec", TrtVersion(10, 3), plan="m", inputs={"x:0": "/tmp/x"}, outputs="o")


def test_dla_flags() -> None:
    flags = built("8.5.2", "float16", DlaRequest(core=1))
    assert {"--fp16", "--useDLACore=1", "--allowGPUFallback"} <= set(flags)
    assert "--allowGPUFallback" not in built("8.5.2", "float16", DlaRequest(gpu_fallback=False))


# Lines as users reported them: NVIDIA-AI-IOT/jetson_dla_tutorial#3, ultralytics/ultralytics#16449, NVIDIA/TensorRT#2318,
# onnx/tensorflow-onnx#1632, forums.developer.nvidia.com/t/219158.
DLA_LOG = """
[W] [TRT] Layer '/model.24/Constant_1_output_0' (CONSTANT): Unsupported on DLA. Switching this layer's device type to GPU.
[W] [TRT] /model.22/Slice_1: DLA only supports slicing 4 dimensional tensors.
[W] [TRT] Layer '/model.22/Slice_1' (SLICE): Unsupported on DLA. Switching this layer's device type to GPU.
[W] [TRT] Default DLA is enabled but layer LSTM encoder is not supported on DLA, falling back to GPU.
[W] [TRT] DLA only supports FP16 and Int8 precision type. Switching (Unnamed Layer* 275) [Gather] device type to GPU.
[W] [TRT] Resize__916: For bilinear resize, DLA only supports kHALF_PIXEL coordinate transformation with resize selector: kFORMULA or kUPPER but kASYMMETRIC with resize selector: kFORMULA was found.
[W] [TRT] Default DLA is enabled but layer Resize__916 is not supported on DLA, falling back to GPU.
[I] [TRT] ---------- Layers Running on DLA ----------
[I] [TRT] [DlaLayer] {ForeignNode[resnet_v1_50/block4/unit_3/bottleneck_v1/Relu]}
[I] [TRT] ---------- Layers Running on GPU ----------
[I] [TRT] [GpuLayer] RESIZE: Resize__916
"""  # noqa: E501


def test_layers_that_fell_back_are_named_with_their_reason() -> None:
    placement = read_placement(DLA_LOG)
    found = {item.layer: (item.kind, item.reason) for item in placement.fallbacks}
    assert set(found) == {
        "/model.24/Constant_1_output_0", "/model.22/Slice_1", "LSTM encoder", "(Unnamed Layer* 275) [Gather]", "Resize__916",
    }  # fmt: skip
    assert found["/model.22/Slice_1"] == ("SLICE", "DLA only supports slicing 4 dimensional tensors.")
    assert found["Resize__916"][1].startswith("For bilinear resize, DLA only supports kHALF_PIXEL")
    assert found["(Unnamed Layer* 275) [Gather]"][1] == "DLA only supports FP16 and Int8 precision type"
    assert placement.dla == ("{ForeignNode[resnet_v1_50/block4/unit_3/bottleneck_v1/Relu]}",)
    assert placement.gpu == ("Resize__916",)
    check_placement(placement)


def test_a_placement_without_dla_or_in_too_many_parts_is_refused() -> None:
    with pytest.raises(Unsupported, match="LSTM encoder"):
        check_placement(read_placement("\n".join(DLA_LOG.splitlines()[:8])))
    parts = "\n".join(f"[I] [TRT] [DlaLayer] {{ForeignNode[{index}]}}" for index in range(17))
    with pytest.raises(Unsupported, match="17 parts"):
        check_placement(read_placement(parts))


@pytest.mark.shared
def test_cores_of_a_recorded_orin(shared: Path) -> None:
    text = (shared / "recorded" / "jetson" / "jetson_clocks_show_agx_orin_maxn.txt").read_text(encoding="utf-8")
    assert cores_online(text) == (0, 1)
    assert cores_online(text.replace("DLA1_CORE:   Online=1", "DLA1_CORE:   Online=0")) == (0,)


def test_levels_are_ordered() -> None:
    assert [level.value for level in sorted(Level, key=lambda level: level.rank)] == [
        "lint",
        "parsed",
        "built",
        "measured",
    ]
