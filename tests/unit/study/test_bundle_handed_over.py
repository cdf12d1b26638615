"""Layouts that a bundle is handed over in: each is the bundle again, or opens it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_kit import array, made_up_study, manifest_of
from product_kit import make_key

from edgedeploy.errors import BundleError, SpecError
from edgedeploy.runtime.bundle.tree import read_tree
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.study.bundle.golden import synthetic_frame
from edgedeploy.study.bundle.hand_over import hand_over
from edgedeploy.study.bundle.make import make_bundle
from edgedeploy.study.bundle.options import BundleOptions

pytestmark = pytest.mark.beside


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_study(tmp_path_factory.mktemp("bundle") / "study").root.parent


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    return make_bundle(folder / "runs", "pick", folder / "bundle").folder


def test_as_an_oci_layout_it_is_the_bundle_again(bundle: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        hand_over(bundle, "oci", tmp_path / name, None)
    assert (tmp_path / "a" / "index.json").read_bytes() == (tmp_path / "b" / "index.json").read_bytes()
    assert json.loads((tmp_path / "a" / "oci-layout").read_text())["imageLayoutVersion"] == "1.0.0"

    def blob(entry: dict[str, Any]) -> bytes:
        data = (tmp_path / "a" / "blobs" / "sha256" / entry["digest"].removeprefix("sha256:")).read_bytes()
        assert len(data) == entry["size"] and f"sha256:{hashlib.sha256(data).hexdigest()}" == entry["digest"]
        return data

    index = json.loads(blob(json.loads((tmp_path / "a" / "index.json").read_bytes())["manifests"][0]))
    assert index["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    config = json.loads(blob(index["config"]))
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in index["layers"]]
    for layer in index["layers"]:
        path = tmp_path / "again" / layer["annotations"]["org.cncf.model.filepath"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob(layer))
    assert verify(tmp_path / "again", trust=None).identity == read_tree(bundle).identity


def test_as_a_triton_repository_it_has_the_artifact_and_golden_inputs(bundle: Path, tmp_path: Path) -> None:
    hand_over(bundle, "triton", tmp_path / "repository", None)
    model = tmp_path / "repository" / "a-phantom"
    assert (model / "1" / "model.onnx").read_bytes() == (bundle / "artifact" / "model.onnx").read_bytes()
    config = (model / "config.pbtxt").read_text()
    assert 'input { name: "image" data_type: TYPE_FP32 dims: [ 1, 1, 32, 32 ] }' in config
    for case in manifest_of(bundle).golden.cases:
        raw = np.frombuffer((model / "warmup" / f"{case.id}.image").read_bytes(), np.float32)
        assert np.array_equal(raw, array(bundle, case.inputs["image"]).ravel())
        assert f'input_data_file: "{case.id}.image"' in config


def test_in_a_monai_bundle_it_stays_whole(bundle: Path, tmp_path: Path) -> None:
    hand_over(bundle, "monai", tmp_path / "m", None)
    assert read_tree(tmp_path / "m" / "edgedeploy").identity == read_tree(bundle).identity
    metadata = json.loads((tmp_path / "m" / "configs" / "metadata.json").read_text("utf-8"))
    assert metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] == [32, 32]
    assert metadata["network_data_format"]["outputs"]["out0"]["channel_def"]["2"] == "vessel"


def test_as_an_mlflow_model_it_is_verified_when_it_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow.pyfunc")
    key, trust = make_key(tmp_path)
    made = make_bundle(folder / "runs", "pick", tmp_path / "b", BundleOptions(sign=key)).folder
    hand_over(made, "mlflow", tmp_path / "m", trust)
    with pytest.raises(BundleError, match="EDGEDEPLOY_TRUST"):
        mlflow.load_model(str(tmp_path / "m"))
    monkeypatch.setenv("EDGEDEPLOY_TRUST", str(trust))
    frame = synthetic_frame(np.zeros((48, 48), np.uint8), 1)
    assert mlflow.load_model(str(tmp_path / "m")).predict(frame).shape == (48, 48)


def test_only_what_is_whole_is_handed_over(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such layout"):
        hand_over(bundle, "rpm", tmp_path / "a", None)
    shutil.copytree(bundle, tmp_path / "broken")
    (tmp_path / "broken" / "claims.json").write_text("{}")
    with pytest.raises(BundleError, match="tampered"):
        hand_over(tmp_path / "broken", "oci", tmp_path / "a", None)
    assert not (tmp_path / "a").exists()
