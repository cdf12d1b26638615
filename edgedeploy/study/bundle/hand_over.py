"""``edgedeploy hand-over``: a bundle in the layout of another tool."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgedeploy.errors import SpecError, nearest
from edgedeploy.files import new_folder, place_told
from edgedeploy.runtime.bundle.manifest import Manifest
from edgedeploy.runtime.bundle.tree import Tree
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.study.bundle.exports.mlflow import write_mlflow
from edgedeploy.study.bundle.exports.monai import write_monai
from edgedeploy.study.bundle.exports.oci import write_oci
from edgedeploy.study.bundle.exports.triton import write_triton
from edgedeploy.study.bundle.pack import require_outside
from edgedeploy.study.bundle.refused import refusals_told
from edgedeploy.study.oneshot.desk import require_absent

LAYOUTS: Final[dict[str, Callable[[Tree, Manifest, Path], None]]] = {
    "mlflow": write_mlflow,
    "monai": write_monai,
    "oci": write_oci,
    "triton": write_triton,
}


def hand_over(bundle: Path, layout: str, out: Path, trust: Path | None) -> None:
    """Write the new folder ``out`` of a bundle that is whole; signed by the key ``trust`` where one is given.

    Raises ``SpecError`` for an ``out`` that exists and an unknown layout, ``BundleError`` for a bundle that is refused, and
    for one that the layout has no place for.
    """
    if layout not in LAYOUTS:
        raise SpecError(f"--to {layout}", "there is no such layout", nearest(layout, LAYOUTS))
    require_absent(out)
    require_outside(out, bundle)
    with refusals_told(f"hand over {bundle}"):
        found = verify(bundle, trust)
    with place_told(out), new_folder(out) as part, refusals_told(f"hand over {bundle}"):
        LAYOUTS[layout](found.tree, found.manifest, part)
