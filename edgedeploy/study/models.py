"""The record of a model's ONNX reference, ``reference.json`` in the model's folder, and the files it vouches for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from edgedeploy.compress.oversight import TrainReport
from edgedeploy.files import parsed, write_json
from edgedeploy.records.variant import Variant
from edgedeploy.reference.export import Reference
from edgedeploy.reference.external import weights_file
from edgedeploy.reference.program import PROGRAM_FILE
from edgedeploy.study.reading import FAULTS, fault
from edgedeploy.study.whole import NOT_AS_MADE, damaged, sums_of

WEIGHTS: Final = "weights.pt"
PACKED: Final = "weights.edpack"
"""What is shipped of a model, for variants with `storage`."""

DECODING: Final = "decoding.json"
"""How long decoding that took."""

TRAINING: Final = "training.json"
NETWORK: Final = "network.json"
RECORD: Final = "reference.json"
_SUMS: Final = "sha256_of"
"""Where the record has the hashes of the files beside it; records of before have none."""


def packed_bytes(folder: Path) -> int:
    """The size of what is shipped of the model in ``folder``; 0 where its weights are shipped as they are."""
    path = folder / PACKED
    return path.stat().st_size if path.is_file() else 0


def write_decoding(times_ns: Sequence[int], folder: Path) -> None:
    """Record the CPU times of decoding what is shipped of the model in ``folder``, on this host."""
    write_json(folder / DECODING, {"decode_ns": list(times_ns)})


def decoding_of(folder: Path) -> tuple[int, ...]:
    """Those times; none where nothing is packed, or they were not kept."""
    try:
        told = parsed((folder / DECODING).read_bytes())["decode_ns"]
        return tuple(one for one in told if type(one) is int and one > 0)
    except (OSError, *FAULTS):
        return ()


def write_reference(reference: Reference, folder: Path, **more: Any) -> None:
    """Keep the record of a reference that was just made in ``folder``, with the hashes of the files beside it."""
    sums = sums_of(folder, (WEIGHTS, PACKED, PROGRAM_FILE, weights_file(reference.path).name))
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


def write_network(variant: Variant, start: Mapping[str, Any] | None, folder: Path) -> None:
    """Record which network the trained weights in ``folder`` are of, and what its training started from, if not from the
    baseline."""
    write_json(folder / NETWORK, {"variant": variant.as_json(), **({"start": dict(start)} if start else {})})


def kept_network(folder: Path) -> Variant | None:
    """The variant whose trained weights lie in ``folder``, whole; None where none do."""
    try:
        data = parsed((folder / NETWORK).read_bytes())
        found = Variant.from_json(data["variant"])
    except (OSError, *FAULTS):
        return None
    return found if found.model_digest == folder.name and is_whole_beside(folder, WEIGHTS) else None


def write_reports(reports: Sequence[TrainReport], folder: Path) -> None:
    """Record how the model in ``folder`` was trained, if it was."""
    for report in reports:
        write_json(folder / TRAINING, report.as_json())
