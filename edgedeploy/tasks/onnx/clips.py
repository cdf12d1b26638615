"""Clips for an ONNX model that carries state: an ``.npz`` holds (cases, frames, *input shape) of each input that a frame
brings."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.errors import DataError, SpecError, nearest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.tasks.onnx.inputs import ArraySource, Source

MAX_FRAMES: Final = 20_000


@dataclass(frozen=True)
class States:
    """``outputs`` maps an input to the output that is its value in the next frame; ``start`` holds its value in the first.
    ``frames`` is the length of every clip."""

    outputs: Mapping[str, str]
    start: Mapping[str, Array]
    frames: int = 0

    def case_specs(self, inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        """What a case holds: clips of the inputs that a frame brings, and the states before the first frame; the inputs
        themselves where there are no states."""
        if not self.outputs:
            return tuple(inputs)
        return tuple(
            spec if spec.name in self.outputs else TensorSpec(spec.name, spec.dtype, (self.frames, *spec.shape))
            for spec in inputs
        )


def states_of(
    outputs: Mapping[str, str],
    initial: Mapping[str, Any],
    inputs: Sequence[TensorSpec],
    told: Sequence[TensorSpec],
) -> States:
    """The states that a study names, held against the model. Raises ``SpecError``."""
    before = {spec.name: spec for spec in inputs}
    after = {spec.name: spec for spec in told}
    for name, follows in outputs.items():
        asked = f"task.options.states.{name} = {follows!r}"
        if name not in before:
            raise SpecError(asked, "the model has no such input", nearest(name, before))
        if follows not in after:
            raise SpecError(asked, "the model has no such output", nearest(follows, after))
        first, second = before[name], after[follows]
        if (first.dtype, first.shape) != (second.dtype, second.shape):
            found = f"{first.dtype} {list(first.shape)} goes in, {second.dtype} {list(second.shape)} comes out"
            raise SpecError(asked, found, "A state has one type and shape")
    if len(set(outputs.values())) < len(outputs):
        raise SpecError("task.options.states", "two inputs have one output", "Give each its own")
    for what, names, kept in (("input", before, outputs), ("output", after, outputs.values())):
        if not set(names) - set(kept):
            raise SpecError("task.options.states", f"no {what} is left beside the states", "A frame needs one")
    start = {}
    for name in outputs:
        start[name] = _start(before[name], initial.get(name, 0))
    for name in initial:
        if name not in outputs:
            raise SpecError(f"task.options.initial.{name}", "it is no state", nearest(name, outputs))
    return States(dict(outputs), start)


def _start(spec: TensorSpec, value: Any) -> Array:
    try:
        return np.broadcast_to(np.asarray(value, spec.dtype), spec.shape).copy()
    except (ValueError, TypeError):
        asked = f"task.options.initial.{spec.name}"
        raise SpecError(
            asked, f"it does not fill {list(spec.shape)}", "Give a number, or lists of that shape"
        ) from None


class ClipSource:
    """Clips of an ``.npz``. Constructing it reads the headers of its arrays; ``load`` reads one clip of each."""

    def __init__(self, path: Path, inputs: Sequence[TensorSpec], states: States) -> None:
        self._inputs = [spec for spec in inputs if spec.name not in states.outputs]
        self._states = states
        self.frames, short = _length(path, self._inputs)
        shapes = {spec.name: spec.shape[1:] if short else spec.shape for spec in self._inputs}
        stored = [TensorSpec(spec.name, spec.dtype, (self.frames, *shapes[spec.name])) for spec in self._inputs]
        self._arrays: Source = ArraySource(path, stored)

    def names(self) -> Sequence[str]:
        return self._arrays.names()

    def load(self, index: int) -> dict[str, Array]:
        clip = self._arrays.load(index)
        moving = {spec.name: clip[spec.name].reshape(self.frames, *spec.shape) for spec in self._inputs}
        return {**moving, **{name: value.copy() for name, value in self._states.start.items()}}


def open_clips(path: Path, inputs: Sequence[TensorSpec], states: States) -> ClipSource:
    """The clips that a study names. Raises ``DataError``."""
    if path.suffix != ".npz" or not path.is_file():
        raise DataError(f"clips of a model with states at {path}", "there is no .npz file", "Write it with numpy.savez")
    return ClipSource(path, inputs, states)


def first_frames(path: Path, inputs: Sequence[TensorSpec], count: int) -> list[dict[str, Array]]:
    """The first frame of some clips with the state before it, from a study's own stacked inputs; none where the file does
    not hold clips of these inputs."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {spec.name: arrays[spec.name] for spec in inputs}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return []
    taken = {}
    for spec in inputs:
        array = found[spec.name]
        if spec.shape not in (array.shape[1:], array.shape[2:]) or array.dtype != np.dtype(spec.dtype):
            return []
        taken[spec.name] = array if array.shape[1:] == spec.shape else array[:, 0]
    rows = min(len(array) for array in taken.values())
    return [{name: np.array(array[index]) for name, array in taken.items()} for index in range(min(count, rows))]


def _length(path: Path, inputs: Sequence[TensorSpec]) -> tuple[int, bool]:
    """Frames of each clip, and whether the arrays leave out the model's batch axis of 1. :class:`ArraySource` checks the
    rest."""
    spec = inputs[0]
    wanted = f"Wanted: {spec.dtype}, (cases, frames, {', '.join(map(str, spec.shape))})"
    asked = f"array {spec.name!r} of {path.name}"
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{spec.name}.npy") as stream:
            version = np.lib.format.read_magic(stream)[0]
            read = np.lib.format.read_array_header_1_0 if version == 1 else np.lib.format.read_array_header_2_0
            shape = read(stream)[0]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as exc:
        raise DataError(asked, f"it cannot be read ({exc})", wanted) from None
    short = len(shape) == len(spec.shape) + 1 and spec.shape[:1] == (1,)
    if not (short or len(shape) == len(spec.shape) + 2) or not 1 <= shape[1] <= MAX_FRAMES:
        raise DataError(asked, f"it is {tuple(shape)}", wanted)
    return int(shape[1]), short
