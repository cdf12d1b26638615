"""Bundles of variants that answer batches, and of those that answer volumes in tiles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from bundle_kit import FLOAT, made_up_study

from edgedeploy.errors import BundleError
from edgedeploy.runtime.bundle.manifest import Manifest
from edgedeploy.runtime.bundle.tree import Tree, read_tree
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.runtime.pipeline.tiles import SETTING
from edgedeploy.study.bundle.exports.triton import write_triton
from edgedeploy.study.bundle.make import make_bundle
from edgedeploy.study.bundle.rebuild import RECIPE, of_bundle

pytestmark = pytest.mark.beside


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tree, Manifest]:
    folder = tmp_path_factory.mktemp("bundle")
    made = make_bundle(made_up_study(folder / "study").root, FLOAT.digest, folder / "bundle").folder
    return read_tree(made), verify(made, trust=None).manifest


def test_what_answers_batches_is_built_so_again(bundle: tuple[Tree, Manifest], tmp_path: Path) -> None:
    tree, manifest = bundle
    recipe = json.loads(tree.files[RECIPE])
    recipe["variant"]["max_batch"] = 2
    several = Tree({**tree.files, RECIPE: json.dumps(recipe).encode()})
    for name, given, sides in (("one", tree, {"dim_value"}), ("two", several, {"dim_param"})):
        artifact = of_bundle(manifest, given)(tmp_path / name)
        model = onnx.load(tmp_path / name / "artifact" / artifact.entry)
        assert {item.type.tensor_type.shape.dim[0].WhichOneof("value") for item in model.graph.input} == sides


def test_triton_gets_no_tile_for_a_volume(bundle: tuple[Tree, Manifest], tmp_path: Path) -> None:
    tree, manifest = bundle
    session = replace(manifest.artifact.session, settings={SETTING: "tiles.json"})
    cut = replace(manifest, artifact=replace(manifest.artifact, session=session))
    with pytest.raises(BundleError, match="the network of one tile"):
        write_triton(tree, cut, tmp_path)
    assert list(tmp_path.iterdir()) == []
