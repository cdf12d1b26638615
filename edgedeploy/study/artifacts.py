"""Manifests of stored artifacts: what ``Artifact.as_json`` gave, in the artifact's folder.

A manifest is believed only where it is whole and the files are those it lists. Any other is as good as none: the artifact
is built anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgedeploy.files import PARTIAL_PREFIX, parsed, write_json
from edgedeploy.records.artifact import CALIBRATED_RANGES, MANIFEST, Artifact
from edgedeploy.study.reading import FAULTS, fault, read_record
from edgedeploy.study.whole import sha256_now

REMEDY = "Move the folder away and run search --resume: the artifact is built anew"


def artifact_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the artifact in ``folder``; None when there is none. Writes nothing, and does not ask whether the
    files are still those that were built. Raises ``DataError`` for a manifest that is damaged."""
    if (folder / MANIFEST).exists():
        return read_record(folder / MANIFEST, _formed, REMEDY)
    older = _older_manifest(folder)
    return parsed(older.read_bytes()) if older is not None and not _flaw(older, folder) else None


def kept_artifact(folder: Path, target: str, precision: str, reference_sha256: str) -> tuple[Artifact | None, str]:
    """The artifact in ``folder`` if it is whole and the one asked for; else None, and why a manifest is not believed
    (empty where there is none)."""
    path = folder / MANIFEST
    if not path.exists():
        older = _older_manifest(folder)
        return None, f"{older.name} beside it: {_flaw(older, folder)}" if older is not None else ""
    flaw = _flaw(path, folder)
    if flaw:
        return None, flaw
    artifact = Artifact.from_json(parsed(path.read_bytes()))
    asked = {"target": target, "precision": precision, "reference_sha256": reference_sha256}
    other = [
        f"{name} {getattr(artifact, name)!r}, not {value!r}"
        for name, value in asked.items()
        if getattr(artifact, name) != value
    ]
    return (None, f"it was built for another variant: {', '.join(other)}") if other else (artifact, "")


def adopt_manifest(folder: Path) -> None:
    """Move a manifest that an older version wrote beside ``folder`` into it, if it is that of the files there."""
    older = _older_manifest(folder)
    if older is not None and not _flaw(older, folder):
        if not (folder / MANIFEST).exists():
            write_json(folder / MANIFEST, parsed(older.read_bytes()))
        older.unlink()


def range_notes(artifact: Artifact) -> tuple[str, ...]:
    """How many ranges of a model that was trained to be int8 are none that it has learned, as a note."""
    count = str(dict(artifact.settings).get(CALIBRATED_RANGES, "0"))
    if not count.isdigit() or int(count) == 0:
        return ()
    what = "1 range is" if int(count) == 1 else f"{int(count)} ranges are"
    return (f"{what} calibrated: outputs of layers that training leaves in float, where the target's int8 has none",)


def forget_artifact(folder: Path) -> None:
    """Remove the manifest, so that the artifact is built again when it is needed."""
    adopt_manifest(folder)
    (folder / MANIFEST).unlink(missing_ok=True)


def _older_manifest(folder: Path) -> Path | None:
    """The manifest beside ``folder``, where older versions wrote it.

    They cut the folder's name at its last dot, so artifacts of targets with a dot in their names shared one manifest,
    that of the last build.
    """
    path = folder.with_suffix(".json")
    return path if folder.is_dir() and path.is_file() else None


def _flaw(path: Path, folder: Path) -> str:
    """Why the manifest at ``path`` is not that of the files in ``folder``; empty when it is."""
    try:
        artifact = Artifact.from_json(_formed(parsed(path.read_bytes())))
        for file in artifact.files:
            stat = (folder / file.name).stat()
            if stat.st_size != file.size_bytes:
                return f"{file.name} has {stat.st_size} bytes, not {file.size_bytes}"
            if sha256_now(folder / file.name) != file.sha256:
                return f"{file.name} is not the file that was built"
    except (OSError, *FAULTS) as exc:
        return f"{Path(exc.filename).name}: {fault(exc)}" if isinstance(exc, OSError) and exc.filename else fault(exc)
    return ""


def _formed(data: dict[str, Any]) -> dict[str, Any]:
    """The data of a manifest. Raises one of ``FAULTS`` when it cannot be one."""
    artifact = Artifact.from_json(data)
    names = [file.name for file in artifact.files]
    odd = [name for name in names if not _is_plain(name)]
    if odd:
        raise ValueError(f"{odd[0][:80]!r} is no name of a file in the artifact's folder")
    if artifact.entry not in names or len({*names}) != len(names):
        raise ValueError(f"its entry {artifact.entry[:80]!r} is not one of its files")
    if data.get("digest", artifact.digest) != artifact.digest:
        raise ValueError("its digest is not that of its content")
    return data


def _is_plain(name: str) -> bool:
    """Whether a file of an artifact may have the name: no folder in it, and none that another file there has."""
    if name in ("", ".", "..", MANIFEST) or name.startswith(PARTIAL_PREFIX):
        return False
    return not any(char in name for char in "/\\\0")
