"""What each rounding of an int8 build costs: the float reference with that one rounding alone, on calibration cases; and
what several cost together.

Simulated in ONNX Runtime: weights are rounded in the file, a tensor by a QuantizeLinear/DequantizeLinear pair that the
session is told to compute as it is written. One session at a time runs on one thread, so the memory is that of one model
and of the kept outputs, whatever the number of layers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from edgedeploy.errors import DataError, Unsupported
from edgedeploy.interfaces.task import Array
from edgedeploy.records.precision import Int8Scheme
from edgedeploy.reference.passes import passes
from edgedeploy.reference.roundings import Rounding, Roundings
from edgedeploy.reference.translate import translated

METHOD: Final = "2"
"""Of the simulation: what another one gave is measured anew. Raise it with every change of a number. Kept numbers without a
method are of "1", which rounded each weight of a vector by a scale of its own."""
CASES: Final = 6
"""Calibration cases at most. Noise is a mean over all elements of all outputs: it settles within a few."""
KEPT_BYTES: Final = 256 << 20
"""Bytes of the cases with their outputs that are kept; fewer cases are taken of a network with large ones."""
LOOKED_BYTES: Final = 64 << 20
"""Bytes of the tensors whose ranges are looked for in one pass over the cases."""
_TOP: Final = 255
_LARGEST_WEIGHT: Final = 127


@dataclass(frozen=True)
class Sensitivity:
    """``losses``: the noise of each place of the roundings, as a share of the outputs' power, summed over the outputs and
    averaged over ``cases`` cases. ``metrics``: what each place takes off a metric, on average, in the metric's own unit;
    negative where rounding happens to improve it."""

    losses: tuple[float, ...]
    cases: int
    metrics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


Judge = Callable[[int, Mapping[str, Array]], Mapping[str, float]]
"""By metric, how bad the outputs of a case are, higher being worse; the number is the case's place among the feeds."""


def no_metrics(case: int, outputs: Mapping[str, Array]) -> Mapping[str, float]:
    return {}


def sqnr_db(loss: float) -> float:
    """The ratio of signal to noise of a loss; infinite for none."""
    return -10 * math.log10(loss) if loss > 0 else math.inf


@dataclass(frozen=True)
class Lost:
    """What roundings cost together, as one place does in :class:`Sensitivity`."""

    loss: float
    metrics: Mapping[str, float]


class Simulation:
    """The float reference on its calibration cases ``feeds``, which are model-ready, and with any of its roundings on the
    same ones. Raises ``DataError`` without a case."""

    def __init__(
        self, found: Roundings, feeds: Iterator[Mapping[str, Array]], scheme: Int8Scheme, judge: Judge = no_metrics
    ) -> None:
        plain = _Session(found.model)
        self.found, self._judge, self._cases = found, judge, _taken(plain, feeds)
        tensors = [place.tensor for place in found.places if place.kind == "tensor"]
        self._ranges = _ranges(found.model, tensors, [feed for feed, _ in self._cases], scheme)
        self._before = [judge(number, plain.named(outputs)) for number, (_, outputs) in enumerate(self._cases)]

    @property
    def cases(self) -> int:
        return len(self._cases)

    def look(self, places: Sequence[Rounding]) -> Lost:
        """With all of ``places`` rounded. Raises ``Unsupported`` where that gives no numbers."""
        changed = _copy(self.found.model)
        for place in places:
            _round(changed, place, self._ranges.get(place.tensor), self.found.spared)
        rounded = _Session(changed)
        answers = [rounded.run(feed) for feed, _ in self._cases]
        loss = float(np.mean([_noise(own, found) for (_, own), found in zip(self._cases, answers, strict=True)]))
        if not math.isfinite(loss):
            alone = f"{places[0].tensor!r} in int8, the rest in float32"
            asked = alone if len(places) == 1 else f"{len(places)} weights and tensors in int8"
            raise Unsupported(asked, "the outputs hold NaN or Inf", "Search without plans")
        after = [self._judge(number, rounded.named(outputs)) for number, outputs in enumerate(answers)]
        return Lost(loss, _worse(self._before, after))

    def look_at_plan(self, precisions: Sequence[str]) -> Lost:
        """With all that rounds when the groups of the roundings have ``precisions``."""
        groups = zip(self.found.groups, precisions, strict=True)
        narrow = {layer for layers, precision in groups if precision == "int8" for layer in layers}
        return self.look([place for place in self.found.places if not narrow.isdisjoint(place.layers)])


def sensitivity_of(
    simulation: Simulation, progress: Callable[[int, int], None] = lambda done, total: None
) -> Sensitivity:
    """``progress`` gets the number of roundings that are done and of all, and may raise to end it. Raises ``Unsupported``
    where a rounding gives no numbers."""
    places = simulation.found.places
    found: list[Lost] = []
    for done, place in enumerate(places):
        progress(done, len(places))
        found.append(simulation.look([place]))
    progress(len(places), len(places))
    common = [name for name in (found[0].metrics if found else ()) if all(name in own.metrics for own in found)]
    metrics = {name: tuple(own.metrics[name] for own in found) for name in common}
    return Sensitivity(tuple(own.loss for own in found), simulation.cases, metrics)


def _worse(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By metric the mean over the cases in which it is defined on both sides."""
    pairs = list(zip(before, after, strict=True))
    names = dict.fromkeys(name for own in before for name in own)
    found = {name: [b[name] - a[name] for a, b in pairs if name in a and name in b] for name in names}
    return {name: float(np.mean(values)) for name, values in found.items() if values}


class _Session:
    """A model in memory on one thread."""

    def __init__(self, model: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        with translated("a model with one rounded tensor", "Search without plans", Unsupported):
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        self._inputs = [item.name for item in self._session.get_inputs()]

    def named(self, outputs: Sequence[Array]) -> dict[str, Array]:
        return dict(zip([item.name for item in self._session.get_outputs()], outputs, strict=True))

    def run(self, feed: Mapping[str, Array]) -> list[Array]:
        return list(self._session.run(None, {name: feed[name] for name in self._inputs}))


def _taken(session: _Session, feeds: Iterator[Mapping[str, Array]]) -> list[tuple[Mapping[str, Array], list[Array]]]:
    kept: list[tuple[Mapping[str, Array], list[Array]]] = []
    spent = 0
    for feed in itertools.islice(feeds, CASES):
        outputs = session.run(feed)
        spent += sum(value.nbytes for value in (*feed.values(), *outputs))
        if kept and spent > KEPT_BYTES:
            break
        kept.append((feed, outputs))
    if not kept:
        raise DataError("calibration cases for precision plans", "there are none", "Give the calibration split a case")
    return kept


def _noise(plain: Sequence[Array], rounded: Sequence[Array]) -> float:
    """Power of the difference over that of the signal, summed over the outputs of floats."""
    total = 0.0
    for before, after in zip(plain, rounded, strict=True):
        if before.dtype.kind != "f":
            continue
        signal = float(np.square(before, dtype=np.float64).sum())
        noise = float(np.square(np.subtract(before, after, dtype=np.float64)).sum())
        total += noise / signal if signal > 0 else noise
    return total


def _ranges(
    model: Any, tensors: Sequence[str], feeds: Sequence[Mapping[str, Array]], scheme: Int8Scheme
) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each tensor, zero among them."""
    inputs = {value.name for value in model.graph.input}
    found = {
        name: [(float(feed[name].min()), float(feed[name].max())) for feed in feeds]
        for name in tensors
        if name in inputs
    }
    for names in passes(_sizes(model, [name for name in tensors if name not in inputs]), LOOKED_BYTES):
        session = _Session(_with_outputs(model, names))
        extremes: list[list[tuple[float, float]]] = [[] for _ in names]
        for feed in feeds:
            for own, value in zip(extremes, session.run(feed)[-len(names) :], strict=True):
                if value.size:  # the rows of what was found in a case: it may be nothing
                    own.append((float(value.min()), float(value.max())))
        found |= dict(zip(names, extremes, strict=True))
    low, high = (np.mean, np.mean) if scheme.mean_extremes else (np.min, np.max)
    return {
        name: (min(0.0, float(low([case[0] for case in own]))), max(0.0, float(high([case[1] for case in own]))))
        if own
        else (0.0, 0.0)
        for name, own in found.items()
    }


def _sizes(model: Any, names: Sequence[str]) -> dict[str, int]:
    """Bytes of the float32 tensors ``names``; an axis without a size counts as one."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*model.graph.value_info, *model.graph.output)}
    return {name: 4 * math.prod(max(1, int(item.dim_value)) for item in shapes.get(name, ())) for name in names}


def _copy(model: Any) -> Any:
    copied = type(model)()
    copied.CopyFrom(model)
    return copied


def _with_outputs(model: Any, names: Sequence[str]) -> Any:
    """The model with ``names`` as its last outputs, each behind a node of its own: a tensor may be an output already."""
    import onnx

    changed = _copy(model)
    for number, name in enumerate(names):
        output = f"edgedeploy-looked-at-{number}"
        changed.graph.node.append(onnx.helper.make_node("Identity", [name], [output]))
        changed.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    return changed


def _round(
    model: Any, place: Rounding, extremes: tuple[float, float] | None, spared: Mapping[str, Sequence[int]]
) -> None:
    if place.kind == "weights":
        _round_weights(model, place)
    else:
        assert extremes is not None
        _round_tensor(model, place.tensor, *extremes, spared)


def _round_weights(model: Any, place: Rounding) -> None:
    import onnx

    tensor = next(item for item in model.graph.initializer if item.name == place.tensor)
    values = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(rounded_weights(values, place.axis), place.tensor))


def rounded_weights(values: Array, axis: int) -> Array:
    """Weights as int8 holds them: around zero, one scale for each channel of ``axis``. A vector is one channel."""
    others = tuple(i for i in range(values.ndim) if i != axis or values.ndim == 1)
    scales = np.abs(values).max(axis=others, keepdims=True).astype(np.float64) / _LARGEST_WEIGHT
    scales[scales == 0] = 1.0
    return np.asarray(np.rint(values / scales) * scales, dtype=values.dtype)


def _round_tensor(model: Any, name: str, low: float, high: float, spared: Mapping[str, Sequence[int]]) -> None:
    """Put a QuantizeLinear/DequantizeLinear pair behind ``name``, for everyone who reads it and for who runs the model, but
    not for the inputs of nodes in ``spared``."""
    import onnx

    scale = max((high - low) / _TOP, float(np.finfo(np.float32).tiny))
    zero = int(np.clip(round(-low / scale), 0, _TOP))
    names = [f"{name}:plan-{part}" for part in ("scale", "zero", "codes", "other")]
    model.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.float32(scale), names[0]),
            onnx.numpy_helper.from_array(np.uint8(zero), names[1]),
        ]
    )
    before, after = names[3], name
    made = next((node for node in model.graph.node if name in node.output), None)
    if made is None:  # an input of the model
        before, after = name, names[3]
        for node in model.graph.node:
            _rename(node.input, name, after)
    else:
        _rename(made.output, name, before)
    for node in model.graph.node:
        for index in spared.get(node.name, ()):
            if node.input[index] == after:
                node.input[index] = before
    place = 0 if made is None else list(model.graph.node).index(made) + 1
    model.graph.node.insert(place, onnx.helper.make_node("QuantizeLinear", [before, *names[:2]], [names[2]]))
    model.graph.node.insert(place + 1, onnx.helper.make_node("DequantizeLinear", names[2:3] + names[:2], [after]))


def _rename(names: Any, old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new
