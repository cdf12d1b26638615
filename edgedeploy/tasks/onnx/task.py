"""A bare ONNX file as a task: nothing can be trained or pruned, so precision, target and runtime settings are searched.

Without labels the accuracy cannot be measured. The metrics compare an artifact's outputs with the float model's own and
are named so: ``reference_...`` is agreement with the model, not accuracy.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import DataError, MeasurementError, Setting, SpecError, Unsupported, nearest
from edgedeploy.interfaces.task import Array, Case, Split
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.reference.parity import apart
from edgedeploy.reference.take_in import TakenIn, take_in
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.pipeline.steps import Steps
from edgedeploy.runtime.sessions.clips import clip_outputs
from edgedeploy.runtime.sessions.onnxruntime import open_model
from edgedeploy.tasks.onnx.arrays import Share
from edgedeploy.tasks.onnx.clips import open_clips, states_of
from edgedeploy.tasks.onnx.groups import groups_by_case, table_name
from edgedeploy.tasks.onnx.inputs import ImageSource, Preprocessing, Source, Sources, digest_of_inputs
from edgedeploy.tasks.places import place_of

SOURCES: Final[tuple[Split, ...]] = ("calibration", "selection", "confirmation")
SHARES: Final[Mapping[Split, tuple[float, float]]] = {
    "calibration": (0.0, 0.25),
    "selection": (0.25, 0.75),
    "confirmation": (0.75, 1.0),
}
"""The stretch of one folder's cases, by name, that each split gets."""

REMEMBERED_BYTES: Final = 256 << 20
"""Reference outputs that are kept for the next variant; past this they are computed again."""


_TABLES: Final = {"constants": "{ sr = 16000 }", "states": '{ state = "stateN" }', "initial": "{ state = 0.0 }"}
"""Options that are tables by the names of inputs, with an example."""


@dataclass(frozen=True)
class OnnxOptions:
    """Where the inputs of each split are (an ``.npz`` or a folder, of images or arrays, relative to the study file), how
    images become inputs, the shapes of inputs that the model leaves open, and inputs that are constants. ``data`` in the
    place of the three is one such place for all of them, dealt out by :data:`SHARES`. ``states`` maps an input to the output
    that is its value in the next frame, ``initial`` to its value in the first (a number fills it). ``groups`` is a table of
    cases that belong together (:mod:`edgedeploy.tasks.onnx.groups`)."""

    calibration: str
    selection: str
    confirmation: str
    preprocessing: Preprocessing | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    initial: Mapping[str, Any] = field(default_factory=dict)
    data: bool = False
    groups: str = ""

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> OnnxOptions:
        """Raises ``SpecError`` with the key that is wrong."""
        known = ("data", *SOURCES, "preprocessing", "shapes", "groups", *_TABLES)
        for key in table:
            if key not in known:
                raise SpecError(f"task.options.{key}", "unknown option", nearest(key, known))
        if "data" in table:
            both = [key for key in SOURCES if key in table]
            if both:
                found = f"it is for all splits, and {both[0]} is given too"
                raise SpecError("task.options.data", found, "Give data, or all of the three splits")
            table = {**table, **dict.fromkeys(SOURCES, table["data"])}
        for key in SOURCES:
            if not isinstance(table.get(key), str) or not table[key]:
                raise SpecError(
                    f"task.options.{key}",
                    f"got {table.get(key)!r}" if key in table else "it is missing",
                    "Name an .npz file or a folder of images",
                )
        shapes = table.get("shapes", {})
        for name, shape in shapes.items() if isinstance(shapes, Mapping) else [("", shapes)]:
            whole = isinstance(shape, list) and all(type(size) is int and size > 0 for size in shape)
            if not name or not whole:
                raise SpecError("task.options.shapes", f"got {shapes!r}", "For example { input = [1, 3, 240, 320] }")
        for key, example in _TABLES.items():
            if not isinstance(table.get(key, {}), Mapping):
                raise SpecError(f"task.options.{key}", f"got {table[key]!r}", f"For example {example}")
        for name, after in table.get("states", {}).items():
            if not isinstance(after, str):
                raise SpecError(f"task.options.states.{name}", f"got {after!r}", f"For example {_TABLES['states']}")
        images = table.get("preprocessing")
        return cls(
            **{key: table[key] for key in SOURCES},
            data="data" in table,
            groups=table_name(table.get("groups", "")),
            preprocessing=None if images is None else Preprocessing.from_table(images),
            shapes={name: tuple(shape) for name, shape in shapes.items()},
            constants=dict(table.get("constants", {})),
            states=dict(table.get("states", {})),
            initial=dict(table.get("initial", {})),
        )


class OnnxTask:
    """See :class:`edgedeploy.interfaces.task.Task` and :class:`edgedeploy.interfaces.task.ReadyMade`.

    The constructor copies the model and reads every case once, so that a bad file is reported before anything starts.
    """

    name = "onnx"
    architecture: Mapping[str, Sequence[Scalar]] = {}

    def __init__(self, model: Path, options: OnnxOptions, base: Path) -> None:
        self.model_path = model
        self.taken: TakenIn = take_in(model, options.shapes, options.constants)
        places: dict[Split, Path] = {split: place_of(base, getattr(options, split)) for split in SOURCES}
        self._carried = states_of(options.states, options.initial, self.taken.inputs, self.taken.outputs)
        self.states: Mapping[str, str] = self._carried.outputs
        self.notes: tuple[str, ...] = ()
        self._sources: dict[Split, Source] = self._clips(places) if self.states else self._rows(places, options)
        if options.data:
            self._sources = {split: Share(self._sources[split], *SHARES[split]) for split in SOURCES}
            self._check_shared_out()
        self._cases: dict[Split, tuple[Case, ...]] = {
            split: tuple(Case(f"{split}/{name}", split) for name in source.names())
            for split, source in self._sources.items()
        }
        self._places = {case: index for cases in self._cases.values() for index, case in enumerate(cases)}
        self._check_apart()
        self._groups = groups_by_case(base, options.groups, self._places)
        self.groups_known = bool(self._groups)
        self._slugs = _slugs([spec.name for spec in self.taken.outputs if spec.name not in self.states.values()])
        self.metrics: Mapping[str, MetricInfo] = self._metric_table()
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._session: Any = None
        self._remembered: dict[str, dict[str, Array]] = {}
        self._remembered_bytes = 0
        self._check_answers()

    def build(self, **arch: Scalar) -> Any:
        raise SpecError(
            f"a torch model of {self.model_path.name}",
            "a bare ONNX file can be neither trained nor pruned",
            "Search precision, target, calibration and threads only",
        )

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        return self._carried.case_specs(self.taken.inputs)

    def cases(self, split: Split) -> Sequence[Case]:
        return self._cases.get(split, ())

    def group_of(self, case: Case) -> str:
        return self._groups.get(case, case.id)

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        return self._sources[case.split].load(self._places[case])

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        """Distances from the float reference's own outputs for the case. None where the reference is zero all over."""
        expected = self._expected(case)
        found: dict[str, float | None] = {}
        relative: list[float] = []
        largest: list[float] = []
        for name, reference in expected.items():
            if not np.isfinite(outputs[name]).all():
                asked, remedy = f"finite values in output {name!r} of {case.id}", "Choose a wider precision"
                raise MeasurementError(asked, "NaN or Inf", remedy)
            distance, difference = apart(reference, outputs[name])
            largest.append(difference)
            if distance is not None:
                relative.append(distance)
            if len(expected) > 1:
                found[f"reference_max_abs_{self._slugs[name]}"] = largest[-1]
        found["reference_rel_l2"] = max(relative, default=None)
        found["reference_max_abs"] = max(largest)
        return found

    def pipeline(self, outputs: Sequence[TensorSpec], **arch: Scalar) -> Steps:
        """The preprocessing of images; nothing where the inputs are arrays. What the outputs mean is not known."""
        source = self._sources["selection"]
        source = source.whole if isinstance(source, Share) else source
        return Steps(source.steps) if isinstance(source, ImageSource) else Steps()

    def frame(self, case: Case) -> Array:
        source, place = self._sources[case.split], self._places[case]
        if isinstance(source, Share):
            place, source = source.place(place), source.whole
        if not isinstance(source, ImageSource):
            raise DataError(f"the frame of case {case.id}", "its inputs are arrays", "Give a folder of images")
        return source.frame(place)

    @property
    def as_given(self) -> str:
        return self.taken.as_given

    @property
    def source_sha256(self) -> str:
        return self.taken.sha256

    def reference_model(self) -> bytes:
        return self.taken.data

    def _rows(self, places: Mapping[Split, Path], options: OnnxOptions) -> dict[Split, Source]:
        """The inputs of each split, a case a row or a file."""
        sources = Sources(places, self.taken.inputs, options.preprocessing)
        self.notes = (sources.note,) if sources.note else ()
        return sources.by_split

    def _clips(self, places: Mapping[Split, Path]) -> dict[Split, Source]:
        """The clips of each split. Raises ``DataError`` for clips of different lengths, which cannot be stacked."""
        clips = {split: open_clips(place, self.taken.inputs, self._carried) for split, place in places.items()}
        lengths = {split: source.frames for split, source in clips.items()}
        if len(set(lengths.values())) > 1:
            text = ", ".join(f"{split} {frames}" for split, frames in lengths.items())
            raise DataError("clips of one length", f"frames: {text}", "Cut all clips to the shortest")
        self._carried = replace(self._carried, frames=lengths["calibration"])
        return dict(clips)

    def _expected(self, case: Case) -> dict[str, Array]:
        if case.id in self._remembered:
            return self._remembered[case.id]
        if self._session is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="edgedeploy-reference-")
            path = Path(self._scratch.name) / "reference.onnx"
            path.write_bytes(self.taken.data)
            self._session = open_model(path, {}, 1)
        run, feed = self._session.run, self.inputs(case)
        try:
            found = clip_outputs(run, feed, self.states) if self.states else run(feed)
        except RuntimeFault as exc:  # the float model itself: no variant is to blame
            asked = f"{self.model_path.name} on case {case.id}"
            raise DataError(asked, str(exc), "Correct the case: its values are beyond what the model takes") from None
        values: dict[str, Array] = {name: np.asarray(value) for name, value in found.items()}
        size_bytes = sum(value.nbytes for value in values.values())
        if self._remembered_bytes + size_bytes <= REMEMBERED_BYTES:
            self._remembered[case.id] = values
            self._remembered_bytes += size_bytes
        return values

    def _check_shared_out(self) -> None:
        empty = [split for split, source in self._sources.items() if not source.names()]
        if empty:
            found = (
                f"its {sum(len(source.names()) for source in self._sources.values())} cases leave none for {empty[0]}"
            )
            raise DataError(Setting("task.options.data"), found, "Bring 4 cases or more: a study wants tens")

    def _check_apart(self) -> None:
        seen: dict[str, Case] = {}
        for case in self._places:
            digest = digest_of_inputs(self.inputs(case))
            other = seen.setdefault(digest, case)
            if other.split != case.split:
                raise DataError(
                    f"splits of {self.model_path.name} that share no case",
                    f"{other.id} and {case.id} are equal",
                    "What the search saw can confirm nothing: give each split inputs of its own",
                )

    def _check_answers(self) -> None:
        """The model gives numbers for the first case of each split. Raises ``Unsupported``, and ``DataError`` for a case
        that it cannot take."""
        firsts = [cases[0] for cases in self._cases.values() if cases]
        for case, name, values in ((first, *item) for first in firsts for item in self._expected(first).items()):
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise Unsupported(
                    f"finite values in output {name!r} of {self.model_path.name}",
                    f"NaN or Inf for case {case.id}",
                    "Look at the case, and in the model for a division by zero, a logarithm or an overflow",
                )

    def _metric_table(self) -> dict[str, MetricInfo]:
        text = "against the float reference's own output (agreement with the model, not accuracy)"
        table = {
            "reference_rel_l2": MetricInfo(
                "minimize", "1", f"relative L2 distance, worst output, {text}", bound=0.0, yes_or_no=False
            ),
            "reference_max_abs": MetricInfo(
                "minimize", "1", f"largest difference, all outputs, {text}", bound=0.0, yes_or_no=False
            ),
        }
        if len(self._slugs) > 1:
            for name, slug in self._slugs.items():
                of_output = f"largest difference of output {name}, {text}"
                table[f"reference_max_abs_{slug}"] = MetricInfo("minimize", "1", of_output, bound=0.0, yes_or_no=False)
        return table


def _slugs(names: Sequence[str]) -> dict[str, str]:
    """A short name for each output that fits a metric's name; equal ones are numbered."""
    found: dict[str, str] = {}
    for index, name in enumerate(names):
        slug = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
        found[name] = slug if slug and slug not in found.values() else f"{slug}_{index}".strip("_")
    return found
