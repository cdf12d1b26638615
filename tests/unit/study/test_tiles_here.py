"""Tiles that no network of the study can be cut by are told before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedeploy import Case, Split, TensorSpec
from edgedeploy.errors import SpecError
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import load_spec
from edgedeploy.study.preflight import prepare
from edgedeploy.study.tiles_here import check_tiles_here

SIDE = 16
SOURCE = SpecSource(Path("study.toml"), "[space]\ntile = [0, 8]\n")


class Trained:
    """A task of a 2D network in PyTorch, as far as tiles are concerned."""

    name = "network"

    def __init__(self, normed: bool, **architecture: Sequence[Any]) -> None:
        self.architecture: Mapping[str, Sequence[Any]] = architecture
        self.normed = normed

    def build(self, **arch: Any) -> Any:
        from torch import nn

        norm = [nn.InstanceNorm2d(2, affine=True)] if self.normed else []
        return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), *norm, nn.Conv2d(2, 1, 3, padding=1))

    def input_specs(self, **arch: Any) -> tuple[TensorSpec, ...]:
        return (TensorSpec("image", "float32", (1, 1, SIDE, SIDE)),)

    def cases(self, split: Split) -> Sequence[Case]:
        return (Case("one", split),)

    def inputs(self, case: Case, **arch: Any) -> dict[str, Any]:
        return {"image": np.random.default_rng(0).standard_normal((1, 1, SIDE, SIDE)).astype(np.float32)}


class Network(Trained):
    """The same as an ONNX file, which no test has to export."""

    source_sha256 = ""

    def reference_model(self) -> bytes:
        rng = np.random.default_rng(0)
        kernels = {"w": rng.standard_normal((2, 1, 3, 3)), "v": rng.standard_normal((1, 2, 3, 3)), "one": np.ones(2)}
        nodes = [
            helper.make_node("Conv", ["image", "w"], ["a"], "first", pads=[1] * 4),
            helper.make_node("InstanceNormalization", ["a", "one", "one"], ["n"], "norm"),
            helper.make_node("Conv", ["n" if self.normed else "a", "v"], ["out0"], "second", pads=[1] * 4),
        ]
        return onnx_bytes(nodes if self.normed else [nodes[0], nodes[2]], kernels, ("image", "out0"), channels=1)


def onnx_bytes(nodes: Sequence[Any], weights: Mapping[str, Any], ends: tuple[str, str], channels: int) -> bytes:
    read = {name for node in nodes for name in node.input}
    held = [numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in weights.items() if name in read]
    first, last = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, channels, SIDE, SIDE]) for n in ends)
    graph = helper.make_graph(list(nodes), "g", [first], [last], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def check(task: Any, **space: Sequence[Any]) -> tuple[str, ...]:
    return check_tiles_here(SOURCE, space, task)


def test_a_norm_over_all_positions_is_refused_with_its_layer() -> None:
    with pytest.raises(SpecError) as refused:
        check(Network(normed=True), tile=[0, 8])
    assert "study.toml:2: space.tile" in str(refused.value)
    assert 'tile = 8, overlap = "exact": InstanceNormalization' in str(refused.value)
    assert "State the overlap in voxels" in str(refused.value)


@pytest.mark.parametrize("tile", ["8", "1 MiB"])
def test_a_stated_overlap_may_approximate_it(tile: str) -> None:
    assert check(Network(normed=True), tile=[tile], overlap=[2]) == ()
    with pytest.raises(SpecError, match='overlap = "exact"'):
        check(Network(normed=True), tile=[tile], overlap=[2, "exact"])


def test_a_tile_that_is_smaller_than_what_an_answer_reads_is_refused() -> None:
    assert check(Network(normed=False), tile=[0, 8, "8x16"]) == ()
    with pytest.raises(SpecError, match="Tiles of 5 or more have room"):
        check(Network(normed=False), tile=[4])
    with pytest.raises(SpecError, match="the volume has 2 axes, the tile 3"):
        check(Network(normed=False), tile=["8x8x8"])


@pytest.mark.parametrize("others", [{"norm": ["instance", "batch"]}, {"student": ["none", "narrow"]}])
def test_where_other_networks_are_searched_it_is_a_note(others: Mapping[str, Sequence[str]]) -> None:
    task = Network(normed=True, norm=("instance", "batch"))
    (note,) = check(task, tile=[0, 8], **others)
    assert "InstanceNormalization" in note and "of the space's other networks" in note
    with pytest.raises(SpecError):
        check(task, tile=[0, 8], width=[1.0, 0.5])


def test_whole_volumes_ask_for_no_graph() -> None:
    class Unread(Network):
        def reference_model(self) -> bytes:
            raise AssertionError("nothing is cut")

    assert check(Unread(normed=True), tile=[0], precision=["float32"]) == ()


def test_a_network_in_pytorch_is_exported_untrained() -> None:
    with pytest.raises(SpecError, match='overlap = "exact": InstanceNormalization'):
        check(Trained(normed=True), tile=[0, 8])


def test_a_study_of_an_onnx_file_is_refused_before_its_boards_are_opened(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["mean"], "pool"),
        helper.make_node("Conv", ["mean", "w"], ["gate"], "gate"),
        helper.make_node("Mul", ["x", "gate"], ["y"], "scale"),
    ]
    (tmp_path / "model.onnx").write_bytes(onnx_bytes(nodes, {"w": np.ones((2, 2, 1, 1))}, ("x", "y"), channels=2))
    rng = np.random.default_rng(0)
    for split in ("calibration", "selection", "confirmation"):
        np.savez(tmp_path / f"{split}.npz", x=rng.standard_normal((2, 1, 2, SIDE, SIDE)).astype(np.float32))
    file = tmp_path / "study.toml"
    file.write_text(STUDY, encoding="utf-8")
    spec, source = load_spec(file)
    with pytest.raises(SpecError, match=r"space\.tile.* GlobalAveragePool pool looks at all positions"):
        prepare(spec, source, ())


STUDY = """
[study]
name = "pooled"
seed = 1
targets = ["onnxruntime"]

[task]
kind = "onnx"
model = "model.onnx"

[task.options]
calibration = "calibration.npz"
selection = "selection.npz"
confirmation = "confirmation.npz"

[[boards]]
name = "here"
kind = "local"

[space]
tile = [0, 8]

[[objectives]]
metric = "latency_ratio"

[budget]
trials = 2
"""
