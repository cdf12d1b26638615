"""The stages of a frame around the model: it is decoded, resized to the model's input, and overlaid with the result.

The frames are made from the job's own cases before the clock starts: grey, 8 bits, at the size that an ultrasound probe
would send. A job may bring coded images in their place (``frames.py``). Uses numpy only, and imagecodecs for these.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.scenarios.frames import CodedFrames
from edgedeploy.runtime.scenarios.schedule import Clock
from edgedeploy.runtime.sessions.open import Feeds, Session

STAGES = ("decode", "resize", "inference", "overlay")
"""All stages, in the order in which a frame passes them."""

_OVERLAY_RGB = (255, 80, 0)
_LEVELS = 255.0
_FLAT = 1e-12
"""Smallest value range of a case: one without contrast is divided by this and stays black."""


class Pipeline:
    """Runs frames through the chosen stages and times each: ``times_ns`` maps stage to nanoseconds by result.

    - ``decode`` inflates a frame (zlib: the codec of compressed MetaImage).
    - ``resize`` brings it to the model's input (bilinear, float32, the case's own value range).
    - ``overlay`` draws the class with the highest score at each pixel on the frame.

    Without ``decode`` and ``resize`` the cases are used unchanged. With ``coded`` images, ``decode`` decodes one by its own
    codec, and ``resize`` makes the model's input of it by the task's own steps; both are stages then.
    """

    def __init__(
        self,
        session: Session,
        cycle: Sequence[Feeds],
        stages: Sequence[str],
        frame: tuple[int, int],
        clock: Clock,
        coded: CodedFrames | None = None,
    ) -> None:
        unknown = sorted(set(stages) - set(STAGES))
        if unknown:
            raise RuntimeFault("bad_job", f"no stage {unknown[0]!r}; known: {', '.join(STAGES)}")
        if coded is not None and not {"decode", "resize"} <= set(stages):
            raise RuntimeFault("bad_job", "coded images need the stages decode and resize")
        self._session = session
        self._coded = coded
        self._stages = [name for name in STAGES if name in stages or name == "inference"]
        self._clock = clock
        self._cycle = cycle
        self._frame = frame
        made = coded is None and bool({"decode", "resize", "overlay"} & set(stages))
        self._sources = [_source(feeds, frame) for feeds in cycle] if made else []
        self._packed = (
            [zlib.compress(source.tobytes()) for source in self._sources] if made and "decode" in stages else []
        )
        self.times_ns: dict[str, list[int]] = {name: [] for name in self._stages}
        self.shown: Any = None

    def process(self, number: int) -> None:
        """Take one frame through all stages. Its result is in ``shown``."""
        import numpy as np

        case = number % len(self._cycle if self._coded is None else self._coded)
        feeds = self._cycle[number % len(self._cycle)]
        image = self._sources[case] if self._sources else None
        self.shown = None
        outputs: Mapping[str, Any] = {}
        for name in self._stages:
            start_ns = self._clock.now_ns()
            if name == "decode" and self._coded is not None:
                image = self._coded.decoded(case)
            elif name == "resize" and self._coded is not None:
                feeds = self._coded.feeds(image)
            elif name == "decode":
                image = np.frombuffer(zlib.decompress(self._packed[case]), np.uint8).reshape(self._frame)
            elif name == "resize":
                feeds = _as_input(image, feeds)
            elif name == "inference":
                outputs = self._session.run(feeds)
            else:
                self.shown = overlay(_grey(image), next(iter(outputs.values())))
            self.times_ns[name].append(self._clock.now_ns() - start_ns)
        if self.shown is None:
            self.shown = outputs


def _source(feeds: Feeds, frame: tuple[int, int]) -> Any:
    """A case as an eight-bit grey frame of the size ``frame`` (rows, columns)."""
    import numpy as np

    array = _image_input(feeds)
    grey = array[0].mean(axis=0)
    low, high = float(grey.min()), float(grey.max())
    return np.round((resize(grey, frame) - low) / max(high - low, _FLAT) * _LEVELS).astype(np.uint8)


def _grey(image: Any) -> Any:
    """Uint8 (rows, columns) of a frame."""
    import numpy as np

    grey = image if image.ndim == 2 else image.mean(axis=2)
    if grey.dtype == np.uint8:
        return grey
    top = 255.0 if grey.dtype == np.float32 or image.ndim == 3 else max(1.0, float(grey.max()))
    return (grey * (_LEVELS / top)).astype(np.uint8)


def _image_input(feeds: Feeds) -> Any:
    arrays = list(feeds.values())
    if len(arrays) != 1 or arrays[0].ndim != 4 or arrays[0].shape[0] != 1:
        found = ", ".join(str(tuple(array.shape)) for array in arrays)
        raise RuntimeFault(
            "unfit_stages", f"frame stages need one model input of shape (1, channels, rows, columns): {found}"
        )
    return arrays[0]


def _as_input(image: Any, feeds: Feeds) -> Feeds:
    import numpy as np

    (name, like), *_ = feeds.items()
    low, high = float(like.min()), float(like.max())
    plane = resize(image, like.shape[2:]) * ((high - low) / _LEVELS) + low
    return {name: np.ascontiguousarray(np.broadcast_to(plane.astype(like.dtype), like.shape))}


def resize(image: Any, size: tuple[int, int]) -> Any:
    """Bilinear, pixel centres aligned; float32 (rows, columns)."""
    import numpy as np

    values = np.asarray(image, dtype=np.float32)
    for axis, count in enumerate(size):
        length = values.shape[axis]
        at = np.clip((np.arange(count, dtype=np.float32) + 0.5) * (length / count) - 0.5, 0, length - 1)
        low = at.astype(np.intp)
        high = np.minimum(low + 1, length - 1)
        share = (at - low).reshape((-1, 1) if axis == 0 else (1, -1))
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values


def overlay(image: Any, scores: Any) -> Any:
    """RGB uint8 (rows, columns, 3): the grey frame, tinted where another class than the first has the highest score.

    ``scores`` is (1, classes, rows, columns); with a single class, pixels with a score above zero are tinted.
    """
    import numpy as np

    if scores.ndim != 4:
        raise RuntimeFault(
            "unfit_stages", f"an overlay needs an output (1, classes, rows, columns): {tuple(scores.shape)}"
        )
    found = scores[0, 0] > 0 if scores.shape[1] == 1 else scores[0].argmax(axis=0) > 0
    rows = np.arange(image.shape[0]) * found.shape[0] // image.shape[0]
    columns = np.arange(image.shape[1]) * found.shape[1] // image.shape[1]
    mask = found.take(rows, 0).take(columns, 1)
    half = image >> 1
    picture = np.empty((*image.shape, 3), np.uint8)
    for channel, level in enumerate(_OVERLAY_RGB):
        picture[:, :, channel] = np.where(mask, half + np.uint8(level >> 1), image)
    return picture
