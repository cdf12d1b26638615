"""A bundle in a MONAI bundle: ``configs/metadata.json`` describes the network, ``models/`` has its portable ONNX, and the
whole signed bundle lies in ``edgedeploy/``.

There is no ``inference.json``: its ``_target_`` would run any Python, and the pipeline is data of the bundle itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import BundleError
from edgedeploy.files import parsed
from edgedeploy.runtime.bundle.manifest import Manifest, Tensor
from edgedeploy.runtime.bundle.tree import Tree

SCHEMA: Final = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
INSIDE: Final = "edgedeploy"
REFERENCE: Final = "model/reference.onnx"
RECIPE: Final = "recipe.json"
_README: Final = """\
# {name}, release {release}

`models/model.onnx` is the portable model. What was measured is the artifact in `edgedeploy/`, a signed bundle:

    from edgedeploy.runtime import load
    model = load("edgedeploy", trust="lab.pem.pub")
    result = model(frame)
"""


def write_monai(tree: Tree, manifest: Manifest, folder: Path) -> None:
    """Into the empty ``folder``. Raises ``BundleError`` for a bundle without a portable model, which is what others open,
    and for one whose recipe was not written by ``edgedeploy bundle``."""
    if REFERENCE not in tree.digests:
        found = f"it has no portable model ({REFERENCE}), and a MONAI bundle is made around one"
        raise BundleError(
            "a MONAI bundle of that bundle", found, "Hand it over as oci or mlflow, which take it as it is"
        )
    metadata = _metadata(tree, manifest)
    for name in tree.digests:
        path = folder / INSIDE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tree.read(name))
    for place in ("configs", "models", "docs"):
        (folder / place).mkdir()
    (folder / "models" / "model.onnx").write_bytes(tree.read(REFERENCE))
    text = json.dumps(metadata, sort_keys=True, indent=1)
    (folder / "configs" / "metadata.json").write_text(text + "\n", encoding="utf-8")
    readme = _README.format(name=manifest.name, release=manifest.release)
    (folder / "docs" / "README.md").write_text(readme, encoding="utf-8")


def _metadata(tree: Tree, manifest: Manifest) -> dict[str, Any]:
    versions, classes = _recipe(tree)
    return {
        "schema": SCHEMA,
        "version": f"{manifest.release}.0.0",
        "changelog": {f"{manifest.release}.0.0": "see edgedeploy/CHANGES.md"},
        "monai_version": versions.get("monai", ""),
        "pytorch_version": versions.get("torch", ""),
        "numpy_version": versions.get("numpy", ""),
        "required_packages_version": {
            manifest.compatibility.runtime.package: manifest.compatibility.runtime.measured_with
        },
        "name": manifest.name,
        "task": "see edgedeploy/MODEL_CARD.md",
        "description": f"{manifest.name}, release {manifest.release}; identity {tree.identity}",
        "authors": "see edgedeploy/sbom.cdx.json",
        "copyright": "not stated",
        "network_data_format": {
            "inputs": {tensor.name: _form(tensor) for tensor in manifest.inputs},
            "outputs": {
                tensor.name: {**_form(tensor), "channel_def": dict(enumerate(classes))} for tensor in manifest.outputs
            },
        },
    }


def _recipe(tree: Tree) -> tuple[dict[str, str], list[str]]:
    """Versions of tools and names of classes, as far as the bundle says them."""
    try:
        recipe = parsed(tree.read(RECIPE)) if RECIPE in tree.digests else {}
        versions, classes = recipe.get("study_versions") or {}, recipe.get("classes") or []
        return {str(name): str(version) for name, version in versions.items()}, [str(name) for name in classes]
    except (ValueError, RecursionError, AttributeError, TypeError):
        found = f"{RECIPE} is none that `edgedeploy bundle` writes"
        raise BundleError(
            "a MONAI bundle of that bundle", found, "Hand it over as oci, which takes it as it is"
        ) from None


def _form(tensor: Tensor) -> dict[str, Any]:
    spatial = [size or "*" for size in tensor.shape[2:]]
    return {
        "type": "image",
        "format": "see edgedeploy/bundle.json",
        "num_channels": tensor.shape[1] if len(tensor.shape) > 1 else 1,
        "spatial_shape": spatial,
        "dtype": tensor.dtype,
        "value_range": [],
        "is_patch_data": False,
        "channel_def": {},
    }
