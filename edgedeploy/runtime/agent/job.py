"""What a job's folder holds, and the job itself as the host wrote it.

``job.json`` (the job), ``status.json`` (the truth about it), ``log`` (what the processes said), ``candidate/`` and
``baseline/`` (the artifact's files with ``inputs/0.npy`` ...), ``outputs.npz`` and ``result.json`` (what came out).
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.files import Root

SIDES = ("candidate", "baseline")
FINAL_STATES = ("done", "failed")


@dataclass(frozen=True)
class Side:
    """One artifact of a job. ``files`` maps its file names to hashes, ``inputs`` is the hash of the ``.npz`` of cases."""

    target: str
    entry: str
    settings: Mapping[str, str]
    threads: int
    files: Mapping[str, str]
    inputs: str


@dataclass(frozen=True)
class ProtocolSpec:
    """A measuring protocol with its settings, as ``protocols.py`` or ``resources.py`` reads them. A run of it that takes
    longer than ``limit_s`` is stuck: a failure, never a slow number."""

    name: str
    limit_s: float
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class JobSpec:
    """A job. ``token`` is the lease's; ``time_limit_s`` bounds the run, ``busy_wait_s`` the wait for other boards that
    are measured on the same machine, ``orphan_grace_s`` how long the run goes on without the holder of its lease.
    ``protocols`` are run in their order after the interleaved blocks and the outputs, resource curves before them.
    ``cool_to_c`` is how cool the board has to be before it starts, for which it waits at most ``cool_down_s``.
    ``power_mode`` is set for the run (``powermode.py``). ``profile_runs`` inferences of each side are profiled layer by
    layer when all else is done."""

    job_id: str
    token: int
    queries: int
    warmup: int
    block: int
    cold_starts: int
    collect_outputs: bool
    time_limit_s: float
    busy_wait_s: float
    orphan_grace_s: float
    sides: Mapping[str, Side]
    protocols: Sequence[ProtocolSpec] = ()
    cool_to_c: float | None = None
    cool_down_s: float = 0.0
    power_mode: Mapping[str, str] = field(default_factory=dict)
    profile_runs: int = 0

    @property
    def timed(self) -> bool:
        """Whether the job's numbers depend on who else uses the machine."""
        return bool(self.queries or self.cold_starts or self.protocols)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> JobSpec:
        """Raises :class:`RuntimeFault` ``bad_job`` for a job that this agent does not understand."""
        try:
            sides = {name: Side(**data["sides"][name]) for name in SIDES if data["sides"].get(name)}
            protocols = tuple(ProtocolSpec(**item) for item in data.get("protocols", ()))
            spec = cls(**{**data, "sides": sides, "protocols": protocols})
        except (KeyError, TypeError, AttributeError) as exc:
            raise RuntimeFault("bad_job", f"{type(exc).__name__}: {exc}") from exc
        names = [name for side in sides.values() for name in (*side.files, side.entry)]
        if "candidate" not in sides or any("/" in name or name in ("", ".", "..") for name in names):
            raise RuntimeFault("bad_job", "no candidate, or a file name with a folder in it")
        return spec


def materialise(root: Root, job: JobSpec, folder: Path) -> None:
    """Lay out the job's files. Blobs were checked when they were committed and again before the job was started."""
    for name, side in job.sides.items():
        place = folder / name
        place.mkdir()
        for file_name, sha256 in side.files.items():
            _link(root.blob(sha256), place / file_name)
        _unpack_inputs(root.blob(side.inputs), place / "inputs")


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
