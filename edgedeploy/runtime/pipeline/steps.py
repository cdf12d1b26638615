"""The steps before and after inference as frozen data with strict JSON.

A **frame** is what a product has: an array (H, W) of grey values or (H, W, 3) of red, green, blue, ``uint8``, or ``float32``
where there is more to say than 8 bits; black is 0 and white 255. The steps for the input make the artifact's one input of
it. The steps for the output begin with one output without its batch axis, (C, h, w) or (C,), and end with the **result**.

The types are evaluated, by Python 3.8 too: see :mod:`edgedeploy.runtime.wire.serde`.
"""

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Literal, Mapping, Sequence, Tuple, Union

from edgedeploy.runtime.faults import BundleError
from edgedeploy.runtime.pipeline.resize import METHODS
from edgedeploy.runtime.wire.serde import WireError, from_json, to_json

MOST_STEPS = 32
MOST_SIDE = 16384
MOST_CHANNELS = 64

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
class Resize:
    """To ``height`` x ``width``, whatever the frame's shape was: see :mod:`edgedeploy.runtime.pipeline.resize`."""

    height: int
    width: int
    method: str


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
class Restore:
    """The last two axes brought to the size that the frame had before it was resized."""

    method: str


@dataclass(frozen=True)
class Place:
    """The last two axes put where the frame was cropped, in an array of the frame's size that is ``fill`` elsewhere."""

    fill: float


InputStep = Union[Crop, Grey, Rgb, SwapRedBlue, Resize, Normalise, Standardise, ToTensor]
OutputStep = Union[Take, AgainstZero, Softmax, Sigmoid, ArgMax, Threshold, Clip, Restore, Place]

INPUT_STEPS: Dict[str, Any] = {
    "crop": Crop,
    "grey": Grey,
    "rgb": Rgb,
    "swap-red-blue": SwapRedBlue,
    "resize": Resize,
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
    if steps.output and [isinstance(step, Take) for step in steps.output] != [True] + [False] * (len(steps.output) - 1):
        raise _malformed("the steps for the output begin with the only 'take'")
    kinds = [type(step) for step in steps.input]
    if Crop in kinds and Resize in kinds[: len(kinds) - kinds[::-1].index(Crop)]:
        raise _malformed("a 'crop' stands before any 'resize': it is in pixels of the frame")
    if any(isinstance(step, (Restore, Place)) for step in steps.output) and not steps.input:
        raise _malformed("'restore' and 'place' need steps for the input: they know the frame's size")


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
        (Crop, Resize),
        lambda s: min(s.height, s.width) >= 1 and max(s.height, s.width) <= MOST_SIDE,
        f"sides are 1 to {MOST_SIDE}",
    ),
    (
        (Crop,),
        lambda s: min(s.top, s.left) >= 0 and max(s.top, s.left) <= MOST_SIDE,
        "top and left are rows and columns",
    ),
    ((Resize, Restore), lambda s: s.method in METHODS, f"method is one of {', '.join(METHODS)}"),
    ((Normalise, Standardise), lambda s: s.divide > 0, "divide is above 0"),
    (
        (Normalise,),
        lambda s: all(1 <= len(v) <= MOST_CHANNELS for v in (s.mean, s.std)),
        "mean and std are of the channels",
    ),
    ((Normalise,), lambda s: min(s.std) > 0, "std is above 0"),
    ((Standardise,), lambda s: s.epsilon > 0 and s.ddof in (0, 1), "epsilon is above 0, and ddof 0 or 1"),
    ((ToTensor,), lambda s: s.dtype in INPUT_TYPES, f"dtype is one of {', '.join(INPUT_TYPES)}"),
    ((Clip,), lambda s: s.low < s.high, "low is below high"),
)


def _malformed(found: str) -> BundleError:
    return BundleError("malformed", f"pipeline: {found}")
