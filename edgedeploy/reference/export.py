"""The ONNX reference: the float32 graph that every artifact of a model is built from and compared with.

There is one per torch model. It is exported once and compared with torch. From then on it is the ground truth: a target
that disagrees with it is wrong.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np

from edgedeploy.errors import BuildError, DataError, ParityError, Unsupported
from edgedeploy.files import read_arrays, read_json, write_json, write_stacked
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec, random_feed
from edgedeploy.reference import external, graph
from edgedeploy.reference.calling import call, flat_model, named_tensors, plain_model
from edgedeploy.reference.copies import baked, copied
from edgedeploy.reference.parity import compare, within
from edgedeploy.reference.randomness import check_random_nodes, check_repeatable
from edgedeploy.reference.safety import check_onnx
from edgedeploy.reference.translate import causes, first_line, nodes_named, translated, untraceable
from edgedeploy.runtime.files import sha256_file
from edgedeploy.runtime.sessions.clips import clip_outputs, run_clip

EXPORT_TOLERANCE: Final = 1e-4
"""Largest relative L2 distance between torch and the exported graph, per output. Folded batch norms and another order
of summation cause 1e-7 (convolutional) to 2e-6 (transformers); a wrong graph causes 1e-2 or more."""


_DAMAGE: Final = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
    *(EOFError, BadZipFile, zlib.error),
)
"""What reading a damaged file of kept outputs raises."""


@dataclass(frozen=True)
class Reference:
    """An exported float32 model. ``macs`` and ``parameters`` describe its size, not its speed.

    ``quantized``: the model was trained to be int8, and its file has QuantizeLinear/DequantizeLinear pairs
    (:mod:`edgedeploy.reference.quantized`). Its outputs when run in float are then the ground truth.
    """

    path: Path
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    parameters: int
    macs: int
    quantized: bool = False
    states: Mapping[str, str] = field(default_factory=dict)
    as_given: bool = False

    @property
    def told(self) -> tuple[TensorSpec, ...]:
        """The outputs that are compared and scored: all but those that are state."""
        return tuple(spec for spec in self.outputs if spec.name not in self.states.values())

    def as_json(self) -> dict[str, Any]:
        """Plain data; the file is given by its name alone, so that its folder may move."""
        return {
            "file": self.path.name,
            "sha256": self.sha256,
            "inputs": [spec.as_json() for spec in self.inputs],
            "outputs": [spec.as_json() for spec in self.outputs],
            "opset": self.opset,
            "parameters": self.parameters,
            "macs": self.macs,
            **({"quantized": True} if self.quantized else {}),
            **({"states": dict(self.states)} if self.states else {}),
            **({"as_given": True} if self.as_given else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], folder: Path) -> Reference:
        return cls(
            path=folder / str(data["file"]),
            sha256=str(data["sha256"]),
            inputs=tuple(TensorSpec.from_json(item) for item in data["inputs"]),
            outputs=tuple(TensorSpec.from_json(item) for item in data["outputs"]),
            opset=int(data["opset"]),
            parameters=int(data["parameters"]),
            macs=int(data["macs"]),
            quantized=bool(data.get("quantized", False)),
            as_given=bool(data.get("as_given", False)),
            states={str(before): str(after) for before, after in data.get("states", {}).items()},
        )


def describe(path: Path, *, own: bool = False) -> Reference:
    """The :class:`Reference` of an ONNX file. A file that edgedeploy did not export itself (``own``) is first checked
    in a process with limits.

    Raises ``BuildError`` when the file is not a valid model of static shapes, ``DataError`` when it may not be loaded.
    """
    import onnx

    if not own:
        check_onnx(path)
    with translated(f"{path.name} as a valid ONNX model", "Export it again"):
        outside = external.has_weights_file(path)
        model = onnx.load(str(path), load_external_data=not outside)
        onnx.checker.check_model(str(path) if outside else model, full_check=True)
    return Reference(
        path=path,
        sha256=sha256_file(path),
        inputs=graph.graph_inputs(model),
        outputs=graph.graph_outputs(model),
        opset=graph.opset_of(model),
        parameters=graph.count_parameters(model),
        macs=graph.count_macs(model),
    )


def export_reference(
    model: Any,
    specs: tuple[TensorSpec, ...],
    path: Path,
    *,
    samples: Iterable[Mapping[str, Array]] = (),
) -> Reference:
    """Export a ``torch.nn.Module`` with static shapes to ``path`` and prove that the file computes what torch does.

    Inputs keep the names of ``specs``; :mod:`edgedeploy.reference.calling` says how outputs are named. Parity is checked
    on every one of ``samples``, the user's own cases, or where there are none on
    :func:`edgedeploy.records.artifact.random_feed`. The model is not changed. ``path`` is written only after all checks
    have passed.

    Raises ``Unsupported`` for an operator without ONNX counterpart, a model that cannot be copied, and outputs that are
    not finite or no tensors; ``BuildError`` for a model that cannot be traced or answers the same input differently;
    ``ParityError`` when the file computes something else.
    """
    return export_checked(model, specs, path, samples, finish=partial(describe, own=True), tolerance=EXPORT_TOLERANCE)


def export_checked(
    model: Any,
    specs: tuple[TensorSpec, ...],
    path: Path,
    samples: Iterable[Mapping[str, Array]],
    *,
    finish: Callable[[Path], Reference],
    tolerance: float,
) -> Reference:
    """:func:`export_reference` with a callback: ``finish`` may rewrite the exported file, and returns its reference."""
    import torch

    frozen = frozen_model(model)
    names = [spec.name for spec in specs]
    feeds = list(samples) or [random_feed(specs, 0)]
    first = check_repeatable(frozen, lambda: _torch_outputs(frozen, specs, feeds[0]), tolerance)
    expected = [first, *(_torch_outputs(frozen, specs, feed) for feed in feeds[1:])]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        arguments = tuple(torch.from_numpy(np.array(feeds[0][name])) for name in names)
        _export(flat_model(frozen, names), arguments, names, list(first), part)
        reference = finish(part)
        for found, wanted in zip(reference_outputs(reference, feeds), expected, strict=True):
            _check_export(wanted, found, tolerance)
        external.move(part, path)
    return Reference(**{**vars(reference), "path": path})


def reference_outputs(reference: Reference, feeds: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
    """Outputs of the reference on each of ``feeds`` by ONNX Runtime in float32: the ground truth for parity.

    One session with one thread runs all feeds: the order of summation, and so every bit, repeats on one machine. A
    quantized reference runs unoptimised, as its file is written: an optimised session would use integer kernels. Of a
    reference with ``states``, each of ``feeds`` is a clip and gives (frames, *output shape).
    """
    session = open_onnx(reference.path, threads=1, as_written=reference.quantized or reference.as_given)
    names = [spec.name for spec in reference.outputs]

    def run(feed: Mapping[str, Array]) -> dict[str, Array]:
        values = session.run(names, {spec.name: feed[spec.name] for spec in reference.inputs})
        return dict(zip(names, map(np.asarray, values), strict=True))

    for feed in feeds:
        yield clip_outputs(run, feed, reference.states) if reference.states else run(feed)


def frames_of(reference: Reference, clips: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
    """The inputs of each frame of ``clips``, with the state that the reference has there."""
    session = open_onnx(reference.path, threads=1, as_written=reference.as_given)
    names = [spec.name for spec in reference.outputs]
    for clip in clips:
        frames = run_clip(lambda feed: dict(zip(names, session.run(names, feed), strict=True)), clip, reference.states)
        yield from (frame for frame, _ in frames)


def run_reference(reference: Reference, feed: Mapping[str, Array]) -> dict[str, Array]:
    """:func:`reference_outputs` of a single case."""
    return next(reference_outputs(reference, [feed]))


def kept_outputs(
    reference: Reference,
    feeds: Sequence[Mapping[str, Array]],
    path: Path,
    damaged: Callable[[str], None] = lambda found: None,
    apart: Callable[[Reference, Sequence[Mapping[str, Array]]], None] = lambda reference, feeds: None,
) -> list[dict[str, Array]]:
    """:func:`reference_outputs`, computed once and kept at ``path`` (``.npz``). A ``.json`` beside it records its hash
    and what it was computed from.

    They are computed again when the reference, a case or ONNX Runtime has changed, and when the file is damaged;
    ``damaged`` is then called with a message. ``apart`` is called before they are computed here, and raises when they must
    not be. Raises ``DataError`` when the reference's own file has changed: wrong
    outputs would be kept as the ground truth.
    """
    import onnxruntime as ort

    names, note = [spec.name for spec in reference.told], path.with_name(f"{path.stem}.json")
    computed_from = {
        "reference_sha256": reference.sha256,
        "quantized": reference.quantized,
        **({"states": dict(reference.states)} if reference.states else {}),
        "cases_sha256": _sha256_of_feeds(reference, feeds),
        "onnxruntime": ort.__version__,
    }
    try:
        kept = _read_kept(path, note, computed_from, reference, _rows(reference, feeds))
    except _DAMAGE as exc:
        damaged(f"{path.name} is damaged and computed anew: {first_line(exc)}")
        kept = None
    if kept is None:
        if sha256_file(reference.path) != reference.sha256:
            found = "the file is not the one that was exported"
            raise DataError(f"reference {reference.path}", found, f"Remove {reference.path.parent}: it is made again")
        external.check_weights(reference.path)
        apart(reference, feeds)
        for place in (path, note):
            if place.is_dir():
                shutil.rmtree(place)
        rows = reference_outputs(reference, feeds)
        write_stacked(path, ({f"out{place}": row[name] for place, name in enumerate(names)} for row in rows))
        write_json(note, {**computed_from, "sha256": sha256_file(path)})
        stacked = read_arrays(path)
        kept = {name: stacked[f"out{place}"] for place, name in enumerate(names)}
    return [{name: values[index] for name, values in kept.items()} for index in range(len(feeds))]


def _read_kept(
    path: Path, note: Path, computed_from: Mapping[str, Any], reference: Reference, rows: tuple[int, ...]
) -> dict[str, Array] | None:
    """The kept outputs by name, stacked; None when none are kept for these cases. Raises one of :data:`_DAMAGE` for a
    damaged file."""
    noted = read_json(note) if note.exists() else {}
    if {name: noted.get(name) for name in computed_from} != computed_from:
        return None
    if sha256_file(path) != noted["sha256"]:
        raise ValueError("its content is not what its hash says")
    arrays = read_arrays(path)
    kept = {spec.name: arrays[f"out{place}"] for place, spec in enumerate(reference.told)}
    for spec in reference.told:
        found, wanted = kept[spec.name], (*rows, *spec.shape)
        if found.shape != wanted or found.dtype != np.dtype(spec.dtype):
            raise ValueError(f"{spec.name} is {found.dtype} {found.shape}, not {spec.dtype} {wanted}")
    return kept


def _rows(reference: Reference, feeds: Sequence[Mapping[str, Array]]) -> tuple[int, ...]:
    """The axes before an output's own: cases, and the frames of clips."""
    moving = [spec.name for spec in reference.inputs if spec.name not in reference.states]
    return (len(feeds), len(feeds[0][moving[0]])) if reference.states else (len(feeds),)


def _sha256_of_feeds(reference: Reference, feeds: Iterable[Mapping[str, Array]]) -> str:
    """A hash of every case's arrays, in the order of the reference's inputs, with their types and shapes."""
    digest = hashlib.sha256()
    for feed in feeds:
        for spec in reference.inputs:
            value = np.ascontiguousarray(feed[spec.name])
            digest.update(f"{spec.name} {value.dtype.str} {value.shape}\n".encode())
            digest.update(value.tobytes())
    return digest.hexdigest()


def open_onnx(path: Path, threads: int, *, as_written: bool = False, settings: Mapping[str, str] | None = None) -> Any:
    """A CPU session with the configuration entries ``settings``; with ``as_written``, one without graph optimisations.
    Raises ``Unsupported`` naming the node or operator that ONNX Runtime refuses."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if as_written:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # a board on this host may be measuring
    for key, value in (settings or {}).items():
        options.add_session_config_entry(key, value)
    asked = f"{path.name} in ONNX Runtime {ort.__version__}"
    with nodes_named(path), translated(asked, "Replace the operator it names", Unsupported):
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def check_answers(model: Any, specs: tuple[TensorSpec, ...], feed: Mapping[str, Array] | None = None) -> None:
    """Raises before a long training what :func:`export_reference` would raise after it: inputs that do not fit, outputs
    that are no tensors, randomness in evaluation mode. ``feed`` is a case of the user's; without one it is made up. The
    model is not changed."""
    frozen, values = frozen_model(model), feed or random_feed(specs, 0)
    check_repeatable(frozen, lambda: _torch_outputs(frozen, specs, values), EXPORT_TOLERANCE)


def first_answer(model: Any, specs: tuple[TensorSpec, ...], feed: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of one forward pass on ``feed``. The model is not changed. Raises ``BuildError`` for inputs that do not
    fit, ``Unsupported`` for outputs that are no tensors or not finite."""
    return _torch_outputs(frozen_model(model), specs, feed)


def frozen_model(model: Any) -> Any:
    """A copy of a user's module as it is exported: on the CPU, in evaluation mode, its weights plain parameters. Raises
    ``Unsupported``."""
    return baked(copied(plain_model(model))).eval().cpu()


def _torch_outputs(model: Any, specs: tuple[TensorSpec, ...], feed: Mapping[str, Array]) -> dict[str, Array]:
    import torch

    shapes = ", ".join(f"{spec.name} {spec.shape}" for spec in specs)
    names = [spec.name for spec in specs]
    with translated(f"a forward pass with {shapes}", "input_specs() has to fit the model"), torch.inference_mode():
        tensors = {name: torch.from_numpy(np.array(feed[name])) for name in names}
        outputs = named_tensors(call(model, tensors), names)
        arrays: dict[str, Array] = {name: tensor.numpy() for name, tensor in outputs.items()}
    for name, array in arrays.items():
        if array.dtype.kind == "c":
            remedy = "Return real numbers: torch.view_as_real, or abs() and angle()"
            raise Unsupported(f"real numbers in output {name} of the torch model", str(array.dtype), remedy)
        if not np.isfinite(array).all():
            raise Unsupported(f"finite values in output {name} of the torch model", "NaN or Inf", "Train it again")
    return arrays


def _export(model: Any, arguments: tuple[Any, ...], inputs: list[str], outputs: list[str], path: Path) -> None:
    import onnx
    import torch

    outside = sum(value.nbytes for value in model.state_dict().values()) > external.MOST_INSIDE_BYTES
    try:
        with _quiet_exporter():
            torch.onnx.export(
                model,
                arguments,
                str(path),
                dynamo=True,
                external_data=outside,
                input_names=inputs,
                output_names=[f"out{place}" for place in range(len(outputs))],
                verbose=False,
            )
    except Exception as exc:  # the exporter wraps whatever went wrong inside, several levels deep
        raise _export_error(exc) from exc
    proto = onnx.load(str(path), load_external_data=not outside)
    graph.strip_metadata(proto)
    graph.rename_outputs(proto, outputs)
    check_random_nodes(proto.graph)
    (external.seal if outside else external.save)(proto, path)


def _export_error(exc: BaseException) -> BuildError:
    """The exporter's failure as an error. The innermost exception names the operator; the outermost only says that one
    failed."""
    chain = causes(exc)
    for link in reversed(chain):
        if type(link).__name__ in ("DispatchError", "UnsupportedOperatorError"):
            return Unsupported("export to ONNX", first_line(link), "Replace the operator it names")
    return BuildError("export to ONNX", untraceable(exc), "The forward has to be traceable with torch.export")


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter warns about packages that are not needed and about its own internals; errors still come through."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _check_export(expected: Mapping[str, Array], found: Mapping[str, Array], tolerance: float) -> None:
    for name, distance in compare(expected, found).items():
        if not within(distance, tolerance):
            raise ParityError(
                f"output {name} within {tolerance:g} of torch",
                f"relative L2 distance {distance['rel_l2']:.2e}",
                "The export changed the model: look for data-dependent control flow",
            )
