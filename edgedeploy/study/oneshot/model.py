"""One float ONNX model with some cases as a task: what it is held against is its own output, not a truth."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from edgedeploy.errors import DataError, Setting, SpecError, Unsupported
from edgedeploy.interfaces.task import Array, Case, Split
from edgedeploy.records.artifact import TensorSpec, random_feed
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.export import describe, reference_outputs
from edgedeploy.reference.external import check_weights, weights_file
from edgedeploy.reference.parity import apart
from edgedeploy.reference.take_in import SHAPES, TakenIn, take_in
from edgedeploy.tasks.onnx.inputs import PREPROCESSING, PREPROCESSING_EXAMPLE, Preprocessing, Sources

COMPARED: Final = 16
"""At most this many cases are held out of the calibration, to compare the artifact with the float model on."""

FEWEST_TO_HOLD_OUT: Final = 8
"""With fewer cases, all of them calibrate and are compared on as well."""

RANDOM_CASES: Final = 8
_DATA_KEYS: Final = ("task.options.calibration", "task.options.data")
CHECKPOINTS: Final = (".pt", ".pth", ".ckpt", ".safetensors")


@dataclass(frozen=True)
class Inputs:
    """The cases of a one-shot command. ``calibration`` and ``compared`` are model-ready inputs by name; ``text`` says what
    the compared ones are, ``notes`` what was found about their files; ``random`` that nobody gave any."""

    calibration: Mapping[str, Any]
    compared: Mapping[str, Any]
    text: str
    notes: tuple[str, ...] = ()
    random: bool = False


def onnx_file(path: Path) -> Path:
    """The path, if a file is there. Raises ``DataError``, for a checkpoint too: it has weights and no network."""
    if path.suffix in CHECKPOINTS:
        found = "it is a PyTorch checkpoint, which holds weights and no network"
        raise DataError(
            f"model {path}", found, "Export it to ONNX, or name the network: --task file.py:factory --checkpoint FILE"
        )
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "there is no such file"
        raise DataError(f"model {path}", found, "Name an .onnx file")
    return path


def random_cases(specs: Sequence[TensorSpec]) -> Inputs:
    """Seeded random inputs, for models that nobody gave inputs for."""
    feeds = {str(seed): partial(random_feed, specs, seed) for seed in range(RANDOM_CASES)}
    return Inputs(feeds, feeds, f"{RANDOM_CASES} random inputs", random=True)


def cases_of(place: Path, specs: Sequence[TensorSpec], images: Mapping[str, Any] | None, asked: str) -> Inputs:
    """The cases at ``place``: images, ``.npy`` or ``.npz``. ``images`` is the table of how images become inputs, ``asked``
    the option that named the place.

    Every one is read once, so that a bad one is told before anything is built. Raises ``DataError`` and ``SpecError``.
    """
    if not place.exists():
        raise DataError(f"{asked} {place}", "there is no such file or folder", "Correct the path")
    if place.is_dir() and not any(path.is_file() for path in place.iterdir()):
        raise DataError(f"{asked} {place}", "there is no file in it", "Put images, .npy or .npz files there")
    try:
        preprocessing = None if images is None else Preprocessing.from_table(images)
        sources = Sources({"calibration": place}, specs, preprocessing)
        source = sources.by_split["calibration"]
        names = list(source.names())
        feeds = {name: partial(source.load, row) for row, name in enumerate(names)}
        for load in feeds.values():
            load()
    except (SpecError, DataError) as exc:
        raise for_command(exc, place, asked) from None
    notes = (sources.note,) if sources.note else ()
    if len(names) < FEWEST_TO_HOLD_OUT:
        return Inputs(feeds, feeds, f"the {len(names)} calibration cases themselves", notes)
    step = max(4, -(-len(names) // COMPARED))
    compared = {name: feeds[name] for name in names[step - 1 :: step]}
    rest = {name: load for name, load in feeds.items() if name not in compared}
    return Inputs(rest, compared, f"{len(compared)} cases that the calibration has not seen", notes)


def for_command(exc: SpecError | DataError, place: Path, asked: str) -> SpecError | DataError:
    """An error about a study file's keys in the words of the command line: ``asked`` is the option that named ``place``."""
    setting = exc.setting
    if setting == Setting(PREPROCESSING):
        found = "it holds no .npy or .npz file, and how images become inputs is not said"
        example = _as_options(PREPROCESSING_EXAMPLE.settings)
        return SpecError(f"{asked} {place}", found, f"Add what the model was trained with, such as {example}")
    said, remedy = exc.asked, exc.remedy
    if setting is not None and setting.key in _DATA_KEYS:
        said = f"{asked} {place}"
    elif setting is not None and setting.key.startswith(f"{PREPROCESSING}."):
        said = _as_options({setting.key.removeprefix(f"{PREPROCESSING}."): setting.value})
    if exc.advice is not None:
        remedy = f"{exc.advice.before} {_as_options(exc.advice.settings)}{exc.advice.after}"
    return type(exc)(said, exc.found, remedy)


def _as_options(settings: Mapping[str, str]) -> str:
    """Keys of a study file with their values, as TOML, the way that a command takes them."""
    options = ((f"--{key.replace('_', '-')}", value.strip("'[]").replace(", ", ",")) for key, value in settings.items())
    return " ".join(f"{option} {value}".rstrip() for option, value in options)


def take(path: Path, shapes: Mapping[str, Sequence[int]]) -> TakenIn:
    """The model's clean copy; errors about its shapes are in the words of the command line."""
    try:
        return take_in(onnx_file(path), shapes)
    except SpecError as exc:
        if exc.setting is None or not exc.setting.key.startswith(f"{SHAPES}."):
            raise
        sizes = exc.setting.value.strip("[]").replace(", ", ",")
        name = exc.setting.key.removeprefix(f"{SHAPES}.")
        raise SpecError(f"--shape {name}{f'={sizes}' if sizes else ''}", exc.found, exc.remedy) from None
    except Unsupported as exc:
        if (shape := exc.open_shape) is None:
            raise
        sizes = "1,..." if shape.sizes is None else ",".join(map(str, shape.sizes))
        remedy = f"One artifact serves one shape: add --shape {shape.name}={sizes}"
        raise Unsupported(exc.asked, exc.found, remedy, shape) from None


class OneModel:
    """See ``Task``, ``ReadyMade`` and ``TakenAsGiven`` in :mod:`edgedeploy.interfaces.task`.

    Its metrics are distances of each output from the float model's, by case: agreement, not accuracy.
    """

    name = "one model"
    architecture: Mapping[str, Sequence[Scalar]] = {}

    def __init__(
        self, data: bytes, sha256: str, inputs: Inputs, as_given: str = "", weights: Path | None = None
    ) -> None:
        """``weights`` is the file in which the model has them, where it is one of :mod:`edgedeploy.reference.external`."""
        self._data = data
        self.weights_beside = weights
        self.as_given = as_given
        self.source_sha256 = sha256
        self._inputs = inputs
        with TemporaryDirectory(prefix="edgedeploy-") as folder:
            reference = describe(self._placed(Path(folder)))
        self.inputs_taken, self.outputs_given = reference.inputs, reference.outputs
        self.slugs = {spec.name: f"{index}_{_slug(spec.name)}" for index, spec in enumerate(self.outputs_given)}
        self.metrics: Mapping[str, MetricInfo] = {
            f"{kind}_{slug}": MetricInfo("minimize", "1", f"{text} of output {name} from the float model's", bound=0.0)
            for name, slug in self.slugs.items()
            for kind, text in (("rel_l2", "relative L2 distance"), ("max_abs", "largest difference"))
        }

    def _placed(self, folder: Path) -> Path:
        path = folder / "reference.onnx"
        path.write_bytes(self._data)
        if self.weights_beside is not None:
            shutil.copyfile(self.weights_beside, weights_file(path))
            check_weights(path)
        return path

    def build(self, **arch: Scalar) -> Any:
        raise SpecError("a torch model", "an ONNX file can be neither trained nor pruned", "Search its precisions only")

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        return self.inputs_taken

    def cases(self, split: Split) -> Sequence[Case]:
        names = {"calibration": self._inputs.calibration, "train": {}}.get(split, self._inputs.compared)
        return tuple(Case(name, split) for name in names)

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        feeds = self._inputs.calibration if case.split == "calibration" else self._inputs.compared
        found: dict[str, Array] = feeds[case.id]()
        return found

    def reference_model(self) -> bytes:
        return self._data

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        """None for the relative distance where the float model's output is zero all over."""
        found: dict[str, float | None] = {}
        for name, slug in self.slugs.items():
            found[f"rel_l2_{slug}"], found[f"max_abs_{slug}"] = apart(self._expected[case.id][name], outputs[name])
        return found

    @cached_property
    def _expected(self) -> dict[str, dict[str, Array]]:
        """The float model's outputs of each compared case, by ONNX Runtime."""
        with TemporaryDirectory(prefix="edgedeploy-") as folder:
            reference = describe(self._placed(Path(folder)))
            names, loads = zip(*self._inputs.compared.items(), strict=True)
            rows = reference_outputs(reference, (load() for load in loads))
            return dict(zip(names, rows, strict=True))


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:40]
