"""The steps before and after inference as frozen data with strict JSON.

A **frame** is what a product has: an array (H, W) of grey values or (H, W, 3) of red, green, blue, ``uint8``, or ``float32``
where there is more to say than 8 bits; black is 0 and white 255. The steps for the input make the artifact's one input of
it. The steps for the output begin with one output without its batch axis, (C, h, w) or (C,), or with a detector's outputs
as a table of boxes (see :mod:`edgedeploy.runtime.pipeline.boxes`), and end with the **result**.

The types are evaluated, by Python 3.8 too: see :mod:`edgedeploy.runtime.wire.serde`.
"""

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Literal, Mapping, Sequence, Tuple, Union

from edgedeploy.runtime.faults import BundleError
from edgedeploy.runtime.pipeline.boxes import FORMATS, MOST_BOXES, UNITS
from edgedeploy.runtime.pipeline.resize import METHODS
from edgedeploy.runtime.wire.serde import WireError, from_json, to_json

MOST_STEPS = 32
MOST_SIDE = 16384
MOST_CHANNELS = 64
MOST_CATEGORIES = 10000

INPUT_TYPES = ("uint8", "float16", "float32")


# -- before inference: a frame becomes the artifact's input


@dataclass(frozen=True)
class Crop:
    """Keep the pixels from row ``top`` and column ``left`` on, ``height`` x ``width`` of them, before any resizing. A frame
    without them is refused."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Grey:
    """Three channels become one by ITU-R 601: of uint8 as Pillow's ``convert("L")``, to the bit. Grey stays."""


@dataclass(frozen=True)
class Rgb:
    """Grey becomes three equal channels. Three channels stay."""


@dataclass(frozen=True)
class SwapRedBlue:
    """RGB becomes BGR."""


@dataclass(frozen=True)
class Window:
    """Of a frame of more than 8 bits as its source gives it: ``low`` becomes black (0) and ``high`` white (255), in float32,
    what is beyond is cut. (value - low) * 255 / (high - low)."""

    low: float
    high: float


@dataclass(frozen=True)
class ShiftDown:
    """Of uint16 with ``bits`` empty or foreign bits below: shifted down by them, such as 4 of 12 bits that are kept high."""

    bits: int


@dataclass(frozen=True)
class Resize:
    """To ``height`` x ``width``, whatever the frame's shape was: see :mod:`edgedeploy.runtime.pipeline.resize`."""

    height: int
    width: int
    method: str


@dataclass(frozen=True)
class Letterbox:
    """To the largest size within ``height`` x ``width`` that keeps the aspect, in the middle of a ground of ``fill``."""

    height: int
    width: int
    method: str
    fill: float


@dataclass(frozen=True)
class Normalise:
    """(value / ``divide`` - ``mean``) / ``std`` in float32; of one number, or one per channel."""

    divide: float
    mean: Tuple[float, ...]
    std: Tuple[float, ...]


@dataclass(frozen=True)
class Standardise:
    """Each channel of each frame to zero mean and unit variance in float32: of value / ``divide``, (value - mean) /
    (deviation + ``epsilon``), with ``ddof`` taken from the count for the deviation."""

    divide: float
    epsilon: float
    ddof: int


@dataclass(frozen=True)
class ToTensor:
    """The input ``input``, of batch 1. A whole-number ``dtype`` is rounded to even and cut to its range."""

    input: str
    layout: Literal["NCHW", "NHWC"]
    dtype: str


# -- after inference: one output becomes the result


@dataclass(frozen=True)
class Take:
    """Begin with the output ``output``, without its batch axis."""

    output: str


@dataclass(frozen=True)
class AgainstZero:
    """A zero beside a single channel, ``before`` or ``after`` it: the logit that the other class has by convention."""

    zero: Literal["before", "after"]


@dataclass(frozen=True)
class Softmax:
    """Over the channels."""


@dataclass(frozen=True)
class Sigmoid:
    """1 / (1 + exp(-value)) of each value."""


@dataclass(frozen=True)
class ArgMax:
    """The number of the largest channel, the first of equal ones: uint8, without the axis of channels."""


@dataclass(frozen=True)
class Threshold:
    """1 where a value is larger than ``above``, else 0: uint8."""

    above: float


@dataclass(frozen=True)
class Clip:
    """Cut to ``low`` and ``high``."""

    low: float
    high: float


@dataclass(frozen=True)
class Detections:
    """Begin with a detector's outputs as a table of boxes, with corners in pixels of the input. ``joined`` is one output
    (1, 4 + classes, N); without it ``boxes``, ``scores`` and ``labels`` are names of outputs, the last one unused where
    scores are (N, classes). ``form`` is that of the boxes (xyxy, xywh, cxcywh), ``unit`` theirs (pixel or share of the
    input)."""

    boxes: str
    scores: str
    labels: str
    joined: str
    form: str
    unit: str


@dataclass(frozen=True)
class AtLeast:
    """Boxes with a score of ``score`` or more."""

    score: float


@dataclass(frozen=True)
class Suppress:
    """Best first, without boxes that a better one of their label overlaps by more than ``overlap`` (IoU), ``count`` of them
    at most."""

    overlap: float
    count: int


@dataclass(frozen=True)
class Best:
    """The ``count`` best, best first."""

    count: int


@dataclass(frozen=True)
class RestoreBoxes:
    """Corners in pixels of the frame, cut to what was in the input."""


@dataclass(frozen=True)
class Categories:
    """Each of ``labels`` becomes the one of ``ids`` at its place; boxes of other labels are no detections."""

    labels: Tuple[int, ...]
    ids: Tuple[int, ...]


@dataclass(frozen=True)
class Restore:
    """The last two axes brought to the size that the frame had before it was resized."""

    method: str


@dataclass(frozen=True)
class Place:
    """The last two axes put where the frame was cropped, in an array of the frame's size that is ``fill`` elsewhere."""

    fill: float


InputStep = Union[Crop, Grey, Rgb, SwapRedBlue, Window, ShiftDown, Resize, Letterbox, Normalise, Standardise, ToTensor]
OutputStep = Union[
    Take, AgainstZero, Softmax, Sigmoid, ArgMax, Threshold, Clip, Restore, Place,
    Detections, AtLeast, Suppress, Best, RestoreBoxes, Categories,
]  # fmt: skip
OF_BOXES = (AtLeast, Suppress, Best, RestoreBoxes, Categories)
OF_MAPS = (AgainstZero, Softmax, Sigmoid, ArgMax, Threshold, Clip, Restore, Place)

INPUT_STEPS: Dict[str, Any] = {
    "crop": Crop,
    "grey": Grey,
    "rgb": Rgb,
    "swap-red-blue": SwapRedBlue,
    "window": Window,
    "shift-down": ShiftDown,
    "resize": Resize,
    "letterbox": Letterbox,
    "normalise": Normalise,
    "standardise": Standardise,
    "tensor": ToTensor,
}
OUTPUT_STEPS: Dict[str, Any] = {
    "take": Take,
    "against-zero": AgainstZero,
    "softmax": Softmax,
    "sigmoid": Sigmoid,
    "argmax": ArgMax,
    "threshold": Threshold,
    "clip": Clip,
    "restore": Restore,
    "place": Place,
    "detections": Detections,
    "at-least": AtLeast,
    "suppress": Suppress,
    "best": Best,
    "restore-boxes": RestoreBoxes,
    "categories": Categories,
}


@dataclass(frozen=True)
class Steps:
    """What a frame goes through. Without ``input`` a product gives tensors, without ``output`` it takes them."""

    input: Tuple[InputStep, ...] = ()
    output: Tuple[OutputStep, ...] = ()

    def as_json(self) -> Dict[str, List[Dict[str, Any]]]:
        return {"input": _written(self.input, INPUT_STEPS), "output": _written(self.output, OUTPUT_STEPS)}


def read_steps(input_steps: Sequence[Mapping[str, Any]], output_steps: Sequence[Mapping[str, Any]]) -> Steps:
    """The steps that :meth:`Steps.as_json` wrote. Raises :class:`BundleError` ``malformed`` for an unknown step, a field too
    many or too few, a value that no step takes, and an order that gives no input or result."""
    steps = Steps(
        tuple(_read(step, INPUT_STEPS, f"input[{place}]") for place, step in enumerate(input_steps)),
        tuple(_read(step, OUTPUT_STEPS, f"output[{place}]") for place, step in enumerate(output_steps)),
    )
    check_steps(steps)
    return steps


def check_steps(steps: Steps) -> None:
    """Raises :class:`BundleError` ``malformed``."""
    if max(len(steps.input), len(steps.output)) > MOST_STEPS:
        raise _malformed(f"more than {MOST_STEPS} steps")
    for step in (*steps.input, *steps.output):
        found = _wrong_value(step)
        if found:
            raise _malformed(f"{type(step).__name__}: {found}")
    if steps.input and [isinstance(step, ToTensor) for step in steps.input] != [False] * (len(steps.input) - 1) + [
        True
    ]:
        raise _malformed("the steps for the input end with the only 'tensor'")
    first = [isinstance(step, (Take, Detections)) for step in steps.output]
    if steps.output and first != [True] + [False] * (len(steps.output) - 1):
        raise _malformed("the steps for the output begin with the only 'take', or the only 'detections'")
    _check_order(steps)


def _check_order(steps: Steps) -> None:
    kinds = [type(step) for step in steps.input]
    sized = [place for place, kind in enumerate(kinds) if kind in (Resize, Letterbox)]
    if Crop in kinds and sized and sized[0] < len(kinds) - kinds[::-1].index(Crop):
        raise _malformed("a 'crop' stands before any 'resize': it is in pixels of the frame")
    raw = [place for place, kind in enumerate(kinds) if kind in (Window, ShiftDown)]
    if raw and (kinds.count(Window) != 1 or kinds[raw[-1]] is not Window):
        raise _malformed("a 'shift-down' stands before the only 'window'")
    if raw and set(kinds[: raw[-1]]) - {Crop, ShiftDown}:
        raise _malformed("a 'window' stands after 'crop' and 'shift-down' alone: it is of the frame's own values")
    if Letterbox in kinds and len(sized) > 1:
        raise _malformed("a 'letterbox' is the only step that sizes")
    of_boxes = bool(steps.output) and isinstance(steps.output[0], Detections)
    for step in steps.output[1:]:
        if isinstance(step, OF_MAPS if of_boxes else OF_BOXES):
            raise _malformed(f"'{_name(step)}' stands after '{'take' if of_boxes else 'detections'}' alone")
    if any(isinstance(step, (Restore, Place)) for step in steps.output) and (not steps.input or Letterbox in kinds):
        raise _malformed(
            "'restore' and 'place' need steps for the input without 'letterbox': they know the frame's size"
        )
    if of_boxes and not steps.input:
        raise _malformed("'detections' needs steps for the input: they know the frame's size")


def _name(step: Any) -> str:
    return next(name for name, cls in OUTPUT_STEPS.items() if isinstance(step, cls))


def _written(steps: Sequence[Any], known: Mapping[str, Any]) -> List[Dict[str, Any]]:
    names = {cls: name for name, cls in known.items()}
    return [{"step": names[type(step)], **to_json(step)} for step in steps]


def _read(data: Mapping[str, Any], known: Mapping[str, Any], where: str) -> Any:
    name = data.get("step") if isinstance(data, Mapping) else None
    if not isinstance(name, str) or name not in known:
        raise _malformed(f"{where}: step {ascii(name)[:80]} is none of {', '.join(known)}")
    try:
        return from_json(known[name], {key: value for key, value in data.items() if key != "step"})
    except WireError as exc:
        raise _malformed(f"{where} ({name}): {exc}") from exc


def _wrong_value(step: Any) -> str:
    """What a step cannot do, for people; empty when it can."""
    for classes, fits, found in _LIMITS:
        if isinstance(step, classes) and not fits(step):
            return f"{found}, but got {to_json(step)}"
    return ""


_Limit = Tuple[Tuple[Any, ...], Callable[[Any], bool], str]

_LIMITS: Tuple[_Limit, ...] = (
    (
        (Crop, Resize, Letterbox),
        lambda s: min(s.height, s.width) >= 1 and max(s.height, s.width) <= MOST_SIDE,
        f"sides are 1 to {MOST_SIDE}",
    ),
    (
        (Crop,),
        lambda s: min(s.top, s.left) >= 0 and max(s.top, s.left) <= MOST_SIDE,
        "top and left are rows and columns",
    ),
    ((Resize, Restore, Letterbox), lambda s: s.method in METHODS, f"method is one of {', '.join(METHODS)}"),
    ((Normalise, Standardise), lambda s: s.divide > 0, "divide is above 0"),
    (
        (Normalise,),
        lambda s: all(1 <= len(v) <= MOST_CHANNELS for v in (s.mean, s.std)),
        "mean and std are of the channels",
    ),
    ((Normalise,), lambda s: min(s.std) > 0, "std is above 0"),
    ((Standardise,), lambda s: s.epsilon > 0 and s.ddof in (0, 1), "epsilon is above 0, and ddof 0 or 1"),
    ((ToTensor,), lambda s: s.dtype in INPUT_TYPES, f"dtype is one of {', '.join(INPUT_TYPES)}"),
    ((Clip, Window), lambda s: s.low < s.high, "low is below high"),
    ((ShiftDown,), lambda s: 1 <= s.bits <= 15, "bits are 1 to 15"),
    ((Detections,), lambda s: s.form in FORMATS, f"form is one of {', '.join(FORMATS)}"),
    ((Detections,), lambda s: s.unit in UNITS, f"unit is one of {', '.join(UNITS)}"),
    (
        (Detections,),
        lambda s: bool(s.joined) != bool(s.boxes and s.scores),
        "outputs are 'joined', or boxes and scores",
    ),
    ((AtLeast,), lambda s: 0 <= s.score <= 1, "score is 0 to 1"),
    ((Suppress,), lambda s: 0 < s.overlap <= 1, "overlap is above 0, to 1"),
    ((Suppress, Best), lambda s: 1 <= s.count <= MOST_BOXES, f"count is 1 to {MOST_BOXES}"),
    (
        (Categories,),
        lambda s: 1 <= len(set(s.labels)) == len(s.labels) == len(s.ids) <= MOST_CATEGORIES,
        f"labels are 1 to {MOST_CATEGORIES}, each with its id",
    ),
)


def _malformed(found: str) -> BundleError:
    return BundleError("malformed", f"pipeline: {found}")
