"""``edgedeploy export``: one measured variant of a study as a folder that stands by itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import DataError, GoalNotMet
from edgedeploy.evidence.quantities import heading, quantity
from edgedeploy.evidence.reasons import nothing_text
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.study.artifacts import artifact_manifest
from edgedeploy.study.front import read_front, read_measurement, reason_of_pick
from edgedeploy.study.oneshot.desk import require_absent
from edgedeploy.study.oneshot.folder import artifact_of, write_folder
from edgedeploy.study.oneshot.repository import VERSION, Served, write_repository
from edgedeploy.study.store import Store

NO_BUNDLE: Final = (
    "This is the artifact with its evidence, not a bundle for an integrator (`edgedeploy bundle`): nothing is signed, and "
    "it does not prove itself on the device."
)


@dataclass(frozen=True)
class Exported:
    """``file`` is what a runtime opens; ``picked`` whether it is the study's pick, with its ``reason``. ``notes`` are of a
    server's repository."""

    folder: Path
    file: Path
    measurement: Measurement
    picked: bool
    reason: str
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "file": str(self.file),
            "variant": self.measurement.digest,
            "label": self.measurement.variant.label,
            "artifact": self.measurement.artifact.digest,
            "picked": self.picked,
            "reason": self.reason,
            **({"notes": list(self.notes)} if self.notes else {}),
        }


def export(folder: str | Path, out: str | Path, variant: str | None = None, repository: str | None = None) -> Exported:
    """Copy the artifact of a study's pick, or of the ``variant`` whose digest begins so, into the new folder ``out``: by
    itself, or as the ``repository`` of a model server (:mod:`edgedeploy.study.oneshot.repository`).

    Raises ``SpecError`` for a folder without a study, an unknown variant and an ``out`` that exists; ``GoalNotMet`` when
    there is no pick; ``DataError`` when the artifact is not in the study's folder any more.
    """
    folder, out = Path(folder), Path(out)
    require_absent(out)
    front = read_front(folder)
    if variant is None and front.pick is None:
        why = " ".join(front.explanation()).rstrip(".") or nothing_text(front.decision, front.labels)
        remedy = "Name a variant with --variant; `edgedeploy front --json` has the digests"
        raise GoalNotMet(f"the pick of {folder}", f"the study has none: {why}", remedy)
    chosen = variant if variant is not None else front.pick.digest if front.pick else ""
    found = read_measurement(folder, chosen)
    place = stored_artifact(Store(folder), found)
    artifact, reference = artifact_of(place)
    picked = front.pick is not None and front.pick.digest == found.digest
    reason = reason_of_pick(front) if picked else ""
    if repository is not None:
        name = _server_name(out)
        notes = write_repository(repository, Served.of(name, found, place), out)
        file = out / name / str(VERSION) / artifact.entry
        return Exported(out, file, found, picked, reason, tuple(notes))
    write_folder(
        out,
        artifact,
        place,
        reference,
        facts=_facts(found, front.metrics, folder, reason),
        measurement=found,
        threads=found.variant.threads,
    )
    return Exported(out, out / artifact.entry, found, picked, reason)


def _server_name(out: Path) -> str:
    """A model's name from the folder's: what servers take in an address."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", out.name).strip("-.") or "model"


def stored_artifact(store: Store, found: Measurement) -> Path:
    """The folder where the study keeps what was measured. Raises ``DataError`` when it is not there any more."""
    place = (store.root / found.file).parent
    manifest = artifact_manifest(place) if place.is_dir() else None
    if manifest is not None and Artifact.from_json(manifest).digest == found.artifact.digest:
        return place
    remedy = (
        "Run `edgedeploy search STUDY.toml --out DIR --resume` with more trials, which builds it anew, or measure again"
    )
    raise DataError(f"artifact of {found.variant.label}", f"it is not in {store.root / 'artifacts'} any more", remedy)


def _facts(found: Measurement, metrics: Mapping[str, MetricInfo], folder: Path, reason: str) -> dict[str, str]:
    table: dict[str, MetricInfo] = {**BOARD_METRICS, **metrics}
    shown = {
        f"{heading(name)} (`{name}`)": quantity(value, name, table[name].unit if name in table else "1")
        for name, value in sorted(found.metrics.items())
    }
    facts = {
        "variant": f"{found.variant.label} (`{found.digest}`)",
        "why": reason,
        "from": f"study folder {folder.name}",
        "measured on": f"{_board_text(found.board)}, {found.provenance}, {found.created_utc}",
        "threads": str(found.variant.threads),
        "int8 weights": found.weight_bits.text if found.weight_bits else "",
        **shown,
        "bundle": NO_BUNDLE,
    }
    return {name: text for name, text in facts.items() if text}


def _board_text(board: BoardInfo) -> str:
    return f"{board.name} ({board.cpu}, {board.cores} cores)"
