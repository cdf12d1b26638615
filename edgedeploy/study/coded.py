"""Inputs of images that a codec has been in front of: each image is coded, checked, decoded, and then becomes the model's
input by the task's own steps. A board gets some of the coded images, to decode them inside the deadline."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import SpecError, TargetUnavailable, Unsupported
from edgedeploy.files import read_json, remove, write_json
from edgedeploy.interfaces.task import Array, Case, Piped, Task
from edgedeploy.interfaces.their_code import their_code
from edgedeploy.records.variant import Scalar, digest_of
from edgedeploy.runtime.pipeline.codecs import Codec, CodecError, CodecMissing, codec_of
from edgedeploy.runtime.pipeline.coded_check import checked
from edgedeploy.runtime.pipeline.run import prepare
from edgedeploy.runtime.pipeline.steps import Steps
from edgedeploy.runtime.scenarios.frames import Stored, stored, write_frames
from edgedeploy.study.cases import inputs_of
from edgedeploy.study.whole import flaw_of, keep_note, kept_rows, note_of

FRAMES_SENT: Final = 16
"""Images that a board decodes in turn: enough that caches hold none of them for long, and few megabytes."""

INSTALL: Final = "pip install 'edgedeploy[codecs]'"


@dataclass(frozen=True)
class CodedImages:
    """``frames`` is the file for a board, ``sizes`` the bytes of each case's image, ``pixels`` those of its pixels.
    ``inputs`` is None where nothing is coded: they are those of every other variant."""

    inputs: Path | None
    frames: Path
    sizes: Mapping[str, int]
    pixels: Mapping[str, int]
    least_psnr_db: float
    seconds: tuple[str, ...]

    def text(self, codec: str) -> str:
        """For people: what was coded, how small, and who checked it."""
        ratio = sum(self.pixels.values()) / sum(self.sizes.values())
        worst = "nothing is lost" if math.isinf(self.least_psnr_db) else f"PSNR at least {self.least_psnr_db:.1f} dB"
        by = f", and by {' and '.join(self.seconds)}" if self.seconds else ", by no second decoder"
        return (
            f"images: {codec}, {ratio:.2f}:1 of the pixels, {worst}; decoded and held against the image one by one{by}"
        )


def coded_images(
    task: Task,
    steps: Steps,
    arch: Mapping[str, Scalar],
    codec: str,
    golden: Sequence[Case],
    cases: Sequence[Case],
    path: Path,
    note: Callable[[str], None],
) -> CodedImages:
    """Those at ``path`` (inputs) and beside it, made unless they are there and whole. Golden cases are never coded: they
    compare an artifact with its reference.

    Raises ``Unsupported`` for a codec that does not hold an image, or gives back another one; ``SpecError`` for a task whose
    inputs are made of no frames; ``TargetUnavailable`` without imagecodecs.
    """
    if not steps.input or not isinstance(task, Piped):
        found = f"task {task.name!r} declares no steps that make its inputs of images"
        raise SpecError("space.image_codec", found, "Give it a pipeline and frames (Piped), or remove the codecs")
    mark = digest_of([dict(arch), codec, steps.as_json()])[:16]
    frames, about = (path.with_name(f"{path.stem}-{kind}-{mark}.{end}") for kind, end in _KINDS)
    wanted = [frames, about, *([path] if codec else [])]
    if any(flaw_of(file) != "" for file in wanted):
        for file in wanted:
            note_of(file).unlink(missing_ok=True)
            remove(file)
        _Maker(task, steps, codec_of(codec) if codec else None, cases, arch).make(path, frames, about, golden, note)
    kept = read_json(about)
    least_psnr_db = math.inf if kept["least_psnr_db"] is None else float(kept["least_psnr_db"])
    seconds = tuple(map(str, kept["seconds"]))
    return CodedImages(path if codec else None, frames, kept["sizes"], kept["pixels"], least_psnr_db, seconds)


_KINDS: Final = (("frames", "npz"), ("images", "json"))


class _Maker:
    def __init__(self, task: Any, steps: Steps, codec: Codec | None, cases: Sequence[Case], arch: Mapping[str, Scalar]):
        self._task, self._steps, self._codec, self._cases, self._arch = task, steps, codec, cases, arch
        self._sent: list[tuple[bytes, Stored, Any]] = []
        self._sizes: dict[str, int] = {}
        self._pixels: dict[str, int] = {}
        self._psnr_db: list[float] = []
        self._seconds: set[str] = set()

    def make(self, path: Path, frames: Path, about: Path, golden: Sequence[Case], note: Callable[[str], None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._codec is None:
            for _ in self._rows():
                pass
        else:
            plain = (inputs_of(self._task, case, self._arch) for case in golden)
            kept_rows(path, (row for rows in (plain, self._rows()) for row in rows), note)
        write_frames(frames, self._codec, self._steps, self._sent)
        keep_note(frames)
        least = min(self._psnr_db, default=math.inf)
        told = {
            "sizes": self._sizes,
            "pixels": self._pixels,
            "least_psnr_db": None if math.isinf(least) else least,
            "seconds": sorted(self._seconds),
        }
        write_json(about, told)
        keep_note(about)

    def _rows(self) -> Iterator[dict[str, Array]]:
        """The inputs of the cases, of decoded images; remembers what else is asked of them."""
        places = np.linspace(0, len(self._cases) - 1, min(FRAMES_SENT, len(self._cases))).round().astype(int)
        for place, case in enumerate(self._cases):
            with their_code(self._task, f"the frame of case {case.id!r}"):
                frame = self._task.frame(case)
            code, form, image = self._coded(frame, case)
            self._sizes[case.id] = len(code)
            self._pixels[case.id] = image.nbytes
            if place in places:
                self._sent.append((code, form, image))
            yield prepare(self._steps, form.frame(image))[0] if self._codec is not None else {}

    def _coded(self, frame: Any, case: Case) -> tuple[bytes, Stored, Any]:
        asked = f"image_codec = {self._codec.name if self._codec else 'none'} on the image of case {case.id!r}"
        try:
            image, form = stored(frame)
            if self._codec is None:
                return image.tobytes(), form, image
            coded = checked(self._codec, image, form.bits)
        except CodecMissing as exc:
            raise TargetUnavailable(asked, str(exc), INSTALL) from None
        except CodecError as exc:
            raise Unsupported(
                asked, str(exc), "Leave this codec out of [space]; nothing was measured with it"
            ) from None
        self._psnr_db.append(coded.psnr_db)
        self._seconds |= {coded.second} if coded.second else set()
        return coded.data, form, coded.image
