"""Where an artifact's outputs leave those of its reference, layer by layer, by the names of the reference's nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import DataError, SpecError, nearest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import MANIFEST, Artifact, random_feed
from edgedeploy.records.variant import Variant
from edgedeploy.reference.parity import TOLERANCE
from edgedeploy.runtime.files import sha256_file
from edgedeploy.study.artifacts import artifact_manifest
from edgedeploy.study.oneshot.folder import REFERENCE as EXPORTED_REFERENCE
from edgedeploy.study.reading import read_record
from edgedeploy.study.store import Store
from edgedeploy.targets.common import saturates_here
from edgedeploy.targets.compare.layers import LayerError, compare_layers
from edgedeploy.tasks.onnx.clips import first_frames
from edgedeploy.tasks.onnx.inputs import ArraySource

CASES: Final = 4

STAND_INS: Final[Mapping[str, str]] = {
    "litert": "built-in kernels ran the file: XNNPACK keeps nothing of what lies between its layers",
    "tensorrt": "ONNX Runtime ran the file: what an engine computes, only a board can tell",
}
"""Targets whose own kernels do not expose tensors between layers -> what ran instead."""

IN_FLOAT_HERE: Final = "quantized layers were computed in float: the int8 kernels of this host saturate"

_MADE_ANEW: Final = "Run `edgedeploy search --resume`, which makes it anew, or name the file with --reference"


@dataclass(frozen=True)
class DebugReport:
    """Every layer that could be compared. ``first_bad`` is the first layer below ``threshold_db``; ``inputs`` describes
    the inputs of both models; ``notes`` are further hints."""

    artifact: Artifact
    layers: tuple[LayerError, ...]
    threshold_db: float
    inputs: str
    notes: tuple[str, ...]

    @property
    def first_bad(self) -> LayerError | None:
        return next((layer for layer in self.layers if layer.sqnr_db < self.threshold_db), None)

    @property
    def noisiest(self) -> LayerError | None:
        """Where most of the noise enters."""
        return max(self.layers, key=lambda layer: layer.added, default=None)

    def as_json(self) -> dict[str, Any]:
        return {
            "target": self.artifact.target,
            "precision": self.artifact.precision,
            "artifact": self.artifact.digest,
            "reference_sha256": self.artifact.reference_sha256,
            "threshold_db": self.threshold_db,
            "inputs": self.inputs,
            "notes": list(self.notes),
            "first_bad": self.first_bad.layer if self.first_bad else None,
            "noisiest": self.noisiest.layer if self.noisiest else None,
            "layers": [layer.as_json() for layer in self.layers],
        }


def debug(
    place: str | Path,
    *,
    variant: str | None = None,
    reference: str | Path | None = None,
    inputs: str | Path | None = None,
    cases: int = CASES,
    threshold_db: float | None = None,
) -> DebugReport:
    """Compare an artifact with its reference layer by layer.

    ``place`` is the folder of a stored artifact, or a study's folder together with a variant's digest (its beginning is
    enough). ``reference`` and ``inputs`` (an ``.npz``) default to what the study's folder holds; without inputs there,
    seeded random ones are used, and the report says so. ``threshold_db`` defaults to the parity tolerance of the precision.

    Raises ``SpecError`` for what cannot be found, ``DataError`` for inputs that do not fit.
    """
    folder = _artifact_folder(Path(place), variant)
    manifest = artifact_manifest(folder)
    if manifest is None:
        raise SpecError(
            f"artifact {folder}",
            f"no manifest {MANIFEST} in it",
            "Name a folder below STUDY/artifacts, or a study's folder with --variant",
        )
    artifact = Artifact.from_json(manifest)
    root = folder.resolve().parent.parent
    source, notes = _reference(artifact, folder, root, None if reference is None else Path(reference))
    changed = [file.name for file in artifact.files if _differs(folder / file.name, file.sha256)]
    notes += [f"{name} is not the file that was built" for name in changed]
    notes += [STAND_INS[artifact.target]] if artifact.target in STAND_INS else []
    if saturates_here() and artifact.target in ("onnxruntime", "openvino") and artifact.precision.startswith("int8"):
        notes.append(IN_FLOAT_HERE)
    feeds, text = _feeds(artifact, root, None if inputs is None else Path(inputs), cases)
    limit = -20.0 * math.log10(TOLERANCE[artifact.precision]) if threshold_db is None else threshold_db
    layers = compare_layers(source, artifact, folder, feeds)
    if not layers:
        raise SpecError(f"layers of {folder.name}", "none can be told in both models", "Rebuild from a named reference")
    return DebugReport(artifact, tuple(layers), limit, text, tuple(notes))


def _artifact_folder(place: Path, variant: str | None) -> Path:
    store = Store(place)
    if not store.exists():
        if variant is not None:
            raise SpecError(f"study folder {place}", "it holds no study", "--variant goes with a study's folder")
        return place
    known = {item.digest: item for item in _variants(store)}
    if variant is None:
        there = ", ".join(f"{digest} ({item.label})" for digest, item in known.items()) or "none is there yet"
        raise SpecError(f"an artifact of study {place}", "no variant is named", f"--variant: one of {there}")
    fitting = [digest for digest in known if digest.startswith(variant)]
    if len(fitting) != 1:
        found = f"{len(fitting)} variants begin so" if fitting else "the study has none of that digest"
        raise SpecError(f"variant {variant!r}", found, nearest(variant, known))
    return store.artifact_folder(known[fitting[0]].artifact_name)


def _variants(store: Store) -> list[Variant]:
    """Every variant the study knows: those that failed are the ones worth debugging."""
    measured = [item.variant for item in (*store.measurements(), *store.invalid())]
    return measured + [item.variant for item in store.failures()]


def _reference(artifact: Artifact, folder: Path, root: Path, given: Path | None) -> tuple[Path, list[str]]:
    """The file that the artifact in ``folder`` was built from: of its study, or beside an exported artifact. A
    ``given`` file is used instead, with a note if it is another one."""
    if given is not None:
        if not given.is_file():
            raise SpecError(f"--reference {given}", "there is no such file")
        same = sha256_file(given) == artifact.reference_sha256
        return given, [] if same else [f"{given.name} is not the reference that the artifact was built from"]
    exported = folder / EXPORTED_REFERENCE
    if exported.is_file() and sha256_file(exported) == artifact.reference_sha256:
        return exported, []
    for path in sorted((root / "models").glob("*/reference.json")):
        sha256, file = read_record(path, lambda kept: (str(kept["sha256"]), str(kept["file"])), _MADE_ANEW)
        if sha256 == artifact.reference_sha256:
            return path.parent / file, []
    raise SpecError(
        f"reference {artifact.reference_sha256[:12]} of the artifact",
        f"no model below {root / 'models'} is it",
        "Name the ONNX file with --reference",
    )


def _feeds(
    artifact: Artifact, root: Path, given: Path | None, cases: int
) -> tuple[Callable[[], Iterable[Mapping[str, Array]]], str]:
    """The inputs of both models, and a description. Only stored calibration and selection cases are used: the
    confirmation split must not be looked at."""
    candidates = [given] if given is not None else sorted((root / "inputs").glob("selection-*.npz"))
    for path in candidates:
        try:
            source = ArraySource(path, artifact.inputs)
        except DataError:
            frames = first_frames(path, artifact.inputs, cases)
            if frames:
                return partial(list, frames), f"the first frames of {len(frames)} clips of {path.name}"
            if given is not None:
                raise
            continue
        count = min(cases, len(source.names()))
        return partial(_rows, source, count), f"{count} cases of {path.name}"
    feeds = [random_feed(artifact.inputs, seed) for seed in range(cases)]
    return lambda: feeds, f"{cases} random inputs: no stored ones fit, so ranges say little about real data"


def _rows(source: ArraySource, count: int) -> Iterator[Mapping[str, Array]]:
    return (source.load(index) for index in range(count))


def _differs(path: Path, sha256: str) -> bool:
    return not path.is_file() or sha256_file(path) != sha256
