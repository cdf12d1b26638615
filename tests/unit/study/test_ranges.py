"""Studies whose int8 has its ranges from a file: what is built, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from small_onnx import convolutional

from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.records.artifact import random_feed
from edgedeploy.reference.export import describe
from edgedeploy.spec.study import parse_spec
from edgedeploy.study.ranges import RANGES_SHA256, ranged, ranges_sha256, require_same_ranges
from edgedeploy.targets.onnxruntime.ranged import read_ranges

STUDY = """
[study]
name = "s"
targets = ["onnxruntime"]
ranges = "ranges.json"
[task]
kind = "synthetic-ultrasound"
[board]
name = "cart"
kind = "local"
[space]
precision = ["float32", "int8"]
[[objectives]]
metric = "dice_mean"
[budget]
trials = 2
wall_clock = "1 min"
"""


def write(path: Path, scale: float = 1.0) -> None:
    from edgedeploy.federated.histograms import float_tensors

    model = onnx.load(str(convolutional(path.with_name("m.onnx"))))
    ranges = {name: [-scale, scale] for name in float_tensors(model)}
    path.write_text(json.dumps({"form": "edgedeploy.ranges/1", "ranges": ranges}))


def targets_of(folder: Path, text: str = STUDY, **options: Any) -> Any:
    spec, source = parse_spec(text, folder / "study.toml")
    return ranged(spec, source, **{"away": False, **options})


def test_int8_has_the_ranges_of_the_file_and_reads_no_case(tmp_path: Path) -> None:
    write(tmp_path / "ranges.json", scale=2.0)
    targets = targets_of(tmp_path)
    reference = describe(tmp_path / "m.onnx")

    def none() -> Any:
        raise AssertionError("no case may be read")

    request = BuildRequest(tmp_path / "m.onnx", reference.inputs, reference.outputs, "int8", none)
    targets["onnxruntime"].build(request, tmp_path / "int8")
    plain = replace(request, precision="float32", calibration=lambda: iter([random_feed(reference.inputs, 0)]))
    targets["onnxruntime"].build(plain, tmp_path / "float32")
    graph = onnx.load(str(tmp_path / "int8" / "model.onnx")).graph
    constants = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    first = next(node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "image")
    assert float(constants[first.input[1]]) == pytest.approx(4 / 255)


def test_a_file_that_changed_is_another_study(tmp_path: Path) -> None:
    write(tmp_path / "ranges.json")
    begun = {RANGES_SHA256: ranges_sha256(targets_of(tmp_path))}
    require_same_ranges(begun, targets_of(tmp_path), tmp_path)
    require_same_ranges({}, {}, tmp_path)
    write(tmp_path / "ranges.json", scale=3.0)
    with pytest.raises(SpecError, match="changed since it began"):
        require_same_ranges(begun, targets_of(tmp_path), tmp_path)
    with pytest.raises(SpecError, match="changed since it began"):
        require_same_ranges({}, targets_of(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('["onnxruntime"]', '["onnxruntime", "openvino"]', "alone"),
        ("[space]", '[space]\ncalibration = ["minmax"]', "the space has calibration"),
        ("[budget]", '[search]\nwarm_start = "other"\n[budget]', "warm_start"),
    ],
)
def test_what_ranges_cannot_stand_beside_is_told(tmp_path: Path, old: str, new: str, said: str) -> None:
    write(tmp_path / "ranges.json")
    with pytest.raises(SpecError, match=said):
        targets_of(tmp_path, STUDY.replace(old, new, 1))
    with pytest.raises(SpecError, match="without dask"):
        targets_of(tmp_path, away=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "is no edgedeploy.ranges"),
        ('{"form": "edgedeploy.ranges/1", "ranges": {"x": [1, 2]}}', "around zero"),
        ('{"form": "edgedeploy.ranges/1", "ranges": {"x": [0, "2"]}}', "around zero"),
        ('{"form": "edgedeploy.ranges/1", "ranges": {"x": [0, 1e999]}}', "ranges"),
        ("not json", "ranges"),
    ],
)
def test_a_file_of_no_ranges_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "ranges.json").write_text(text)
    with pytest.raises(DataError, match=said):
        read_ranges(tmp_path / "ranges.json")
    with pytest.raises(DataError, match="No such file"):
        read_ranges(tmp_path / "none.json")
