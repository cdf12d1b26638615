"""The folder that ``quantize`` and ``export`` leave: an artifact that stands by itself.

    model.xml ...               the artifact's files               edgedeploy-artifact.json   its manifest
    reference/reference.onnx    the float model it was built from  README.md                  how to load it
    measurement.json            what a board said of it, if any    SHA256SUMS                 hashes of all of these

No case of the user's data is in it. The folder appears whole or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgedeploy.errors import SpecError
from edgedeploy.files import new_folder, place_told, write_atomic, write_json
from edgedeploy.records.artifact import MANIFEST, Artifact
from edgedeploy.records.measurement import Measurement
from edgedeploy.reference import external
from edgedeploy.runtime.files import sha256_file
from edgedeploy.study.artifacts import artifact_manifest
from edgedeploy.study.oneshot.desk import require_absent
from edgedeploy.study.oneshot.readme import readme
from edgedeploy.study.reading import read_record

REFERENCE: Final = "reference/reference.onnx"
MEASUREMENT: Final = "measurement.json"
SUMS: Final = "SHA256SUMS"
NAMES: Final = (MANIFEST, "README.md", MEASUREMENT, SUMS, "reference")


def write_folder(
    out: Path,
    artifact: Artifact,
    built: Path,
    reference: Path,
    *,
    facts: Mapping[str, str],
    measurement: Measurement | None = None,
    threads: int = 1,
) -> None:
    """Write ``out`` from the folder ``built`` of an artifact and its ONNX ``reference``. ``facts`` are lines of the README,
    by what they are about.

    Raises ``SpecError`` where something lies at ``out``, or a file of the artifact has a name of this folder's own.
    """
    require_absent(out)
    taken = [file.name for file in artifact.files if file.name in NAMES]
    if taken:
        raise SpecError(f"--out {out}", f"a file of the artifact is named {taken[0]}", "Copy the artifact by hand")
    with place_told(out), new_folder(out) as part:
        for file in artifact.files:
            shutil.copyfile(built / file.name, part / file.name)
        write_json(part / MANIFEST, artifact.as_json())
        (part / REFERENCE).parent.mkdir()
        external.copy(reference, part / REFERENCE)
        if reference.with_suffix(".json").is_file():
            shutil.copyfile(reference.with_suffix(".json"), (part / REFERENCE).with_suffix(".json"))
        if measurement is not None:
            write_json(part / MEASUREMENT, measurement.as_json())
        write_atomic(part / "README.md", readme(artifact, facts, threads).encode())
        write_atomic(part / SUMS, _sums(part).encode())


def artifact_of(folder: Path) -> tuple[Artifact, Path]:
    """The artifact in a folder that :func:`write_folder` wrote, or in a study's ``artifacts``, and the reference it was
    built from. Raises ``SpecError`` and ``DataError``."""
    manifest = artifact_manifest(folder)
    if manifest is None:
        remedy = "Name an .onnx file, or a folder made by `edgedeploy quantize` or `edgedeploy export`"
        raise SpecError(f"artifact {folder}", f"no manifest {MANIFEST} in it", remedy)
    artifact = Artifact.from_json(manifest)
    for file in artifact.files:
        path = folder / file.name
        if not path.is_file() or sha256_file(path) != file.sha256:
            found = f"{file.name} is not the file that was built" if path.is_file() else f"{file.name} is missing"
            raise SpecError(f"artifact {folder}", found, "Export it again")
    models = folder.resolve().parent.parent / "models"
    for path in (folder / REFERENCE, *sorted(models.glob("*/reference.onnx"))):
        if path.is_file() and sha256_file(path) == artifact.reference_sha256:
            return artifact, path
    found = f"the float model that it was built from is not at {REFERENCE}"
    raise SpecError(f"artifact {folder}", found, "Export it again: it is what the artifact is compared with")


def is_quantized(reference: Path) -> bool:
    """Whether a model that was trained to be int8 is the reference: it is no float model then."""
    path = reference.with_suffix(".json")
    return path.is_file() and read_record(path, lambda data: bool(data.get("quantized", False)), "Export it again")


def _sums(folder: Path) -> str:
    """As ``sha256sum`` writes and ``sha256sum -c`` reads them."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return "".join(f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths)
