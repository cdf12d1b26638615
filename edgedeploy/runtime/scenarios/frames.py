"""Coded images as a product would get them: the stages ``decode`` and ``resize`` of a frame then decode those very bytes by
this machine's imagecodecs, and run the task's own steps for the input.

They come as an ``.npz``: ``about`` is JSON (codec, steps, form of each frame), ``code0`` ... the bytes, and ``image0`` ...
what the host's decoder makes of them, where something is coded. A board whose decoder makes something else of a frame is
told before anything is timed, because accuracy was scored on what the host's decoder made. Types are evaluated here, by
Python 3.8 too: see :mod:`edgedeploy.runtime.wire.serde`.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from edgedeploy.runtime.faults import BundleError, RuntimeFault
from edgedeploy.runtime.pipeline.codecs import Codec, CodecError, CodecMissing, codec_of, decode
from edgedeploy.runtime.pipeline.coded_check import may_differ
from edgedeploy.runtime.pipeline.numpy_later import np
from edgedeploy.runtime.pipeline.run import FrameError, prepare
from edgedeploy.runtime.pipeline.steps import Steps, read_steps
from edgedeploy.runtime.wire.serde import from_json, to_json

MOST_FRAMES = 64
MOST_FILE_BYTES = 1 << 30

_TYPES = ("uint8", "uint16", "float32")


@dataclass(frozen=True)
class Stored:
    """How a frame is coded: its image has ``bits`` of each pixel; ``dtype`` is the frame's own, which is float32 (black 0 to
    white 255) where a file with more than 8 bits was read so."""

    shape: Tuple[int, ...]
    bits: int
    dtype: str

    def frame(self, image: Any) -> Any:
        """The frame that a decoded image stands for."""
        if self.dtype != "float32":
            return image
        return image.astype(np.float32) * np.float32(255.0 / ((1 << self.bits) - 1))


def stored(frame: Any) -> Tuple[Any, Stored]:
    """The image of a frame, and how it is stored. Raises :class:`CodecError` for a frame that is none of 8 to 16 bits."""
    if frame.dtype == np.uint8:
        return frame, Stored(frame.shape, 8, "uint8")
    if frame.dtype == np.uint16:
        return frame, Stored(frame.shape, 12 if int(frame.max()) < 1 << 12 else 16, "uint16")
    if frame.dtype == np.float32:
        for bits in (8, 12, 16):
            levels = frame.astype(np.float64) * (((1 << bits) - 1) / 255.0)
            image = np.round(levels)
            if float(np.abs(levels - image).max()) < 1e-2 and image.min() >= 0 and image.max() < 1 << bits:
                return image.astype(np.uint8 if bits == 8 else np.uint16), Stored(frame.shape, bits, "float32")
    raise CodecError(f"a frame of {frame.dtype} is no image of 8, 12 or 16 bits as its source gives it")


class CodedFrames:
    """The frames of a file. Raises :class:`RuntimeFault`: ``bad_job`` for a file that is none, ``codec_missing`` and
    ``codec_differs``."""

    def __init__(self, path: Path) -> None:
        try:
            if path.stat().st_size > MOST_FILE_BYTES:
                raise ValueError(f"more than {MOST_FILE_BYTES} bytes")
            with np.load(path, allow_pickle=False) as data:
                about = json.loads(data["about"].tobytes())
                self.codec = codec_of(about["codec"]) if about["codec"] else None
                self.forms: List[Stored] = [from_json(Stored, form) for form in about["frames"]]
                if not 1 <= len(self.forms) <= MOST_FRAMES or any(form.dtype not in _TYPES for form in self.forms):
                    raise ValueError(f"{len(self.forms)} frames, 1 to {MOST_FRAMES} of {', '.join(_TYPES)} are read")
                self.steps: Steps = read_steps(about["steps"], [])
                numbers = range(len(self.forms))
                self._codes = [data[f"code{number}"].tobytes() for number in numbers]
                wanted = [data[f"image{number}"] for number in numbers] if self.codec else []
        except (OSError, EOFError, ValueError, KeyError, TypeError, BundleError, zipfile.BadZipFile) as exc:
            raise RuntimeFault("bad_job", f"coded frames: {type(exc).__name__}: {exc}") from exc
        self.largest_difference = self._differs(wanted)

    def __len__(self) -> int:
        return len(self.forms)

    def decoded(self, number: int) -> Any:
        """The frame, of its bytes. Raises :class:`RuntimeFault`."""
        form, code = self.forms[number], self._codes[number]
        try:
            if self.codec is not None:
                return form.frame(decode(self.codec, code, form.shape, form.bits))
            return form.frame(np.frombuffer(code, np.uint8 if form.bits == 8 else np.uint16).reshape(form.shape))
        except CodecMissing as exc:
            raise RuntimeFault("codec_missing", str(exc)) from exc
        except (CodecError, ValueError) as exc:
            raise RuntimeFault("codec_differs", f"frame {number}: {exc}") from exc

    def feeds(self, frame: Any) -> Dict[str, Any]:
        """The model's input, by the task's own steps."""
        try:
            return prepare(self.steps, frame)[0]
        except FrameError as exc:
            raise RuntimeFault("unfit_stages", str(exc)) from exc

    def told(self) -> Dict[str, Any]:
        """What the scenario's series say of them."""
        return {
            "codec": self.codec.name if self.codec else "",
            "frames": len(self),
            "bytes": [len(code) for code in self._codes],
            "largest_difference": self.largest_difference,
            "decoder": _version() if self.codec else "",
        }

    def _differs(self, wanted: Sequence[Any]) -> int:
        """The largest difference of a pixel from what the host decoded, in units of the image."""
        largest = 0
        for number, (form, image) in enumerate(zip(self.forms, wanted)):
            found = self.decoded(number).astype(np.float64)
            error = int(np.abs(found - form.frame(image).astype(np.float64)).max() + 0.5)
            top = 255 if form.dtype == "float32" else (1 << form.bits) - 1
            lossless = self.codec is not None and self.codec.near is not None
            if error > (0 if lossless else may_differ(image) * top):
                text = f"this board's decoder ({_version()}) gives frame {number} another pixel by {error} of {top}"
                raise RuntimeFault("codec_differs", f"{text} than the host's, on whose image accuracy is scored")
            largest = max(largest, error)
        return largest


def _version() -> str:
    from importlib import metadata

    return f"imagecodecs {metadata.version('imagecodecs')}"


def write_frames(path: Path, codec: Optional[Codec], steps: Steps, frames: Sequence[Tuple[bytes, Stored, Any]]) -> None:
    """The file that :class:`CodedFrames` reads, of (bytes, form, decoded image) each. Raises ``ValueError`` for too many."""
    if not 1 <= len(frames) <= MOST_FRAMES:
        raise ValueError(f"{len(frames)} frames, 1 to {MOST_FRAMES} are sent")
    about: Mapping[str, Any] = {
        "codec": codec.name if codec else "",
        "steps": steps.as_json()["input"],
        "frames": [to_json(form) for _, form, _ in frames],
    }
    arrays = {"about": np.frombuffer(json.dumps(about).encode(), np.uint8)}
    for number, (code, _, image) in enumerate(frames):
        arrays[f"code{number}"] = np.frombuffer(code, np.uint8)
        if codec is not None:
            arrays[f"image{number}"] = image
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
