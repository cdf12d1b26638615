"""DICOM in a product: a segmentation of a real clip before an outside validator, and damaged files before the reader."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Final

from benchmarks.evidence_kit.asked import Asked
from benchmarks.shared.rows import Row

DAMAGED: Final = 5000
HEADER_BYTES: Final = 6000
"""Of the file: what is damaged is mostly its header."""

CLIP: Final = "ybr_color"
SMALL: Final = "ct"


def segmentation(asked: Asked) -> Row:
    """A SEG of pydicom's ultrasound clip of 30 frames, two segments, read back and held against `dciodvfy`."""
    import numpy as np
    import pydicom

    from edgedeploy.runtime.dicom import Segment, open_clip, write_segmentation

    clip = open_clip(pydicom.examples.get_path(CLIP))
    rng = np.random.default_rng(asked.seed)
    masks = rng.integers(0, 3, (len(clip), clip.rows, clip.columns)).astype(np.uint8)
    with tempfile.TemporaryDirectory(prefix="edgedeploy-seg-") as place:
        path = write_segmentation(Path(place) / "seg.dcm", clip, masks, [Segment("one"), Segment("two")], "net", "1")
        planes = pydicom.dcmread(path).pixel_array.reshape(2, *masks.shape)
        same = all(np.array_equal(plane, masks == number) for number, plane in enumerate(planes, 1))
        what, bar = f"SEG of a clip of {len(clip)} frames", "dciodvfy: 0 errors, masks read back equal"
        validator = shutil.which("dciodvfy")
        if validator is None:
            return Row(what, "no dciodvfy here: apt-get install dicom3tools", bar, False)
        done = subprocess.run([validator, "-new", str(path)], capture_output=True, text=True, check=False)
    errors = sum(line.startswith("Error") for line in (done.stdout + done.stderr).splitlines())
    return Row(what, f"{errors} errors; masks {'equal' if same else 'differ'}", bar, errors == 0 and same)


def damaged_dicom(asked: Asked) -> Row:
    """Bytes of a DICOM file changed, cut, doubled: each is read, or refused by a `DicomError` that quotes nothing."""
    import pydicom

    from edgedeploy.runtime.dicom import DicomError, open_clip

    rng = random.Random(asked.seed)
    whole = Path(pydicom.examples.get_path(SMALL)).read_bytes()
    patient = str(pydicom.dcmread(pydicom.examples.get_path(SMALL)).PatientName)
    read = refused = 0
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="edgedeploy-dicom-") as place, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = Path(place) / "damaged.dcm"
        for number in range(DAMAGED):
            path.write_bytes(_damaged(whole, rng))
            try:
                open_clip(path)[0]
                read += 1
            except DicomError as exc:
                refused += 1
                wrong += [f"case {number} quotes the patient"] if patient in str(exc) else []
            except Exception as exc:  # what must not happen
                wrong.append(f"case {number}: {type(exc).__name__}")
    what = f"{DAMAGED} damaged DICOM files"
    found = f"{refused} refused, {read} read, {len(wrong)} otherwise{': ' + wrong[0] if wrong else ''}"
    return Row(what, found, "each read or refused by its type", not wrong)


def _damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(132, min(HEADER_BYTES, len(changed)))
        kind = rng.randrange(4)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at : at + 4] = rng.randbytes(4)
        elif kind == 2:
            changed[at : at + 4] = b"\xff\xff\xff\xff"
        else:
            del changed[at : at + rng.choice((1, 2, 8, 400))]
    return bytes(changed[: rng.randrange(132, len(changed))] if rng.randrange(8) == 0 else changed)


ROWS = (segmentation, damaged_dicom)
