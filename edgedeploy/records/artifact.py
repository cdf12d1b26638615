"""An artifact: the files a target built, addressed by their content."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgedeploy.records.variant import digest_of
from edgedeploy.runtime.files import PART_PREFIX, sha256_file

MANIFEST: Final = "edgedeploy-artifact.json"
"""Name of the file that describes a stored artifact. It lies in the artifact's folder but is not one of its files, so
no target may write a file of that name."""

CALIBRATED_RANGES: Final = "calibrated_ranges"
"""The setting that says how many ranges of a model that was trained to be int8 come from calibration."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type (numpy's name) and static shape of one input or output."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        return cls(str(data["name"]), str(data["dtype"]), tuple(int(n) for n in data["shape"]))


def random_feed(specs: Sequence[TensorSpec], seed: int) -> dict[str, Any]:
    """Seeded numpy arrays of the given specs that most models take, for where there are no cases of the user's own:

    - floating types: above 0, up to 1 (a logarithm, a square root and a division are defined);
    - uint8: 0 to 255, as pixels;
    - bool: True and False by turns (a mask that leaves something and takes something);
    - other whole numbers: 1 (an index that the smallest table has, a length that is not empty).
    """
    import numpy as np

    generator = np.random.default_rng(seed)

    def values(spec: TensorSpec) -> Any:
        dtype = np.dtype(spec.dtype)
        if np.issubdtype(dtype, np.floating):
            return np.maximum(1 - generator.random(spec.shape), 1e-3).astype(dtype)
        if dtype == np.uint8:
            return generator.integers(0, 256, spec.shape, dtype=np.uint8)
        if dtype == np.bool_:
            return np.arange(math.prod(spec.shape)).reshape(spec.shape) % 2 == 0
        return np.ones(spec.shape, dtype)

    return {spec.name: np.asarray(values(spec), np.dtype(spec.dtype)) for spec in specs}


@dataclass(frozen=True)
class ArtifactFile:
    """One file of an artifact: its name inside the folder (no directories), content hash and size."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Artifact:
    """What one target built from one ONNX reference.

    ``entry`` is the file a session opens; ``settings`` are passed to the session unchanged (such as a precision hint);
    ``reference_sha256`` identifies the ONNX file it is compared with; ``built_with`` maps tool to version.
    ``shipped_bytes`` is the size of the packed weights that it was built from; 0 where weights are shipped as they are.
    ``decode_ns`` are CPU times of decoding them on the host that packed them, one each; none where nothing is packed.
    """

    target: str
    precision: str
    entry: str
    files: tuple[ArtifactFile, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    settings: tuple[tuple[str, str], ...]
    reference_sha256: str
    built_with: tuple[tuple[str, str], ...]
    shipped_bytes: int = 0
    decode_ns: tuple[int, ...] = ()

    @property
    def digest(self) -> str:
        """16 hex digits over everything that decides what the artifact computes."""
        return digest_of(
            {
                "target": self.target,
                "precision": self.precision,
                "entry": self.entry,
                "files": {file.name: file.sha256 for file in self.files},
                "settings": dict(self.settings),
            }
        )[:16]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def as_json(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "precision": self.precision,
            "entry": self.entry,
            "files": [{"name": f.name, "sha256": f.sha256, "size_bytes": f.size_bytes} for f in self.files],
            "inputs": [spec.as_json() for spec in self.inputs],
            "outputs": [spec.as_json() for spec in self.outputs],
            "settings": dict(self.settings),
            "reference_sha256": self.reference_sha256,
            "built_with": dict(self.built_with),
            "digest": self.digest,
            **({"shipped_bytes": self.shipped_bytes} if self.shipped_bytes else {}),
            **({"decode_ns": list(self.decode_ns)} if self.decode_ns else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Artifact:
        return cls(
            target=str(data["target"]),
            precision=str(data["precision"]),
            entry=str(data["entry"]),
            files=tuple(ArtifactFile(str(f["name"]), str(f["sha256"]), int(f["size_bytes"])) for f in data["files"]),
            inputs=tuple(TensorSpec.from_json(item) for item in data["inputs"]),
            outputs=tuple(TensorSpec.from_json(item) for item in data["outputs"]),
            settings=tuple(sorted((str(k), str(v)) for k, v in data["settings"].items())),
            reference_sha256=str(data["reference_sha256"]),
            built_with=tuple(sorted((str(k), str(v)) for k, v in data["built_with"].items())),
            shipped_bytes=int(data.get("shipped_bytes", 0)),
            decode_ns=tuple(int(one) for one in data.get("decode_ns", ())),
        )

    @classmethod
    def of_folder(
        cls,
        folder: Path,
        *,
        target: str,
        precision: str,
        entry: str,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        settings: Mapping[str, str],
        reference_sha256: str,
        built_with: Mapping[str, str],
    ) -> Artifact:
        """Hash every file directly inside ``folder`` but half-written ones and the manifest of a stored artifact. Raises
        ``FileNotFoundError`` when ``entry`` is not among them."""
        paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name != MANIFEST)
        paths = [path for path in paths if not path.name.startswith(PART_PREFIX)]
        if entry not in {path.name for path in paths}:
            raise FileNotFoundError(folder / entry)
        return cls(
            target=target,
            precision=precision,
            entry=entry,
            files=tuple(ArtifactFile(path.name, sha256_file(path), path.stat().st_size) for path in paths),
            inputs=inputs,
            outputs=outputs,
            settings=tuple(sorted(settings.items())),
            reference_sha256=reference_sha256,
            built_with=tuple(sorted(built_with.items())),
        )
