"""What every target promises, held against its real toolchain and runtime."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from edgedeploy.artifact import Artifact, TensorSpec, sha256_file
from edgedeploy.errors import BuildError, DataError, ParityError, SpecError, TargetUnavailable, Unsupported
from edgedeploy.protocols import Array, BuildRequest, Target
from edgedeploy.runtime.sessions import open_session
from edgedeploy.targets import common
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget
from edgedeploy.targets.openvino import OpenVinoTarget
from edgedeploy.targets.parity import check_executed, check_parity
from edgedeploy.targets.reference import Reference, describe, export_reference, run_reference

TARGETS = (OnnxRuntimeTarget, OpenVinoTarget)
PAIRS = [(target, name) for target in TARGETS for name in target.precisions if name != "int4-weights"]
"""4-bit weights need a matrix product, which the network below has not: test_precision_plans.py holds them."""
SPECS = (TensorSpec("image", "float32", (1, 1, 32, 32)),)

each_target = pytest.mark.parametrize("make", TARGETS, ids=[target.name for target in TARGETS])
each_pair = pytest.mark.parametrize(("make", "precision"), PAIRS, ids=[f"{t.name}-{p}" for t, p in PAIRS])


class TwoHeads(nn.Module):
    """A small encoder and decoder with a skip, a transposed convolution, a resize, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.join = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.mask = nn.Conv2d(8, 3, 1)
        self.edge = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(16, 2, 1))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        skip = self.down(image)
        deep = self.deep(skip)
        joined = self.join(torch.cat([skip, self.up(deep)], 1))
        return self.mask(joined), self.edge(deep)


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


def run_artifact(artifact: Artifact, folder: Path, feeds: list[dict[str, Array]]) -> dict[str, Array]:
    session = open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1)
    rows = [session.run(feed) for feed in feeds]
    return {spec.name: np.concatenate([row[spec.name] for row in rows]) for spec in artifact.outputs}


def test_targets_keep_the_protocol() -> None:
    assert all(isinstance(make(), Target) for make in TARGETS)


@each_pair
def test_artifact_computes_what_its_reference_computes(
    make: type[Target], precision: str, reference: Reference, tmp_path: Path
) -> None:
    artifact = make().build(request(reference, precision), tmp_path)
    feeds = list(calibration(seed=2, count=4))
    expected = [run_reference(reference, feed) for feed in feeds]
    found = run_artifact(artifact, tmp_path, feeds)
    wanted = {name: np.concatenate([row[name] for row in expected]) for name in expected[0]}
    distance = check_parity(wanted, found, precision)
    assert set(found) == {"out0", "out1"}
    if precision != "float32":
        assert distance["rel_l2"] > 1e-5, "a narrower precision leaves a trace: otherwise float32 was run"


@each_pair
def test_manifest_tells_what_lies_in_the_folder(
    make: type[Target], precision: str, reference: Reference, tmp_path: Path
) -> None:
    artifact = make().build(request(reference, precision), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {file.name for file in artifact.files}
    assert all(sha256_file(tmp_path / file.name) == file.sha256 for file in artifact.files)
    assert (artifact.target, artifact.precision) == (make().name, precision)
    assert artifact.reference_sha256 == reference.sha256
    assert dict(artifact.built_with) == dict(make().probe().versions)
    assert Artifact.from_json(artifact.as_json()) == artifact


@each_pair
def test_two_builds_are_one_artifact(make: type[Target], precision: str, reference: Reference, tmp_path: Path) -> None:
    first = make().build(request(reference, precision), tmp_path / "first")
    second = make().build(request(reference, precision), tmp_path / "second")
    assert first.digest == second.digest


@each_pair
def test_runtime_runs_the_precision_that_was_asked_for(
    make: type[Target], precision: str, reference: Reference, tmp_path: Path
) -> None:
    artifact = make().build(request(reference, precision), tmp_path)
    session = open_session(artifact.target, tmp_path, artifact.entry, dict(artifact.settings), 1)
    executed = session.executed()
    if precision == "bfloat16" and set(executed) == {"float32"}:
        pytest.skip("this CPU has no bfloat16 instructions: OpenVINO runs float32 instead")
    check_executed(precision, executed)


@each_target
def test_int8_follows_the_calibration(make: type[Target], reference: Reference, tmp_path: Path) -> None:
    def bright() -> Iterator[dict[str, Array]]:
        return ({"image": feed["image"] * 50} for feed in calibration())

    feeds = list(bright())
    expected = [run_reference(reference, feed) for feed in feeds]
    wanted = {name: np.concatenate([row[name] for row in expected]) for name in expected[0]}
    fitting = make().build(request(reference, "int8", bright), tmp_path / "fitting")
    misfit = make().build(request(reference, "int8"), tmp_path / "misfit")
    check_parity(wanted, run_artifact(fitting, tmp_path / "fitting", feeds), "int8")
    with pytest.raises(ParityError):
        check_parity(wanted, run_artifact(misfit, tmp_path / "misfit", feeds), "int8")


@each_target
def test_calibration_is_streamed(make: type[Target], reference: Reference, tmp_path: Path) -> None:
    """Cases are fetched one by one: never is a second one made before the first was let go."""
    alive: set[int] = set()
    most = 0

    class Tracked(np.ndarray):  # type: ignore[type-arg]
        def __del__(self) -> None:
            alive.discard(id(self))

    def source() -> Iterator[dict[str, Array]]:
        nonlocal most
        for feed in calibration(count=24):
            image = feed["image"].view(Tracked)
            alive.add(id(image))
            most = max(most, len(alive))
            yield {"image": image}
            del image

    make().build(request(reference, "int8", source), tmp_path)
    assert 0 < most <= 3


@each_target
def test_float_builds_need_no_calibration(make: type[Target], reference: Reference, tmp_path: Path) -> None:
    def source() -> Iterator[dict[str, Array]]:
        raise AssertionError("calibration was asked for")

    make().build(request(reference, "float32", source), tmp_path)


@each_target
@pytest.mark.parametrize(
    ("cases", "told"),
    [
        ([], "the task has none"),
        ([{"picture": np.zeros((1, 1, 32, 32), np.float32)}], "picture"),
        ([{"image": np.zeros((1, 1, 16, 16), np.float32)}], r"\(1, 1, 16, 16\)"),
        ([{"image": np.zeros((1, 1, 32, 32), np.float64)}], "float64"),
        ([{"image": np.full((1, 1, 32, 32), np.nan, np.float32)}], "NaN"),
    ],
    ids=["none", "name", "shape", "type", "nan"],
)
def test_bad_calibration_is_named_and_leaves_nothing(
    make: type[Target], cases: list[dict[str, Array]], told: str, reference: Reference, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=told):
        make().build(request(reference, "int8", lambda: iter(cases)), tmp_path)
    assert list(tmp_path.iterdir()) == []


@each_target
def test_task_errors_in_calibration_stay_what_they_are(
    make: type[Target], reference: Reference, tmp_path: Path
) -> None:
    """A failure to read the data is no property of the variant."""

    def source() -> Iterator[dict[str, Array]]:
        yield from calibration(count=2)
        raise SpecError("a case", "the disk is gone")

    with pytest.raises(SpecError, match="the disk is gone"):
        make().build(request(reference, "int8", source), tmp_path)
    assert list(tmp_path.iterdir()) == []


def one_node(path: Path, operator: str, domain: str = "", **attributes: Any) -> BuildRequest:
    """A model of a single node, written by hand: image -> out0."""
    shape = [1, 1, 32, 32]
    node = helper.make_node(operator, ["image"], ["out0"], name="the_node", domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out0", TensorProto.FLOAT, shape)],
    )
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return BuildRequest(path, SPECS, (TensorSpec("out0", "float32", (1, 1, 32, 32)),), "float32", calibration)


@each_pair
def test_an_operator_the_target_lacks_is_named(make: type[Target], precision: str, tmp_path: Path) -> None:
    folder = tmp_path / "built"
    asked = one_node(tmp_path / "model.onnx", "HoneycombPool", domain="com.example")
    with pytest.raises(Unsupported, match="HoneycombPool"):
        make().build(BuildRequest(asked.reference, asked.inputs, asked.outputs, precision, calibration), folder)
    assert list(folder.iterdir()) == []


@each_target
def test_numbers_that_are_none_are_refused(make: type[Target], tmp_path: Path) -> None:
    """The logarithm of the negative half of a random input."""
    with pytest.raises(Unsupported, match="NaN or Inf"):
        make().build(one_node(tmp_path / "model.onnx", "Log"), tmp_path / "built")
    assert list((tmp_path / "built").iterdir()) == []


@each_target
def test_int8_without_anything_to_quantize_is_refused(make: type[Target], tmp_path: Path) -> None:
    asked = one_node(tmp_path / "model.onnx", "Softplus")
    with pytest.raises(Unsupported, match="int8 layers"):
        make().build(
            BuildRequest(asked.reference, asked.inputs, asked.outputs, "int8", calibration), tmp_path / "built"
        )
    assert list((tmp_path / "built").iterdir()) == []


@each_target
def test_broken_file_is_refused(make: type[Target], reference: Reference, tmp_path: Path) -> None:
    broken = tmp_path / "model.onnx"
    broken.write_bytes(reference.path.read_bytes()[:400])
    with pytest.raises(BuildError, match=r"model\.onnx"):
        make().build(BuildRequest(broken, SPECS, reference.outputs, "float32", calibration), tmp_path / "built")
    assert list((tmp_path / "built").iterdir()) == []


@each_target
def test_precision_that_a_target_lacks_names_those_it_has(
    make: type[Target], reference: Reference, tmp_path: Path
) -> None:
    with pytest.raises(Unsupported, match="float32"):
        make().build(request(reference, "float16"), tmp_path)


@each_target
def test_folder_in_use_is_left_alone(make: type[Target], reference: Reference, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(BuildError, match=r"notes\.txt"):
        make().build(request(reference, "float32"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@each_target
def test_builds_say_nothing(
    make: type[Target], reference: Reference, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The progress display of a study owns the terminal."""
    make().build(request(reference, "int8"), tmp_path)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""


@each_target
def test_missing_toolchain_names_what_to_install(
    make: type[Target], reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interpreter without the packages, as far as their metadata tell."""

    def version(package: str) -> str:
        raise common.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(common.metadata, "version", version)
    readiness = make().probe()
    assert not readiness.ready
    assert make().name in readiness.found
    with pytest.raises(TargetUnavailable, match=r"pip install 'edgedeploy\[study\]'"):
        make().build(request(reference, "float32"), tmp_path)


def test_seven_bit_weights_for_boards_that_saturate(reference: Reference, tmp_path: Path) -> None:
    OnnxRuntimeTarget(reduce_range=True).build(request(reference, "int8"), tmp_path)
    weights = [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(str(tmp_path / "model.onnx")).graph.initializer
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 4
    ]
    assert weights
    assert all(np.abs(array.astype(int)).max() <= 64 for array in weights)


@pytest.mark.shared
@each_target
@pytest.mark.parametrize("name", ["lwnet/wnet_drive_512.onnx", "yunet/yunet_n_320_320.onnx"])
def test_published_models_build(make: type[Target], name: str, shared: Path, tmp_path: Path) -> None:
    """Networks that other people exported: several outputs, older operator sets, sizes of their own."""
    reference = describe(shared / "models" / name)
    folder = tmp_path / "built"
    artifact = make().build(request(reference, "float32"), folder)
    spec = reference.inputs[0]
    feed = {spec.name: np.random.default_rng(0).random(spec.shape, np.float32)}
    session = open_session(artifact.target, folder, artifact.entry, dict(artifact.settings), 1)
    check_parity(run_reference(reference, feed), session.run(feed), "float32")
