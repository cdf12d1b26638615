"""How the activations of a network are spread, as counts that can be added over sites: signed, by powers of two.

Each float tensor of the reference has two rows of :data:`BINS` counts, of values from zero up and of negative ones. Bin 0 of
a row holds what is smaller than 2^:data:`LOWEST`; bin k holds 2^(LOWEST + (k-1)/16) <= |x| < 2^(LOWEST + k/16). A range read
from them is the outer edge of the outermost bin that holds anything: never narrower than the exact range, and wider by at
most :data:`WIDTH` = 2^(1/16), 4.4 %, for values above 2^LOWEST (float32 logarithms add some 1e-5 of a bin).

One case is in memory at once, with the outputs of as many tensors as :data:`MOST_OUTPUT_BYTES` allows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import DataError
from edgedeploy.files import parsed, read_arrays, write_arrays
from edgedeploy.reference.external import require_in_one_file

if TYPE_CHECKING:
    from edgedeploy.interfaces.task import Array

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PER_OCTAVE: Final = 16
BINS: Final = 450
LOWEST: Final = -14
HIGHEST: Final = LOWEST + (BINS - 1) / PER_OCTAVE
"""log2 of the smallest magnitude with a bin of its own, and of the first that has none: 17,105."""
WIDTH: Final = 2 ** (1 / PER_OCTAVE)

MOST_TENSORS: Final = 10_000
MOST_FILE_BYTES: Final = 1 << 28
"""Read of a histogram's file at most: a network of 100 tensors has 720 kB of counts."""
MOST_CASES: Final = 1_000_000
MOST_OUTPUT_BYTES: Final = 256 << 20
FORM: Final = "edgedeploy.histograms/1"

Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Histograms:
    """``counts`` (tensors, 2, BINS) of the values of ``tensors`` over ``cases``; axis 1 is (from zero up, negative).
    ``extremes`` (tensors, 2) are the largest magnitudes on each side, which stay at the site but for the part of a bin they
    lie in. ``model`` is the SHA-256 of the reference that was observed."""

    tensors: tuple[str, ...]
    counts: Counts
    extremes: Floats
    cases: int
    model: str

    @property
    def presence(self) -> npt.NDArray[np.bool_]:
        """Which bins hold anything, (tensors, 2, BINS)."""
        return self.counts > 0

    @property
    def totals(self) -> Counts:
        """Values counted of each tensor, (tensors,)."""
        return np.asarray(self.counts.sum(axis=(1, 2)))

    def ranges(self, percentile: float = 100.0) -> dict[str, Range]:
        """See :func:`ranges_of`."""
        return ranges_of(self.tensors, self.counts.astype(np.float64), self.presence, percentile)

    def save(self, path: Path) -> None:
        """Written whole or not at all."""
        header = json.dumps({"form": FORM, "tensors": self.tensors, "cases": self.cases, "model": self.model})
        write_arrays(
            path, {"header": np.frombuffer(header.encode(), np.uint8), "counts": self.counts, "extremes": self.extremes}
        )


def read_histograms(path: Path) -> Histograms:
    """What :meth:`Histograms.save` wrote. Raises ``DataError`` for a file that is none, or whose parts do not fit."""
    asked, remedy = f"read histograms {path}", "Observe the site's calibration cases again"
    try:
        arrays = read_arrays(path, MOST_FILE_BYTES)
        header, counts = parsed(np.asarray(arrays["header"], np.uint8).tobytes()), arrays["counts"]
        extremes = arrays["extremes"]
        tensors, cases, model = header["tensors"], header["cases"], header["model"]
        if header["form"] != FORM:
            raise ValueError(f"its form is {str(header['form'])[:60]!r}, not {FORM!r}")
        if not (
            isinstance(tensors, list) and all(isinstance(name, str) for name in tensors) and isinstance(model, str)
        ):
            raise ValueError("its header names no tensors")
        if len(tensors) > MOST_TENSORS or len(set(tensors)) != len(tensors):
            raise ValueError(f"it names {len(tensors)} tensors, {len(set(tensors))} of them different")
        if type(cases) is not int or not 1 <= cases <= MOST_CASES:
            raise ValueError(f"it says {cases!r} cases")
        if counts.shape != (len(tensors), 2, BINS) or counts.dtype != np.int64 or int(counts.min(initial=0)) < 0:
            raise ValueError(f"its counts are {counts.dtype} of shape {counts.shape}, or negative")
        if extremes.shape != (len(tensors), 2) or not np.all((extremes >= 0) & (extremes < 2.0**HIGHEST)):
            raise ValueError(f"its extremes are of shape {extremes.shape}, or no magnitudes")
    except (OSError, ValueError, KeyError, RecursionError) as exc:
        raise DataError(asked, str(exc) or type(exc).__name__, remedy) from exc
    return Histograms(tuple(tensors), counts, np.asarray(extremes, np.float64), cases, model)


def merged(parts: Sequence[Histograms]) -> Histograms:
    """The sum of several. Raises ``DataError`` where they are of another network, or of none."""
    if not parts:
        raise DataError("merge histograms", "there are none", "Observe at least one site")
    first = parts[0]
    for part in parts[1:]:
        if (part.model, part.tensors) != (first.model, first.tensors):
            found = f"they are of two networks: {first.model[:12]} and {part.model[:12]}"
            raise DataError("merge histograms", found, "Give every site the same reference")
    counts = first.counts.copy()
    for part in parts[1:]:
        counts += part.counts
    extremes = np.max([part.extremes for part in parts], axis=0)
    return Histograms(first.tensors, counts, extremes, sum(part.cases for part in parts), first.model)


def edges() -> Floats:
    """Upper edge of each bin, (BINS,): the magnitude that no value in it reaches."""
    return np.asarray(2.0 ** (LOWEST + np.arange(BINS) / PER_OCTAVE))


def bins_of(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The place of each value among the 2 x BINS of a tensor: negative ones lie in the second row. Values that are no
    numbers or too large are the caller's to refuse."""
    flat = np.asarray(values, np.float32).reshape(-1)
    magnitudes = np.abs(flat)
    with np.errstate(divide="ignore"):
        places = np.floor((np.log2(magnitudes) - np.float32(LOWEST)) * np.float32(PER_OCTAVE)) + 1
    inside = np.clip(places, 0, BINS - 1).astype(np.int64)
    return np.asarray(inside + BINS * (flat < 0))


def counted(values: npt.NDArray[Any], name: str) -> Counts:
    """(2, BINS) counts of a tensor's values. Raises ``DataError`` for NaN, infinities and magnitudes of 2^HIGHEST or more,
    which no bin is wide enough for."""
    largest = float(np.abs(values).max(initial=0.0))
    if not largest < 2.0**HIGHEST:
        found = f"a value of magnitude {largest:.4g}; histograms end at {2.0**HIGHEST:.0f}"
        raise DataError(f"activations of tensor {name!r}", found, "Check the network and the inputs of this case")
    return np.bincount(bins_of(values), minlength=2 * BINS).reshape(2, BINS).astype(np.int64)


def extreme_bins(counts: Counts) -> npt.NDArray[np.int64]:
    """The outermost occupied bin of each row of (..., BINS) counts; -1 where none is."""
    there = counts > 0
    last = BINS - 1 - np.argmax(there[..., ::-1], axis=-1)
    return np.asarray(np.where(there.any(axis=-1), last, -1))


def ranges_of(
    tensors: Sequence[str], weights: Floats, presence: npt.NDArray[np.bool_], percentile: float = 100.0
) -> dict[str, Range]:
    """The range of each tensor by name: (least, largest), both at least as wide as zero.

    ``weights`` (tensors, 2, BINS) are counts or shares, ``presence`` says which bins hold anything. At 100 the presence
    alone decides. Below it ``percentile`` is the share of values inside, both tails cut alike, as ONNX Runtime counts it.
    Raises ``DataError`` for a tensor that nothing is known of.
    """
    if not 0 < percentile <= 100:
        raise DataError("ranges of histograms", f"a percentile of {percentile}", "Take one above 0, at most 100")
    upper, found = edges(), {}
    for name, rows, there in zip(tensors, weights, presence, strict=True):
        if not there.any():
            raise DataError(f"the range of tensor {name!r}", "no site saw a value of it", "Observe the sites again")
        inside = there if percentile == 100 else there & _kept(rows, (100 - percentile) / 200)
        positive, negative = (int(bin_) for bin_ in extreme_bins(inside.astype(np.int64)))
        # bin 0 from zero up holds the zeros themselves: alone it means no value above zero worth a step
        found[name] = (-float(upper[negative]) if negative >= 0 else 0.0, float(upper[max(positive, 0)]))
    return found


def _kept(rows: Floats, tail: float) -> npt.NDArray[np.bool_]:
    """The bins (2, BINS) that are left when a share ``tail`` of the values is cut at each end; the bin in which the cut
    falls stays."""
    ordered = np.concatenate([rows[1, ::-1], rows[0]])
    below = np.cumsum(ordered)
    total = below[-1]
    slack = 1e-12 * total
    inside = (below > tail * total + slack) & (below - ordered < (1 - tail) * total - slack)
    return np.stack([inside[BINS:], inside[:BINS][::-1]])


def float_tensors(model: Any) -> dict[str, int]:
    """The float tensors that depend on the inputs, in the order of the graph, with the bytes of each (one value where its
    shape is not known)."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    values = {
        v.name: v.type.tensor_type for v in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    }
    stored = {tensor.name for tensor in model.graph.initializer}
    names = {value.name: None for value in model.graph.input if value.name not in stored}
    for node in model.graph.node:  # ONNX lists nodes after what they read
        if any(name in names for name in node.input):
            names.update(dict.fromkeys(name for name in node.output if name))
    sizes = {}
    for name in names:
        kind = values.get(name)
        if kind is not None and kind.elem_type == onnx.TensorProto.FLOAT:
            sizes[name] = 4 * math.prod(max(1, side.dim_value) for side in kind.shape.dim)
    return sizes


def observe(
    reference: Path, feeds: Iterable[Mapping[str, Array]], *, tensors: Sequence[str] | None = None, threads: int = 1
) -> Histograms:
    """Histograms of the reference's float tensors (``tensors``, or all that depend on its inputs) over ``feeds``, the
    model-ready inputs of a site's calibration cases, one after the other.

    Raises ``DataError`` for no feeds, and for activations that no bin is wide enough for.
    """
    total: Histograms | None = None
    for case in observed(reference, feeds, tensors=tensors, threads=threads):
        total = case if total is None else merged([total, case])
    if total is None:
        raise DataError(f"observe {reference.name}", "there are no calibration cases", "Give the site some")
    return total


def observed(
    reference: Path, feeds: Iterable[Mapping[str, Array]], *, tensors: Sequence[str] | None = None, threads: int = 1
) -> Iterator[Histograms]:
    """The histograms of each feed by itself: see :func:`observe`."""
    from edgedeploy.runtime.files import sha256_file

    require_in_one_file(reference, "histograms of its activations")
    session, sizes, inputs = exposed(reference, threads)
    names = tuple(sizes) if tensors is None else tuple(tensors)
    unknown = [name for name in names if name not in sizes]
    if unknown:
        raise DataError(
            f"observe {reference.name}", f"it has no float tensor {unknown[0]!r}", "Name tensors of the graph"
        )
    digest = sha256_file(reference)
    for feed in feeds:
        if inputs - set(feed):
            found = f"no value of input {min(inputs - set(feed))!r}, but of {', '.join(sorted(feed)) or 'none'}"
            raise DataError(f"observe {reference.name}", found, "Feed every input by the name that it has in the file")
        counts, extremes = np.zeros((len(names), 2, BINS), np.int64), np.zeros((len(names), 2))
        places = {name: place for place, name in enumerate(names)}
        for name, values in _values(session, feed, names, sizes, inputs):
            counts[places[name]] = counted(values, name)
            extremes[places[name]] = max(float(values.max(initial=0)), 0.0), max(-float(values.min(initial=0)), 0.0)
        yield Histograms(names, counts, extremes, 1, digest)


def _values(
    session: Any, feed: Mapping[str, Array], names: Sequence[str], sizes: Mapping[str, int], inputs: set[str]
) -> Iterator[tuple[str, Any]]:
    """Every tensor of one case by name, no more in memory at once than fits."""
    yield from ((name, feed[name]) for name in names if name in inputs)
    for group in _groups([name for name in names if name not in inputs], sizes):
        yield from zip(group, session.run(list(group), dict(feed)), strict=True)


def exposed(reference: Path, threads: int) -> tuple[Any, dict[str, int], set[str]]:
    """A session in which every float tensor can be asked for; the bytes of each, and which of them are inputs."""
    import onnx
    import onnxruntime

    model = onnx.load(str(reference))
    sizes = float_tensors(model)
    inputs = {value.name for value in model.graph.input}
    known = {value.name for value in model.graph.output}
    for name in sizes:
        if name not in known | inputs:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session, sizes, inputs


def _groups(names: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """``names`` in runs whose outputs fit :data:`MOST_OUTPUT_BYTES` together; one that is larger goes alone."""
    group: list[str] = []
    taken = 0
    for name in names:
        if group and taken + sizes[name] > MOST_OUTPUT_BYTES:
            yield group
            group, taken = [], 0
        group.append(name)
        taken += sizes[name]
    if group:
        yield group
