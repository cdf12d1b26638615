"""A bundle as an OCI image layout of a model (CNCF ModelPack 1.0): one uncompressed layer per file, the same bytes twice.

``skopeo copy oci:FOLDER docker://REGISTRY/NAME`` pushes it; whoever pulls it writes each layer to the path in its
annotation, and has the bundle again, signature included.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from edgedeploy.runtime.bundle.manifest import Manifest
from edgedeploy.runtime.bundle.tree import Tree

_BASE: Final = "application/vnd.cncf.model"
_MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
FILE_PATH: Final = "org.cncf.model.filepath"


def write_oci(tree: Tree, manifest: Manifest, folder: Path) -> None:
    """Into the empty ``folder``."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    layers = [
        put(f"{_BASE}.{_kind(name)}.v1.raw", tree.read(name), annotations={FILE_PATH: name})
        for name in sorted(tree.digests)
    ]
    config = put(f"{_BASE}.config.v1+json", _json(_config(manifest, [layer["digest"] for layer in layers])))
    index = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_TYPE,
        "artifactType": f"{_BASE}.manifest.v1+json",
        "config": config,
        "layers": layers,
        "annotations": {"org.opencontainers.image.title": manifest.name, "edgedeploy.identity": tree.identity},
    }
    entry = put(_MANIFEST_TYPE, _json(index), annotations={"org.opencontainers.image.ref.name": str(manifest.release)})
    (folder / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [entry]}))
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))


def _kind(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    if name.startswith(("artifact/", "model/")):
        return "weight"
    return {".md": "doc", ".npy": "dataset"}.get(suffix, "weight.config")


def _config(manifest: Manifest, digests: list[str]) -> dict[str, Any]:
    created = {"createdAt": manifest.created} if manifest.created else {}
    return {
        "descriptor": {"name": manifest.name, "version": str(manifest.release), **created},
        "config": {"format": PurePosixPath(manifest.artifact.session.entry).suffix.lstrip(".")},
        "modelfs": {"type": "layers", "diffIds": digests},
    }


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
