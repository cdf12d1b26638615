"""A study whose references have their weights in files of their own: board, store and bundle."""

from __future__ import annotations

from pathlib import Path

import bundle_kit
import numpy as np
import pytest
from board_kit import squares_study

import edgedeploy
from edgedeploy import RunOptions
from edgedeploy.reference import external
from edgedeploy.runtime import load
from edgedeploy.runtime.bundle.tree import read_tree
from edgedeploy.study.bundle.make import REFERENCE_WEIGHTS, make_bundle
from edgedeploy.study.bundle.options import BundleOptions
from edgedeploy.study.models import kept_reference
from edgedeploy.study.store import Store
from edgedeploy.study.whole import NOT_AS_MADE

pytestmark = pytest.mark.waiting


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every reference's weights, as if they were past the limit."""
    monkeypatch.setattr(external, "MOST_INSIDE_BYTES", 0)


def test_a_study_goes_to_its_board_with_them_and_notices_others(tmp_path: Path) -> None:
    other = '[[boards]]\nname = "loopback"\nkind = "emulated"\nserver = "embedded"\n\n'
    path = squares_study(
        tmp_path,
        (other, ""),
        ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]'),
        ("trials = 6", "trials = 2"),
    )
    out = tmp_path / "out"
    edgedeploy.load_study(path).run(RunOptions(out=out, confirm=False))
    store = Store(out)
    baseline = next(item for item in store.measurements() if item.variant.precision == "float32")
    assert {file.name for file in baseline.artifact.files} == {"model.onnx", "reference.onnx.data"}
    assert baseline.parity["rel_l2"] == 0.0

    weights = external.weights_file(store.model_folder(baseline.variant.model_digest) / "reference.onnx")
    harmed = bytearray(weights.read_bytes())
    harmed[0] ^= 1
    weights.write_bytes(harmed)
    heard: list[str] = []
    assert kept_reference(weights.parent, (), heard.append) is None
    assert heard == [f"model {weights.parent.name} is not used and made anew: of reference.onnx.data, {NOT_AS_MADE}"]


def test_a_bundle_has_them_and_answers_as_its_reference(tmp_path: Path) -> None:
    bundle_kit.made_up_study(tmp_path / "study")
    make_bundle(tmp_path / "study" / "runs", "pick", tmp_path / "bundle", BundleOptions(name="phantom"))
    tree = read_tree(tmp_path / "bundle")
    assert REFERENCE_WEIGHTS in tree.files
    mask = load(tmp_path / "bundle", trust=None)(np.random.default_rng(1).integers(0, 256, (60, 90), dtype=np.uint8))
    assert mask.shape == (60, 90)
