"""``edgedeploy bundle``: one variant of a study as the folder that an integrator gets.

The folder appears whole or not at all. Two runs on one host give the same bytes: the only moment in it is when the variant
was measured, or ``SOURCE_DATE_EPOCH``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import BundleError, SpecError
from edgedeploy.files import new_folder, place_told
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference import external
from edgedeploy.runtime.bundle.manifest import (
    ARTIFACT_FOLDER,
    FORMAT,
    VERSION,
    ArtifactPart,
    Compatibility,
    FileEntry,
    Manifest,
    Pipeline,
    RuntimeRange,
    Session,
    Tensor,
    parse,
)
from edgedeploy.runtime.bundle.names import MANIFEST, check_names
from edgedeploy.runtime.bundle.tree import read_tree
from edgedeploy.runtime.faults import BundleError as Refused
from edgedeploy.runtime.files import sha256_file
from edgedeploy.runtime.sessions.sources import BUILTIN
from edgedeploy.study.bundle.facts import claims, provenance, recipe
from edgedeploy.study.bundle.golden import GoldenSet, golden_of
from edgedeploy.study.bundle.link import WEIGHTS
from edgedeploy.study.bundle.material import Material, gather
from edgedeploy.study.bundle.options import BundleOptions, moment_at, moment_of, name_of
from edgedeploy.study.bundle.pages import changes, model_card
from edgedeploy.study.bundle.private import require_nothing_private
from edgedeploy.study.bundle.sbom import sbom
from edgedeploy.study.models import PACKED
from edgedeploy.study.oneshot.desk import require_absent

REFERENCE: Final = "model/reference.onnx"
REFERENCE_WEIGHTS: Final = f"{REFERENCE}{external.SUFFIX}"
EPOCH: Final = "SOURCE_DATE_EPOCH"


@dataclass(frozen=True)
class Made:
    """``identity`` names the bundle; ``signer`` is the id of the key that signed it, None for an unsigned one. ``warning``
    says what is not shown of the variant, empty for nothing."""

    folder: Path
    name: str
    release: int
    variant: str
    label: str
    identity: str
    signer: str | None
    files: int
    size_bytes: int
    golden: str
    warning: str

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "folder": str(self.folder)}


def make_bundle(folder: str | Path, pick: str, out: str | Path, options: BundleOptions | None = None) -> Made:
    """Make the new folder ``out`` of the study in ``folder``: of the variant whose digest begins with ``pick``, or of the
    study's own pick by the word ``pick``.

    Raises what :func:`~edgedeploy.study.bundle.material.gather` raises, ``SpecError`` for an ``out`` that exists and a key
    that cannot be used, ``BundleError`` for what may not be in a bundle.
    """
    options, out = options or BundleOptions(), Path(out)
    require_absent(out)
    material = gather(folder, pick)
    golden = golden_of(material, options.golden)
    with place_told(out), new_folder(out) as part:
        manifest = _fill(part, material, options, golden)
        require_nothing_private(part, material)
        signer = _sign(part, options.sign, manifest.name) if options.sign is not None else None
        tree = read_tree(part)
    found = material.measurement
    return Made(
        folder=out,
        name=manifest.name,
        release=manifest.release,
        variant=found.digest,
        label=found.variant.label,
        identity=tree.identity,
        signer=signer,
        files=len(tree.digests),
        size_bytes=sum(entry.size for entry in manifest.files.values()),
        golden=golden.told,
        warning=material.choice.text if material.choice.warned else "",
    )


def _fill(part: Path, material: Material, options: BundleOptions, golden: GoldenSet) -> Manifest:
    """Write all files but the signature; the manifest last, because it has the hashes of the others."""
    created = _created(material)
    name = options.name or name_of(material.spec.study.name)
    (part / ARTIFACT_FOLDER).mkdir()
    for item in material.artifact.files:
        shutil.copyfile(material.artifact_folder / item.name, part / ARTIFACT_FOLDER / item.name)
    _write(part, golden.files)
    (part / REFERENCE).parent.mkdir(exist_ok=True)
    external.copy(material.reference.path, part / REFERENCE)
    packed = material.reference.path.with_name(PACKED)
    if packed.is_file():
        shutil.copyfile(packed, part / WEIGHTS)
    _write(part, {file: _json(value) for file, value in _facts(material, options, golden, name, created).items()})
    draft = _manifest(material, options, golden, name, created, {})
    pages = {"MODEL_CARD.md": model_card(material, options, draft, golden), "CHANGES.md": changes(material)}
    _write(part, {file: text.encode() for file, text in pages.items()})
    manifest = _manifest(material, options, golden, name, created, _listed(part))
    try:
        check_names(manifest.files)
        parse(manifest.text())
    except Refused as exc:
        raise BundleError("a bundle of that variant", exc.message, "Choose another variant, or report it") from None
    _write(part, {MANIFEST: manifest.text()})
    return manifest


def _facts(
    material: Material, options: BundleOptions, golden: GoldenSet, name: str, created: str
) -> dict[str, dict[str, Any]]:
    return {
        "claims.json": claims(material, golden.told),
        "recipe.json": recipe(material),
        "provenance.json": provenance(material),
        "sbom.cdx.json": sbom(material, options, name, created),
    }


def _created(material: Material) -> str:
    """The moment that the bundle says it is of. Raises ``SpecError`` for a bad ``SOURCE_DATE_EPOCH``."""
    text = os.environ.get(EPOCH, "")
    if not text:
        return moment_of(material.measurement.created_utc)
    try:
        return moment_at(int(text))
    except (ValueError, OverflowError, OSError):
        raise SpecError(f"{EPOCH}={text[:40]}", "it is no number of seconds", "Unset it, or correct it") from None


def _manifest(
    material: Material,
    options: BundleOptions,
    golden: GoldenSet,
    name: str,
    created: str,
    files: Mapping[str, FileEntry],
) -> Manifest:
    artifact, steps = material.artifact, material.steps.as_json()
    return Manifest(
        format=FORMAT,
        version=VERSION,
        name=name,
        release=options.release,
        created=created,
        not_after=options.last_moment,
        target=artifact.target,  # type: ignore[arg-type]  # one of BUILTIN's, which are the manifest's
        artifact=ArtifactPart(
            kind="recipe" if BUILTIN[artifact.target].built_on_board else "files",
            files=tuple(item.name for item in artifact.files),
            session=Session(
                artifact.entry,
                dict(artifact.settings),
                material.measurement.variant.threads,
                dict(material.reference.states),
            ),
        ),
        inputs=tuple(map(_tensor, artifact.inputs)),
        outputs=tuple(map(_tensor, artifact.outputs)),
        pipeline=Pipeline(tuple(steps["input"]), tuple(steps["output"])),
        compatibility=_compatibility(material),
        golden=golden.golden,
        files=files,
    )


def _tensor(spec: TensorSpec) -> Tensor:
    return Tensor(spec.name, spec.dtype, spec.shape)


def _compatibility(material: Material) -> Compatibility:
    """What was measured with, and later releases up to the next of another major number: golden vectors decide there."""
    board, target = material.measurement.board, material.artifact.target
    version = material.measurement.candidate.runtime_version or board.runtimes.get(target, "")
    major = version.partition(".")[0]
    gpu = next((name for name in board.accelerators if name.startswith("GPU")), None) if target == "tensorrt" else None
    return Compatibility(
        runtime=RuntimeRange(
            package=BUILTIN[target].packages[0],
            at_least=version,
            below=str(int(major) + 1) if major.isdigit() else None,
            measured_with=version,
        ),
        machine=board.arch,
        cpu_flags=() if gpu else tuple(sorted(board.isa)),
        gpu=gpu,
        driver=None,
    )


def _listed(part: Path) -> dict[str, FileEntry]:
    paths = sorted(path for path in part.rglob("*") if path.is_file())
    return {path.relative_to(part).as_posix(): FileEntry(sha256_file(path), path.stat().st_size) for path in paths}


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def _write(part: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        path = part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _sign(part: Path, key: Path, name: str) -> str:
    from edgedeploy.study.bundle.sign import sign  # needs `cryptography`, which an unsigned bundle does not

    return sign(part, key, name)
