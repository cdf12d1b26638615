"""A study over how weights are shipped: what is built and measured is what they decode to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from board_kit import squares_study
from onnx import numpy_helper
from small_onnx import convolutional

import edgedeploy
from edgedeploy.compress.codec.container import read_packed
from edgedeploy.errors import SpecError
from edgedeploy.study.models import PACKED
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

SPACE = (
    ("width = [1.0, 0.5]", 'width = [1.0]\nstorage = ["none", "uniform:6x", "uniform:0.3"]'),
    ("kernel = [3, 5]", ""),
    ('precision = ["float32", "int8"]', 'precision = ["float32"]'),
)


def test_variants_are_built_from_decoded_weights(tmp_path: Path) -> None:
    study, out = squares_study(tmp_path, *SPACE), tmp_path / "out"
    edgedeploy.load_study(study).run(edgedeploy.RunOptions(out=out, board="here", confirm=False)).report()
    store = Store(out)
    assert not store.failures()
    found = {(item.variant.target, item.variant.storage): item for item in store.measurements() if item.valid}
    assert {*found} >= {
        (target, way) for target in ("onnxruntime", "openvino") for way in ("", "uniform:6x", "uniform:0.3")
    }
    assert "storage" not in found["onnxruntime", ""].variant.as_json()
    references = {way: found["onnxruntime", way].artifact.reference_sha256 for _, way in found}
    assert len({*references.values()}) == 3
    for way in ("uniform:6x", "uniform:0.3"):
        folder = store.model_folder(found["onnxruntime", way].variant.model_digest)
        _, arrays = read_packed(folder / PACKED)
        model = onnx.load(folder / "reference.onnx")
        shipped = [numpy_helper.to_array(one) for one in model.graph.initializer]
        largest = max(arrays.values(), key=lambda array: array.size)
        assert any(one.shape == largest.shape and np.array_equal(one, largest) for one in shipped)
        assert found["onnxruntime", way].metrics["shipped_bytes"] == (folder / PACKED).stat().st_size
        times = found["onnxruntime", way].artifact.decode_ns
        assert len(times) > 2 and found["onnxruntime", way].metrics["storage_decode_ns"] == np.median(times) > 0
        assert found["openvino", way].artifact.decode_ns == times  # of one model, decoded once for both
    whole = found["onnxruntime", ""].metrics
    assert whole["shipped_bytes"] == whole["size_bytes"] and "storage_decode_ns" not in whole
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "shipped uniform:6x" in page and "Decoding, CPU of the study&#39;s host" in page


def test_the_time_of_decoding_is_no_goal(tmp_path: Path) -> None:
    study = squares_study(tmp_path, *SPACE, ('metric = "latency_ratio"', 'metric = "storage_decode_ns"'))
    with pytest.raises(SpecError, match="of packed weights alone"):
        edgedeploy.load_study(study).run(edgedeploy.RunOptions(out=tmp_path / "out", board="here"))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ('["none", "uniform"]', "has no number"),
        ('["none", "zip"]', "names no way"),
        ('["none", "uniform:99x"]', "1 to 32 must hold"),
        ('["none", "hyper:2x"]', "names no way"),
        ('["uniform:12x"]', "no such value"),
        ('["none", "uniform:12x", "uniform:12.0x"]', "mean the same"),
        ("[1, 2]", "names no way"),
    ],
)
def test_ways_that_mean_nothing_are_refused(tmp_path: Path, values: str, found: str) -> None:
    study = squares_study(tmp_path, ("width = [1.0, 0.5]", f"storage = {values}"))
    with pytest.raises(SpecError, match=found):
        edgedeploy.load_study(study).run(edgedeploy.RunOptions(out=tmp_path / "out", board="here"))
    assert not (tmp_path / "out" / "baseline").exists()


READY_MADE = """
[study]
name = "given"
targets = ["onnxruntime"]

[task]
kind = "onnx"
model = "model.onnx"
options = { calibration = "0.npz", selection = "1.npz", confirmation = "2.npz" }

[[boards]]
name = "here"
kind = "local"

[space]
storage = ["none", "uniform:12x"]

[[objectives]]
metric = "latency_ratio"

[budget]
trials = 2
"""


def test_a_ready_made_model_is_refused(tmp_path: Path) -> None:
    convolutional(tmp_path / "model.onnx", named=False)
    for split in range(3):
        cases = np.random.default_rng(split).random((6, 1, 3, 16, 16)).astype(np.float32)
        np.savez(tmp_path / f"{split}.npz", image=cases)
    (tmp_path / "study.toml").write_text(READY_MADE, encoding="utf-8")
    with pytest.raises(SpecError, match="packed in no study"):
        edgedeploy.load_study(tmp_path / "study.toml").run(
            edgedeploy.RunOptions(out=tmp_path / "out", board="here", confirm=False)
        )
