"""Runs the steps of :mod:`edgedeploy.runtime.pipeline.steps` with numpy: frame to input, output to result."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Any, Callable

from edgedeploy.runtime.pipeline import boxes
from edgedeploy.runtime.pipeline import steps as s
from edgedeploy.runtime.pipeline.numpy_later import np
from edgedeploy.runtime.pipeline.resize import resized

Arrays = typing.Mapping[str, Any]  # before Python 3.9 that of collections.abc takes no types

MOST_PIXELS = 64_000_000
"""Of a frame, and of a result."""

_LUMA = (0.299, 0.587, 0.114)
_LUMA_FIXED = (19595, 38470, 7471)  # of 2**16: Pillow's


class FrameError(ValueError):
    """A frame that the steps do not take, or outputs that they were not made for: what was expected, and what was given."""


@dataclass(frozen=True)
class Placement:
    """Where the input lies in its frame, in pixels of the frame, and where in the input that lies (``inside_``, of an input
    of ``input_height`` x ``input_width``): what the steps for the output have to know."""

    frame_height: int
    frame_width: int
    top: int
    left: int
    height: int
    width: int
    input_height: int = 0
    input_width: int = 0
    inside_top: int = 0
    inside_left: int = 0
    inside_height: int = 0
    inside_width: int = 0


def placement_of(steps: s.Steps, height: int, width: int) -> Placement:
    """Of a frame of ``height`` x ``width``. Raises :class:`FrameError` for one that lacks pixels."""
    top, left, high, wide = 0, 0, height, width
    inside = (height, width, 0, 0, height, width)
    for step in steps.input:
        if isinstance(step, s.Crop):
            bottom, right = step.top + step.height, step.left + step.width
            if bottom > high or right > wide:
                raise FrameError(f"a frame has at least {bottom} x {right} pixels here, but got {high} x {wide}")
            top, left, high, wide = top + step.top, left + step.left, step.height, step.width
            inside = (high, wide, 0, 0, high, wide)
        elif isinstance(step, s.Resize):
            inside = (step.height, step.width, 0, 0, step.height, step.width)
        elif isinstance(step, s.Letterbox):
            inside = _letterboxed(step, high, wide)
    return Placement(height, width, top, left, high, wide, *inside)


def _letterboxed(step: s.Letterbox, height: int, width: int) -> tuple[int, int, int, int, int, int]:
    scale = min(step.width / width, step.height / height)
    high, wide = max(1, round(height * scale)), max(1, round(width * scale))
    return step.height, step.width, (step.height - high) // 2, (step.width - wide) // 2, high, wide


def prepare(steps: s.Steps, frame: Any) -> tuple[dict[str, Any], Placement]:
    """The artifact's input by name, and where it lies in the frame. The frame is not changed. Raises :class:`FrameError`."""
    values = _checked(frame, raw=any(isinstance(step, s.Window) for step in steps.input))
    placement = placement_of(steps, *values.shape[:2])
    for step in steps.input[:-1]:
        values = _BEFORE[type(step)](step, values)
    last = typing.cast(s.ToTensor, steps.input[-1])
    return {last.input: _tensor(last, values)}, placement


def finish(steps: s.Steps, outputs: Arrays, placement: Placement | None) -> Any:
    """The result of the artifact's outputs, for the placement that :func:`prepare` gave. Raises :class:`FrameError`."""
    if isinstance(steps.output[0], s.Detections):
        return _detected(steps, outputs, placement)
    first = typing.cast(s.Take, steps.output[0])
    if first.output not in outputs:
        raise FrameError(f"expected an output {first.output!r}, but got {', '.join(outputs)}")
    taken = np.asarray(outputs[first.output])
    if taken.ndim < 2 or len(taken) != 1:
        raise FrameError(f"expected output {first.output!r} of batch 1, but its shape is {taken.shape}")
    values = taken[0]
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise FrameError(f"expected finite values of output {first.output!r}, but got NaN or infinity")
    for step in steps.output[1:]:
        if isinstance(step, (s.Restore, s.Place)):
            values = _in_frame(step, values, placement)
        else:
            values = _AFTER[type(step)](step, values)
    return np.asarray(values, order="C")


def _checked(frame: Any, *, raw: bool) -> Any:
    """``raw`` frames have the values of their source, which a window makes black and white of."""
    if not isinstance(frame, np.ndarray) or frame.dtype not in (
        (np.uint16, np.int16) if raw else (np.uint8, np.float32)
    ):
        found = f"an array of {frame.dtype}" if isinstance(frame, np.ndarray) else type(frame).__name__
        wanted = "uint16 or int16, as its source gives it" if raw else "uint8 or float32, black 0 to white 255"
        raise FrameError(f"a frame is an array of {wanted}, but got {found}")
    if not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 3)):
        raise FrameError(f"a frame is (height, width) or (height, width, 3), but got {frame.shape}")
    if not 1 <= frame.shape[0] * frame.shape[1] <= MOST_PIXELS:
        raise FrameError(f"a frame has 1 to {MOST_PIXELS} pixels, but got {frame.shape[0]} x {frame.shape[1]}")
    if frame.dtype == np.float32 and not np.isfinite(frame).all():
        raise FrameError("a frame has finite values, but got NaN or infinity")
    return frame


def _crop(step: s.Crop, values: Any) -> Any:
    return values[step.top : step.top + step.height, step.left : step.left + step.width]


def _shift_down(step: s.ShiftDown, values: Any) -> Any:
    if values.dtype != np.uint16:
        raise FrameError(f"a frame is uint16 here, but got {values.dtype}")
    return values >> step.bits


def _window(step: s.Window, values: Any) -> Any:
    shades = (values.astype(np.float32) - np.float32(step.low)) * np.float32(255.0 / (step.high - step.low))
    return np.clip(shades, np.float32(0), np.float32(255))


def _grey(step: s.Grey, values: Any) -> Any:
    if values.ndim == 2:
        return values
    if values.dtype == np.uint8:
        red, green, blue = (values[..., index].astype(np.int32) * _LUMA_FIXED[index] for index in range(3))
        return ((red + green + blue + 0x8000) >> 16).astype(np.uint8)
    return np.asarray(values @ np.array(_LUMA, np.float32), np.float32)


def _rgb(step: s.Rgb, values: Any) -> Any:
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


def _swap(step: s.SwapRedBlue, values: Any) -> Any:
    if values.ndim == 2:
        raise FrameError("a frame has three channels here, but got grey values")
    return values[..., ::-1]


def _resize(step: s.Resize, values: Any) -> Any:
    return resized(values, step.height, step.width, step.method)


def _letterbox(step: s.Letterbox, values: Any) -> Any:
    _, _, top, left, height, width = _letterboxed(step, values.shape[0], values.shape[1])
    content = resized(values, height, width, step.method)
    ground = np.full((step.height, step.width, *values.shape[2:]), step.fill, content.dtype)
    ground[top : top + height, left : left + width] = content
    return ground


def _divided(values: Any, divide: float) -> Any:
    values = values.astype(np.float32, copy=False)
    return values if divide == 1 else values / np.float32(divide)


def _normalise(step: s.Normalise, values: Any) -> Any:
    channels = 1 if values.ndim == 2 else values.shape[2]
    if {len(step.mean), len(step.std)} - {1, channels}:
        raise FrameError(f"a frame has {max(len(step.mean), len(step.std))} channels here, but got {channels}")
    mean, std = np.array(step.mean, np.float32), np.array(step.std, np.float32)
    return np.asarray((_divided(values, step.divide) - mean) / std, np.float32)


def _standardise(step: s.Standardise, values: Any) -> Any:
    scaled = _divided(values, step.divide)
    planes = scaled[None] if scaled.ndim == 2 else np.ascontiguousarray(scaled.transpose(2, 0, 1))
    found = [_standard(step, plane) for plane in planes]
    return found[0] if scaled.ndim == 2 else np.stack(found, axis=2)


def _standard(step: s.Standardise, plane: Any) -> Any:
    if plane.size <= step.ddof:
        raise FrameError("a frame has more than one pixel here")
    deviation = np.float32(plane.std(ddof=step.ddof)) + np.float32(step.epsilon)
    return np.asarray((plane - plane.mean(dtype=np.float32)) / deviation, np.float32)


def _tensor(step: s.ToTensor, values: Any) -> Any:
    planes = values[..., None] if values.ndim == 2 else values
    ordered = planes.transpose(2, 0, 1) if step.layout == "NCHW" else planes
    if step.dtype == "uint8" and ordered.dtype != np.uint8:
        ordered = np.clip(np.rint(ordered), 0, 255)
    return np.ascontiguousarray(ordered[None].astype(step.dtype))


_BEFORE: dict[type, Callable[[Any, Any], Any]] = {
    s.Crop: _crop,
    s.ShiftDown: _shift_down,
    s.Window: _window,
    s.Grey: _grey,
    s.Rgb: _rgb,
    s.SwapRedBlue: _swap,
    s.Resize: _resize,
    s.Letterbox: _letterbox,
    s.Normalise: _normalise,
    s.Standardise: _standardise,
}


def _against_zero(step: s.AgainstZero, values: Any) -> Any:
    if len(values) != 1:
        raise FrameError(f"an output has one channel here, but got {len(values)}")
    pair = (np.zeros_like(values), values)
    return np.concatenate(pair if step.zero == "before" else pair[::-1])


def _softmax(step: s.Softmax, values: Any) -> Any:
    powers = np.exp(values - values.max(axis=0, keepdims=True))
    return powers / powers.sum(axis=0, keepdims=True)


def _sigmoid(step: s.Sigmoid, values: Any) -> Any:
    powers = np.exp(-np.abs(values))  # does not overflow
    return np.where(values >= 0, 1, powers) / (1 + powers)


def _argmax(step: s.ArgMax, values: Any) -> Any:
    if len(values) > 256:
        raise FrameError(f"an output has at most 256 channels here, but got {len(values)}")
    return values.argmax(axis=0).astype(np.uint8)


def _threshold(step: s.Threshold, values: Any) -> Any:
    return (values > step.above).astype(np.uint8)


def _clip(step: s.Clip, values: Any) -> Any:
    return np.clip(values, step.low, step.high)


_AFTER: dict[type, Callable[[Any, Any], Any]] = {
    s.AgainstZero: _against_zero,
    s.Softmax: _softmax,
    s.Sigmoid: _sigmoid,
    s.ArgMax: _argmax,
    s.Threshold: _threshold,
    s.Clip: _clip,
}


def _in_frame(step: s.Restore | s.Place, values: Any, at: Placement | None) -> Any:
    if values.ndim < 2 or at is None:
        raise FrameError(f"an output is a map of a frame here, but its shape is {values.shape}")
    if isinstance(step, s.Restore):
        return resized(values, at.height, at.width, step.method, axes=(-2, -1))
    if values.shape[-2:] != (at.height, at.width):
        raise FrameError(f"an output is {at.height} x {at.width} here, but got {values.shape[-2]} x {values.shape[-1]}")
    ground = np.full((*values.shape[:-2], at.frame_height, at.frame_width), step.fill, values.dtype)
    ground[..., at.top : at.top + at.height, at.left : at.left + at.width] = values
    return ground


# -- boxes


def _detected(steps: s.Steps, outputs: Arrays, at: Placement | None) -> Any:
    if at is None or not at.inside_width:
        raise FrameError("boxes are of a frame, and none is known")
    first = typing.cast(s.Detections, steps.output[0])
    try:
        rows = boxes.table(outputs, first.boxes, first.scores, first.labels, first.joined)
    except boxes.BoxError as exc:
        raise FrameError(str(exc)) from None
    rows = boxes.corners(rows, first.form, first.unit, at.input_height, at.input_width)
    for step in steps.output[1:]:
        rows = _ON_BOXES[type(step)](step, rows, at)
    return np.ascontiguousarray(rows)


def _restored(step: s.RestoreBoxes, rows: Any, at: Placement) -> Any:
    """x' = x * scale + inside_left for a pixel x of what is in the input, and back."""
    scale = [at.inside_width / at.width, at.inside_height / at.height] * 2
    moved = (rows[:, :4] - [at.inside_left, at.inside_top] * 2) / scale
    moved = np.clip(moved, 0, [at.width, at.height] * 2) + [at.left, at.top] * 2
    return np.concatenate([moved, rows[:, 4:]], axis=1)


_ON_BOXES: dict[type, Callable[[Any, Any, Placement], Any]] = {
    s.AtLeast: lambda step, rows, at: rows[rows[:, 4] >= step.score],
    s.Suppress: lambda step, rows, at: boxes.suppressed(rows, step.overlap, step.count),
    s.Best: lambda step, rows, at: boxes.best_first(rows)[: step.count],
    s.RestoreBoxes: _restored,
    s.Categories: lambda step, rows, at: boxes.renamed(rows, step.labels, step.ids),
}
