"""What a job's folder holds.

``job.json`` (the job), ``status.json`` (the truth about it), ``log`` (what the processes said), ``candidate/`` and
``baseline/`` (the artifact's files with ``inputs/0.npy`` ... and ``inputs/frames``, coded images),
``outputs.npz`` and ``result.json`` (what came out).
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.files import Root
from edgedeploy.runtime.wire.job import JobSpec

FINAL_STATES = ("done", "failed")

FRAMES = "frames"
"""In the folder of inputs, whose other files have endings: no artifact's file lies there."""

IMPORTING, LOADING = "importing", "loading"
"""What a worker says before it imports a package, and before it touches its artifact."""


def materialise(root: Root, job: JobSpec, folder: Path) -> None:
    """Lay out the job's files. Blobs were checked when they were committed and again before the job was started."""
    for name, side in job.sides.items():
        place = folder / name
        place.mkdir()
        for file_name, sha256 in side.files.items():
            _link(root.blob(sha256), place / file_name)
        _unpack_inputs(root.blob(side.inputs), place / "inputs")
        if side.frames:
            _link(root.blob(side.frames), place / "inputs" / FRAMES)


def _link(source: Path, destination: Path) -> None:
    try:
        os.link(source, destination)
    except FileNotFoundError as exc:
        raise RuntimeFault("corrupt_blob", f"blob {source.name} is not here") from exc
    except OSError:  # FAT and some overlay file systems have no links
        shutil.copyfile(source, destination)


def _unpack_inputs(archive: Path, folder: Path) -> None:
    """The arrays of an ``.npz`` as ``0.npy``, ``1.npy`` ... with their names in ``names.txt``.

    Single ``.npy`` files can be mapped, so that a process which needs a handful of cases reads no more. The names in the
    archive (model inputs) are never used as paths.
    """
    folder.mkdir()
    names = []
    try:
        with zipfile.ZipFile(archive) as data:
            for index, member in enumerate(data.namelist()):
                with data.open(member) as source, (folder / f"{index}.npy").open("wb") as destination:
                    shutil.copyfileobj(source, destination, 1 << 20)
                names.append(member[: -len(".npy")] if member.endswith(".npy") else member)
    except (zipfile.BadZipFile, FileNotFoundError) as exc:
        raise RuntimeFault("corrupt_blob", f"inputs {archive.name}: {exc}") from exc
    (folder / "names.txt").write_text("\n".join(names), encoding="utf-8")
