"""A study on LiteRT from search to measurement over SSH: the torch program is kept, artifacts are built from it and
measured on an emulated board."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgedeploy import RunOptions, load_study
from edgedeploy.study.store import Store
from edgedeploy.targets.litert.target import LiteRtTarget

pytestmark = [pytest.mark.beside, pytest.mark.usefixtures("warm_converter")]

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
SPACE = 'width = [1.0, 0.5]\nkernel = [3, 5]\nprecision = ["float32", "int8"]'


@pytest.mark.slow
def test_every_precision_is_measured_from_a_pruned_network_too(tmp_path: Path) -> None:
    readiness = LiteRtTarget().probe()
    if not readiness.ready:
        pytest.skip(f"{readiness.found} ({readiness.remedy})")
    shutil.copy(EXAMPLES / "squares.py", tmp_path)
    text = (EXAMPLES / "squares.toml").read_text(encoding="utf-8")
    changes = {
        'targets = ["onnxruntime", "openvino"]': 'targets = ["litert"]',
        SPACE: 'width = [0.5]\nprecision = ["float32", "float16", "int8", "int8-dynamic"]',
        "trials = 6": "trials = 4",
        "queries = 64": "queries = 16",
        "cold_starts = 1": "cold_starts = 0",
        "count = 32": "count = 16",
    }
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "squares.toml").write_text(text, encoding="utf-8")
    load_study(tmp_path / "squares.toml").run(RunOptions(out=tmp_path / "out", confirm=False))
    measured = {(m.variant.width, m.variant.precision): m for m in Store(tmp_path / "out").measurements()}
    assert {(0.5, name) for name in LiteRtTarget.precisions} == set(measured)
    executed = {precision: item.candidate.executed for (_, precision), item in measured.items()}
    assert {item.provenance for item in measured.values()} == {"emulated"}
    assert executed["int8"] == {"int8": 3}
    assert executed["float32"] == {"float32": 3}
    assert executed["float16"] == {"float16-weights": 3}
    assert executed["int8-dynamic"] == {"int8-dynamic": 3}
    assert {item.candidate.runtime_version for item in measured.values()} == {
        dict(LiteRtTarget().probe().versions)["ai-edge-litert"]
    }
