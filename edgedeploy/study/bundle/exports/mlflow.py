"""A bundle as an MLflow model: ``MLmodel`` beside the whole signed bundle. Nothing of it is pickled.

``mlflow.pyfunc.load_model(FOLDER)`` loads the bundle as a product does. The key that it has to be signed by is the file
named by the environment variable :data:`TRUST`: a key inside the model would prove nothing.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import BundleError
from edgedeploy.runtime.bundle.manifest import Manifest
from edgedeploy.runtime.bundle.tree import Tree

TRUST: Final = "EDGEDEPLOY_TRUST"
INSIDE: Final = "bundle"


def write_mlflow(tree: Tree, manifest: Manifest, folder: Path) -> None:
    """Into the empty ``folder``."""
    for name in tree.digests:
        path = folder / INSIDE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tree.read(name))
    described = {
        "flavors": {"python_function": {"loader_module": __name__, "data": INSIDE}},
        "utc_time_created": (manifest.created or "1970-01-01T00:00:00Z").replace("T", " ").rstrip("Z"),
        "metadata": {"name": manifest.name, "release": manifest.release, "identity": tree.identity},
    }
    # JSON is YAML, which is what MLflow reads.
    (folder / "MLmodel").write_text(json.dumps(described, sort_keys=True, indent=1) + "\n", encoding="utf-8")
    package = manifest.compatibility.runtime
    lines = ["edgedeploy", f"{package.package}>={package.at_least}" + (f",<{package.below}" if package.below else "")]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


class Served:
    """What MLflow calls."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, model_input: Any, params: Any = None) -> Any:
        """A frame to the bundle's result."""
        return self._model(model_input)


def _load_pyfunc(path: str) -> Served:
    """MLflow's name for it. Raises ``BundleError`` without a key, and what ``edgedeploy.runtime.load`` raises."""
    from edgedeploy.runtime import load

    trust = os.environ.get(TRUST)
    if not trust:
        raise BundleError(
            f"load the bundle in {path}", f"{TRUST} names no key", "Set it to the maker's public key file"
        )
    return Served(load(path, trust=trust))
