"""The record of a model's ONNX reference, ``reference.json`` in the model's folder, and the files it vouches for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from edgedeploy.compress.oversight import TrainReport
from edgedeploy.files import parsed, write_json
from edgedeploy.reference.export import Reference
from edgedeploy.reference.program import PROGRAM_FILE
from edgedeploy.study.reading import FAULTS, fault
from edgedeploy.study.whole import NOT_AS_MADE, damaged, sums_of

WEIGHTS: Final = "weights.pt"
TRAINING: Final = "training.json"
RECORD: Final = "reference.json"
_SUMS: Final = "sha256_of"
"""Where the record has the hashes of the files beside it; records of before have none."""


def write_reference(reference: Reference, folder: Path, **more: Any) -> None:
    """Keep the record of a reference that was just made in ``folder``, with the hashes of the files beside it."""
    sums = sums_of(folder, (WEIGHTS, PROGRAM_FILE))
    write_json(folder / RECORD, {**reference.as_json(), **more, **({_SUMS: sums} if sums else {})})


def kept_reference(folder: Path, also: Sequence[str], note: Callable[[str], None]) -> Reference | None:
    """The reference in ``folder``; None when there is none, or when its record is damaged or lacks a key of ``also``, or a
    file is not what was made: ``note`` hears of that."""
    path = folder / RECORD
    if not path.exists():
        return None
    try:
        data = parsed(path.read_bytes())
        kept = Reference.from_json(data, folder)
        if kept.path.parent != folder or not kept.path.is_file():
            raise ValueError(f"no file {str(data['file'])[:80]!r} lies beside it")
        for name in also:
            data[name]
        harmed = damaged(folder, {kept.path.name: kept.sha256, **data.get(_SUMS, {})})
    except (OSError, *FAULTS) as exc:
        note(f"model {folder.name} is not used and made anew: in {path.name}, {fault(exc)}")
        return None
    if harmed:
        note(f"model {folder.name} is not used and made anew: of {harmed[0]}, {NOT_AS_MADE}")
        return None
    return kept


def is_whole_beside(folder: Path, name: str) -> bool:
    """Whether the record in ``folder`` vouches for that file, and it is what was made."""
    try:
        sums = parsed((folder / RECORD).read_bytes())[_SUMS]
        return name in sums and not damaged(folder, {name: sums[name]})
    except (OSError, *FAULTS):
        return False


def write_reports(reports: Sequence[TrainReport], folder: Path) -> None:
    """Record how the model in ``folder`` was trained, if it was."""
    for report in reports:
        write_json(folder / TRAINING, report.as_json())
