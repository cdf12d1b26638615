"""A study's bundle in a product: it loads with the runtime alone, answers as the study's own code does, and is activated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import bundle_kit
import numpy as np
import product_kit
import pytest

from edgedeploy.runtime import load
from edgedeploy.study.bundle.make import make_bundle
from edgedeploy.study.bundle.options import BundleOptions

pytestmark = pytest.mark.beside


def test_a_bundle_of_a_study_loads_answers_and_is_activated(tmp_path: Path) -> None:
    """Its study's measurements are made up; models, artifacts and golden vectors are real."""
    bundle_kit.made_up_study(tmp_path / "study")
    key, trust = product_kit.make_key(tmp_path)
    for release in (1, 2):
        options = BundleOptions(name="phantom", release=release, sign=key)
        make_bundle(tmp_path / "study" / "runs", "pick", tmp_path / f"bundle-{release}", options)
    model = load(tmp_path / "bundle-1", trust=trust)
    assert model.proof.cases >= 2 and model.proof.share_differing is not None
    frame = np.random.default_rng(1).integers(0, 256, (60, 90), dtype=np.uint8)
    mask = model(frame)
    assert mask.shape == frame.shape and mask.dtype == np.uint8

    def activated(*words: str | Path) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "edgedeploy", "activate", *map(str, words), "--json"]
        argv += ["--trust", str(trust), "--root", str(tmp_path / "device")]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    for words, release in (([tmp_path / "bundle-1"], 1), ([tmp_path / "bundle-2"], 2), (["--previous"], 1)):
        done = activated(*words)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["release"] == release
    verified = subprocess.run(
        [
            sys.executable,
            "-m",
            "edgedeploy",
            "verify",
            str(tmp_path / "bundle-1"),
            "--trust",
            str(trust),
            "--board",
            "local",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr
    assert "ready on local: CPUExecutionProvider" in verified.stdout
    refused = activated(tmp_path / "bundle-1")
    assert refused.returncode == 2 and "downgrade" in refused.stderr and "Traceback" not in refused.stderr
    assert load(tmp_path / "device" / "current", trust=trust).release == 1
